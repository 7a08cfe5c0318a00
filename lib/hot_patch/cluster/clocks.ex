defmodule HotPatch.Cluster.Clocks do
  @moduledoc false
  # How far the clocks of nodes are apart, as far as one exchange of messages tells: a node's
  # clock is taken to have been read half way between question and answer. So the skew of
  # a commit can be told across machines; on a network it is as exact as half a round trip.

  alias HotPatch.Report

  @typedoc "By how many microseconds the clock of a node is ahead of this one's."
  @type t :: %{node() => integer()}

  @doc """
  Runs an exchange in which every node answers with its clock; the function is to call what it
  is given with each answer at once.
  """
  @spec compare(((node(), term() -> term()) -> answers)) :: {answers, t()} when answers: term()
  def compare(exchange) do
    asked = System.system_time(:microsecond)
    here = self()
    tag = make_ref()

    answers =
      exchange.(fn node, answer ->
        send(here, {tag, node, answer, System.system_time(:microsecond)})
      end)

    {answers, collect(tag, asked, %{})}
  end

  defp collect(tag, asked, clocks) do
    receive do
      {^tag, node, {:ok, {:ok, {_seq, clock}}}, answered} ->
        collect(tag, asked, Map.put(clocks, node, clock - div(asked + answered, 2)))

      {^tag, _node, _refused, _answered} ->
        collect(tag, asked, clocks)
    after
      0 -> clocks
    end
  end

  @doc "Microseconds from the first node's load to the last one's; nil if fewer than two loaded."
  @spec skew([Report.Node.t()], t()) :: non_neg_integer() | nil
  def skew(nodes, clocks) do
    case for %{node: node, loaded_at_us: at} when at != nil <- nodes,
             do: at - Map.get(clocks, node, 0) do
      [_, _ | _] = times -> Enum.max(times) - Enum.min(times)
      _ -> nil
    end
  end
end
