defmodule HotPatch.Swap.Discovery.KeptFrames do
  @moduledoc false
  # Processes that a swap reaches, and that keep a frame of the code before for as long as they live: a
  # function of a changed module has entered the loop inside a `try`, say, and is waited for by it (as
  # RabbitMQ's rabbit_reader does). The loop goes on in the new code, the frame below stays in the old:
  # while it does, that code cannot be purged, and so the patch cannot be taken back.
  #
  # It is seen while a process waits for a message: in the loop of a behaviour it is what lies below that
  # loop; in one of its own what lies below the innermost function of the module, which is the loop, may it wait
  # by itself or by another module's function. The stack does not tell whether such a function will return.
  #
  # And processes that run a loop of a changed module by themselves, which nobody reaches.

  alias HotPatch.Plan.Risk
  alias HotPatch.Support.Table
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Target

  @behaviours [:gen_server, :gen_statem, :gen_event]

  @typedoc "Processes, by the frames that they keep."
  @type kept :: %{[mfa()] => [pid()]}

  @doc "What a plan says of them: that the patch cannot be taken back while they live."
  @spec risks([Change.t()], [Target.t()]) :: [Risk.t()]
  def risks(changes, targets) do
    targets
    |> Enum.map(& &1.pid)
    |> Lookers.look(&[of(changes, &1)])
    |> Enum.reduce(%{}, &merge/2)
    |> told()
  end

  @doc "Those of two parts together."
  @spec merge(kept(), kept()) :: kept()
  def merge(kept, other), do: Map.merge(kept, other, fn _frames, pids, more -> pids ++ more end)

  @doc "Those among some processes, which the swap reaches."
  @spec of([Change.t()], [pid()]) :: kept()
  def of(changes, pids) do
    replaced = MapSet.new(for %{kind: :replace, module: module} <- changes, do: module)
    pids |> kept_of_each(replaced) |> Enum.group_by(&elem(&1, 1), &elem(&1, 0))
  end

  @doc "What is said of them."
  @spec told(kept()) :: [Risk.t()]
  def told(kept) do
    for {[{module, _, _} | _] = frames, pids} <- kept do
      where = Enum.map_join(frames, " < ", fn {m, f, a} -> Exception.format_mfa(m, f, a) end)

      Risk.of(
        "#{Table.count(length(pids), "process", "processes")} entered the loop inside #{where} and will keep " <>
          "that frame of the code before until it returns, most likely for as long as they live: while they do " <>
          "this change cannot be taken back, nor #{inspect(module)} be changed again, without purge: :force, " <>
          "which kills them",
        module,
        pids
      )
    end
  end

  defp kept_of_each(pids, replaced) do
    for pid <- pids,
        stack <- waiting(pid),
        frames = kept(stack, replaced),
        frames != [],
        do: {pid, frames}
  end

  defp waiting(pid) do
    case Process.info(pid, [:status, :current_stacktrace]) do
      [status: :waiting, current_stacktrace: stack] -> [stack]
      _busy_or_dead -> []
    end
  end

  # Deeper than the behaviour's loop, or than the loop of its own.
  defp kept(stack, replaced) do
    for {module, function, arity, _location} <- below_loop(stack, replaced),
        MapSet.member?(replaced, module),
        do: {module, function, arity}
  end

  defp below_loop(stack, replaced) do
    cond do
      # In the middle of its work: what is on the stack is that.
      match?([{:gen, :do_call, _, _} | _], stack) and not Enum.any?(stack, &loop?/1) ->
        []

      Enum.any?(stack, &loop?/1) ->
        stack |> Enum.reverse() |> Enum.take_while(&(not loop?(&1))) |> Enum.reverse()

      true ->
        stack |> Enum.drop_while(&(elem(&1, 0) not in replaced)) |> Enum.drop(1)
    end
  end

  # Not the functions by which others are called.
  defp loop?({module, function, _arity, _location}) do
    module in @behaviours and function not in [:call, :receive_response, :wait_response, :stop]
  end
end
