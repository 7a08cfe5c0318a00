defmodule HotPatch.NodeAgent.History do
  @moduledoc false
  # What a node can tell others of what was done on it: for those that missed it, and for
  # those that want back what was there before.

  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Precedence
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Strategy

  @type history :: %{
          release: Release.t(),
          lineage: [Release.t()],
          upgrades: [{id :: String.t(), to :: Release.t(), seq :: non_neg_integer()}],
          ops: [Applied.op()],
          decided: [Applied.op()],
          stack: [String.t()],
          rolled: [Store.Rolled.t()],
          retired: %{String.t() => %{at: DateTime.t(), seq: non_neg_integer()}},
          abouts: [map()]
        }

  @typedoc "How former files are to come back; `again`: as a patch they would be one that was applied before."
  @type way :: %{
          transition: Strategy.transition(),
          on_load: Strategy.on_load(),
          again: boolean()
        }

  @typedoc "Which patches are meant: all, none, or those whose ids begin so."
  @type wanted :: :all | :none | {:begins, String.t()}

  @typedoc """
  What a node knows of a patch. `kept` is the record of its archive, `about` what is known of the archive
  where the patch is in force, each nil where it is not; `ended_at` is when it ended under the running release.
  """
  @type patch :: %{
          id: String.t(),
          kept: Store.Archives.t() | nil,
          about: map() | nil,
          rolled_back?: boolean(),
          ended_at: DateTime.t() | nil
        }

  @doc "What a node with this state knows of patches."
  @spec patches(Applied.state(), wanted()) :: [patch()]
  def patches(_state, :none), do: []

  def patches(state, wanted) do
    kept = Map.new(Store.Archives.list(&wanted?(&1, wanted)), &{&1.id, &1})
    abouts = for %{about: %{id: id} = about} <- state.stack, into: %{}, do: {id, about}
    back = for %{kind: :rollback, patch: id} <- latest(state.ops), into: %{}, do: {id, true}
    ids = Enum.flat_map([kept, abouts, back, state.retired], &Map.keys/1)

    for id <- Enum.uniq(ids), wanted?(id, wanted) do
      %{
        id: id,
        kept: kept[id],
        about: abouts[id],
        rolled_back?: is_map_key(back, id),
        ended_at: get_in(state.retired, [id, :at])
      }
    end
  end

  defp wanted?(_id, :all), do: true
  defp wanted?(id, {:begins, text}), do: String.starts_with?(id, text)

  # Of each patch.
  defp latest(ops), do: ops |> Enum.sort_by(& &1.seq, :desc) |> Enum.uniq_by(& &1.patch)

  @doc """
  What this node knows of the operations on its release: those it has seen to their end, and
  those it only knows to be decided, because it was to tell others of that.
  """
  @spec history() :: history()
  def history do
    state = Applied.state()

    state
    |> Map.take([:release, :ops, :retired])
    |> Map.merge(%{
      lineage: [state.release | below(state.stack)],
      upgrades: upgrades(state),
      decided: decided(state),
      stack: Enum.map(state.stack, & &1.id),
      rolled: Store.Rolled.list(),
      abouts: for(%{about: about} when about != nil <- state.stack, do: about)
    })
  end

  # The releases from which upgrades have led here: what was done there counts for those that are there still.
  defp below([%{upgrade: %{course: %{from: {name, version}}}, replaced: replaced} | _above]),
    do: [%Release{name: name, version: version} | below(replaced)]

  defp below(_no_upgrade), do: []

  # Who runs such a release without the upgrade has nothing to do with what was done before it.
  defp upgrades(state) do
    for %{upgrade: %{course: %{to: {name, version}}}} = record <- Applied.all(state.stack),
        %{seq: seq} <- Enum.filter(state.ops, &(&1.id == record.op)),
        do: {record.id, %Release{name: name, version: version}, seq}
  end

  @doc "Tells by which nodes there is anything to ask `history/0` for."
  @spec fingerprint() :: {Release.t(), integer()}
  def fingerprint do
    state = Applied.state()
    ids = for one <- known(state) ++ Store.Rolled.list(), do: one.id
    {state.release, ids |> Enum.sort() |> :erlang.phash2()}
  end

  @doc "Whether an operation was decided, as far as this node's disk knows."
  @spec decided?(String.t()) :: boolean()
  def decided?(id) do
    state = Applied.state()
    Enum.any?(known(state), &(&1.id == id))
  end

  @doc "Highest number of an operation known here, carried out or only decided."
  @spec seq() :: non_neg_integer()
  # rule: numbers-count
  def seq do
    state = Applied.state()
    for(op <- known(state), do: op.seq) |> Enum.max(fn -> 0 end)
  end

  defp known(state), do: state.ops ++ decided(state)

  defp decided(state) do
    known = MapSet.new(state.ops, & &1.id)
    for op <- Store.Decisions.list(state.release), op.id not in known, do: op
  end

  @doc """
  What came to this node with a patch, to be applied as it was here. That an operator has had processes
  killed for it is no leave to kill others elsewhere, later.
  """
  @spec payload(String.t()) :: {:ok, Payload.t()} | :unknown
  def payload(id) do
    with %{payload: digest, strategy: strategy} when digest != nil <- Applied.find(id),
         {:ok, bytes} <- Store.Blobs.fetch(Store.blobs(), digest) do
      {:ok, Map.merge(%{:erlang.binary_to_term(bytes) | purge: :soft}, strategy)}
    else
      _ -> :unknown
    end
  end

  @doc """
  What a patch has replaced here: paths with their former bytes, nil for what it has added; and how it
  is to go back.
  """
  @spec former(String.t()) :: {:ok, [{Path.t(), binary() | nil}], way()} | :unknown
  def former(id) do
    with %{files: files} = record <- Applied.find(id),
         # From an upgrade no zip of files leads back.
         files = if(record.upgrade, do: [], else: files),
         files = for(file <- files, do: {file.path, former_bytes(file)}),
         false <- Enum.any?(files, &match?({_path, :gone}, &1)) do
      {:ok, files, Map.put(Strategy.back(record), :again, was_applied?(files))}
    else
      _ -> :unknown
    end
  end

  # A zip of the former files may be what an earlier patch has brought, whose place this one has taken.
  defp was_applied?(files) do
    entries =
      for {path, bytes} when bytes != nil <- files,
          do: %{path: path, beam: nil, sha256: :crypto.hash(:sha256, bytes)}

    Precedence.older?(%{patch: nil, entries: entries}, Applied.state())
  end

  # Where memory had other code than the disk: the code that ran.
  defp former_bytes(%{ran: {:lost, _md5}}), do: :gone

  defp former_bytes(%{ran: digest} = file) when digest != nil,
    do: former_bytes(%{file | old: digest, ran: nil})

  defp former_bytes(%{old: nil}), do: nil

  defp former_bytes(%{old: digest}) do
    case Store.Blobs.fetch(Store.blobs(), digest) do
      {:ok, bytes} -> bytes
      _unknown_or_damaged -> :gone
    end
  end
end
