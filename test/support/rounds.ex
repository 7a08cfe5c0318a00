defmodule HotPatch.Test.Rounds do
  @moduledoc false
  # What a call costs: the questions that go to the agents, the requests that go to the native reader,
  # and how often the state is read from disk on the node of the call. Counted by tracing the processes
  # of the call, so that nothing else of the node is counted.

  alias HotPatch.Test.Cluster

  @typedoc "The questions in their order, one for each round; the names of requests; reads."
  @type t :: %{asked: [atom()], requests: [String.t()], reads: non_neg_integer()}

  @patterns [
    {HotPatch.Cluster, :raw_call, 4},
    {HotPatch.Bridge, :request, 4},
    {HotPatch.Store, :read_term, 1}
  ]

  @doc "Calls a function on a node, and says what that has cost."
  @spec of(node(), module(), atom(), [term()]) :: {term(), t()}
  def of(node, module, function, args),
    do: Cluster.call(node, __MODULE__, :here, [module, function, args])

  @doc false
  @spec here(module(), atom(), [term()]) :: {term(), t()}
  def here(module, function, args) do
    {:module, _} = Code.ensure_loaded(HotPatch.Store)
    {:module, _} = Code.ensure_loaded(HotPatch.Cluster)
    {:module, _} = Code.ensure_loaded(HotPatch.Bridge)
    tracer = spawn_link(fn -> collect([]) end)

    # The server carries a commit out for the call.
    traced = [self(), Process.whereis(HotPatch.NodeAgent.Server)]
    for pattern <- @patterns, do: 1 = :erlang.trace_pattern(pattern, true, [:local])
    for pid <- traced, do: 1 = :erlang.trace(pid, true, [:call, :set_on_spawn, {:tracer, tracer}])
    result = apply(module, function, args)
    {result, counted(tracer)}
  after
    :erlang.trace(:all, false, [:call, :set_on_spawn])
    for pattern <- @patterns, do: :erlang.trace_pattern(pattern, false, [:local])
  end

  defp counted(tracer) do
    delivered = :erlang.trace_delivered(:all)

    receive do
      {:trace_delivered, :all, ^delivered} -> send(tracer, {:calls, self()})
    end

    calls = receive(do: ({:calls, calls} -> calls))

    %{
      asked: for({HotPatch.Cluster, _, [[_ | _], question | _]} <- calls, do: question),
      requests: for({HotPatch.Bridge, _, [name | _]} <- calls, do: name),
      reads: Enum.count(calls, &state?/1)
    }
  end

  defp state?({HotPatch.Store, _, [path]}), do: Path.basename(path) == "applied.record"
  defp state?(_call), do: false

  defp collect(calls) do
    receive do
      {:trace, _pid, :call, mfa} -> collect([mfa | calls])
      {:calls, to} -> send(to, {:calls, Enum.reverse(calls)})
    end
  end
end
