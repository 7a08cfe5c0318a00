defmodule HotPatch.Swap.Rolling.Undo do
  @moduledoc false
  # When a transition was declared compatible and is not: some processes have the new state,
  # some the old, and some died of the difference. It must not stay like that.
  #
  # Back first: all stand still, every process that was changed gets its old state again (the
  # one it had, if it has not changed since, or by code_change({down, Vsn}, ...)), and the
  # old code becomes current. Where one cannot go back, forward: all that were not changed
  # yet stand still and are converted, as they were able to before the load.

  alias HotPatch.Swap.Failure
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.InTurn
  alias HotPatch.Swap.Load
  alias HotPatch.Swap.OldCode.Users
  alias HotPatch.Swap.PreviousCode
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Rolling
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SuspendAll

  @typedoc "Who runs the swap, what it is about, and who watches it."
  @type swap :: %{caller: pid(), ready: Ready.t(), guard: pid()}

  @doc "Ends a swap whose declaration was untrue; `changed` are the processes with the new state."
  @spec run(swap(), InTurn.t(), {String.t(), MapSet.t(pid()), Rolling.watch()}) ::
          {:error, Failure.t()}
  def run(%{ready: ready} = swap, in_turn, {text, changed, watch}) do
    found = InTurn.found(in_turn)
    # That of the swap before is settled.
    _ = Signal.settle(ready.signal, :take)
    text = "the transition was declared compatible and is not: #{text}"
    ended = with {:error, why} <- back(swap, found, changed), do: {:forward, why}

    case ended do
      {:ok, done} ->
        :ok = Rolling.forget(InTurn.groups(in_turn), watch)
        text = "#{text}; the old code is current again and all have their old states"
        {:error, Failure.new(:taken_back, text, pause_us: done.pause_us)}

      {:forward, why} ->
        {how, pause_us} = forward(swap, found, changed)
        :ok = Rolling.forget(InTurn.groups(in_turn), watch)
        text = "#{text}; it could not be taken back (#{why}), #{how}"
        {:error, Failure.new(:half, text, pause_us: pause_us, loaded?: true)}
    end
  end

  defp back(%{ready: ready} = swap, found, changed) do
    with {:ok, changes, prepared} <- PreviousCode.prepare(ready.back),
         do: back(swap, {changes, prepared}, found, changed)
  end

  defp back(%{ready: ready} = swap, {changes, prepared}, found, changed) do
    targets =
      for target <- found.targets,
          do: %{target | keeps?: not MapSet.member?(changed, target.pid)}

    job = %{alone(ready.job) | changes: changes, prepared: prepared, purge: :soft}
    found = %{found | targets: targets}

    # The new code has made the old one old, and room is for two.
    with :ok <- room(changes),
         :ok <- Guard.turn(swap.guard, ending(fn -> Load.done?(changes) end)),
         {:error, %{text: why}} <- suspend_all(swap, %{ready | job: job, shadows: []}, found),
         do: {:error, why}
  end

  # What came ahead of the rest has come, and nobody is asked for a decision.
  defp alone(job), do: %{job | added: nil, on_load: [], hold_timeout: nil, after_load: nil}

  defp suspend_all(%{caller: caller, guard: guard}, ready, found),
    do: SuspendAll.run(caller, %{ready | signal: Signal.new(), found: found}, guard)

  # What came ahead of the rest is current like the rest.
  defp ending(loaded?), do: %{loaded?: loaded?, take_back: fn -> :ok end}

  # What is purged while they go on would take their funs along: that is done with the load.
  defp room(changes) do
    case Users.of(Enum.map(changes, & &1.module)) do
      [] ->
        :ok

      [{_pid, module, _stack} | _] ->
        {:error, "processes still run the old code of #{inspect(module)}"}
    end
  end

  defp forward(%{ready: ready} = swap, found, changed) do
    :ok = Guard.turn(swap.guard, ending(fn -> true end))
    left = Enum.reject(found.targets, &MapSet.member?(changed, &1.pid))
    ready = %{ready | job: %{alone(ready.job) | prepared: nil}}

    case suspend_all(swap, ready, %{found | targets: left}) do
      {:ok, done} ->
        {"all are changed now and the new code is current", done.pause_us}

      {:error, failed} ->
        {"and not all could be changed: #{failed.text}; the new code is current", failed.pause_us}
    end
  end
end
