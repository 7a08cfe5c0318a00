defmodule HotPatch.Test.NodeTag do
  @moduledoc false
  # Tests that start other nodes are tagged `:starts_nodes`, so that script/test quick can leave them out.
  # Whatever starts a node for a test asks here first, and a test without the tag fails at once, in
  # every run: the tag cannot be forgotten.
  #
  # Which test is running is read off the stack of the calling process and of those that wait for it.

  # More calls than any of these stacks has; the VM keeps eight if not told otherwise.
  @depth 200

  @doc "Raises where the running test is not tagged `:starts_nodes`. Outside of tests nodes may be started."
  @spec check!() :: :ok
  def check! do
    if Process.whereis(ExUnit.Server) != nil, do: check(frame())
    :ok
  end

  defp check(nil) do
    raise "a node is started, and no test is found on the stack of #{inspect(self())} or of those that " <>
            "wait for it: start it in the test's own process, in a Task, or in a setup"
  end

  defp check({module, function}) do
    tests = module.__ex_unit__().tests

    # In a setup it may be any of the module's.
    running =
      case Enum.filter(tests, &(&1.name == function)) do
        [] -> tests
        test -> test
      end

    unless Enum.all?(running, & &1.tags[:starts_nodes]) do
      raise "#{inspect(module)} starts another node and is not tagged: write @moduletag :starts_nodes below its " <>
              "use ExUnit.Case (or @tag :starts_nodes above the test, where others of the module start none), so that " <>
              "script/test quick leaves it out"
    end
  end

  # The test's function if it is there, otherwise any function of its module.
  defp frame do
    frames =
      for pid <- [self() | Process.get(:"$callers", [])],
          {module, function, _arity, _location} <- stack(pid),
          function_exported?(module, :__ex_unit__, 0),
          do: {module, function}

    Enum.find(frames, &test?/1) || List.first(frames)
  end

  defp test?({module, function}),
    do: Enum.any?(module.__ex_unit__().tests, &(&1.name == function))

  # The depth is that of the whole VM: one after the other, so that it is what it was in the end.
  defp stack(pid) do
    :global.trans({__MODULE__, self()}, fn -> whole_stack(pid) end, [node()])
  end

  defp whole_stack(pid) do
    before = :erlang.system_flag(:backtrace_depth, @depth)

    try do
      case Process.info(pid, :current_stacktrace) do
        {:current_stacktrace, frames} -> frames
        nil -> []
      end
    after
      :erlang.system_flag(:backtrace_depth, before)
    end
  end
end
