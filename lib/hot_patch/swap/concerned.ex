defmodule HotPatch.Swap.Concerned do
  @moduledoc false
  # The processes that a swap has to do with, as a rehearsal needs them.
  #
  # A swap for which all stand still keeps what it knows of each process, for it is in a hurry later. Here nobody shall
  # notice anything: of a hundred thousand that would be a heap whose garbage keeps a scheduler from everybody
  # else for many milliseconds, at whatever priority. So processes are looked at some hundred at a time, all that there
  # is to be known of them at once, and what is kept are their pids, by what they have in common.

  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Discovery.KeptFrames
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Discovery.Running
  alias HotPatch.Swap.Discovery.Uncertain
  alias HotPatch.Swap.Target

  @typedoc """
  `groups` have a state to convert, `unpaused` have not, see `HotPatch.Swap.Discovery`. `casualties` are those for whom
  the change would be refused, by why.
  """
  @type t :: %{
          groups: [Target.group()],
          unpaused: [Target.group()],
          casualties: %{String.t() => [pid()]},
          silent: [pid()],
          uncertain: Uncertain.counts(),
          kept: KeptFrames.kept()
        }

  @doc "Finds those of a rehearsal; `reasons` are why some would end, `fatal` those of them for which the change is refused."
  @spec find([Change.t()], Casualties.reasons(), Casualties.reasons()) :: t()
  def find(changes, reasons, fatal) do
    found =
      Process.list()
      |> Lookers.look(&[part(&1, changes, {reasons, fatal})], 1)
      |> Enum.reduce(part([], changes, {reasons, fatal}), &together/2)

    %{found | groups: Map.to_list(found.groups), unpaused: Map.to_list(found.unpaused)}
  end

  @doc "How many processes there are in groups."
  @spec count([Target.group()]) :: non_neg_integer()
  def count(groups), do: groups |> Enum.map(fn {_target, pids} -> length(pids) end) |> Enum.sum()

  defp part(pids, changes, {reasons, fatal}) do
    found = Discovery.look(changes, pids)
    all = found.targets ++ found.unpaused
    marked = Casualties.mark(found, reasons)

    %{
      groups: Target.alike(marked.targets),
      unpaused: Target.alike(marked.unpaused),
      casualties: all |> Casualties.among(fatal) |> Casualties.by_reason(),
      silent: found.silent,
      uncertain: Uncertain.counts(changes, Running.of(changes, all, found.running), found.silent),
      kept: KeptFrames.of(changes, Enum.map(found.targets, & &1.pid))
    }
  end

  defp together(part, all) do
    %{
      groups: Map.merge(part.groups, all.groups, &more/3),
      unpaused: Map.merge(part.unpaused, all.unpaused, &more/3),
      casualties: Map.merge(part.casualties, all.casualties, &more/3),
      silent: part.silent ++ all.silent,
      uncertain: Uncertain.sum(part.uncertain, all.uncertain),
      kept: KeptFrames.merge(part.kept, all.kept)
    }
  end

  defp more(_key, pids, others), do: pids ++ others
end
