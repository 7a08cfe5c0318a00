defmodule HotPatch.Cluster.ClockSkew do
  @moduledoc false
  # How far the clocks of nodes are apart, as far as one exchange of messages tells: a node's
  # clock is taken to have been read half way between question and answer. So the skew of
  # a commit can be told across machines; on a network it is as exact as half a round trip.

  alias HotPatch.Report

  @typedoc "By how many microseconds the clock of a node is ahead of this one's."
  @type t :: %{node() => integer()}

  @doc """
  Runs an exchange in which nodes answer with a value and their clock; the function is to call
  what it is given with each answer at once. Gives the answers with the clocks' lead in place.
  """
  @spec compare(((node(), term() -> term()) -> answers)) :: answers
        when answers: [{node(), term()}]
  def compare(exchange) do
    asked = System.system_time(:microsecond)
    here = self()
    tag = make_ref()

    answers =
      exchange.(fn node, _answer ->
        send(here, {tag, node, System.system_time(:microsecond)})
      end)

    answered = collect(tag, %{})
    for {node, answer} <- answers, do: {node, lead(answer, asked, answered[node])}
  end

  defp collect(tag, times) do
    receive do
      {^tag, node, time} -> collect(tag, Map.put(times, node, time))
    after
      0 -> times
    end
  end

  defp lead({:ok, {:ok, {value, clock}}}, asked, answered),
    do: {:ok, {:ok, {value, clock - div(asked + answered, 2)}}}

  defp lead(refused, _asked, _answered), do: refused

  @doc "Microseconds from the first node's load to the last one's; nil if fewer than two loaded."
  @spec skew([Report.NodeResult.t()], t()) :: non_neg_integer() | nil
  def skew(nodes, clocks) do
    case for %{node: node, loaded_at_us: at} when at != nil <- nodes,
             do: at - Map.get(clocks, node, 0) do
      [_, _ | _] = times -> Enum.max(times) - Enum.min(times)
      _ -> nil
    end
  end
end
