defmodule HotPatch.Swap.Rolling.Undo do
  @moduledoc false
  # When a transition was declared compatible and is not: some processes have the new state,
  # some the old, and some died of the difference. It must not stay like that.
  #
  # Back first: all stand still, every process that was changed gets its old state again (the
  # one it had, if it has not changed since, or by code_change({down, Vsn}, ...)), and the
  # old code becomes current. Where one cannot go back, forward: all that were not changed
  # yet stand still and are converted, as they were able to before the load.

  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.Load
  alias HotPatch.Swap.OldCode.Users
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Rolling
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SuspendAll

  @doc "Ends a swap whose declaration was untrue; `changed` are the processes with the new state."
  @spec run(
          pid(),
          Ready.t(),
          pid(),
          Discovery.found(),
          {String.t(), MapSet.t(pid()), Rolling.watch()}
        ) ::
          {:error, HotPatch.Swap.failure()}
  def run(caller, ready, guard, found, {text, changed, watch}) do
    # That of the swap before is settled.
    _ = Signal.settle(ready.signal, :take)
    text = "the transition was declared compatible and is not: #{text}"
    ended = with {:error, why} <- back(caller, ready, guard, found, changed), do: {:forward, why}

    case ended do
      {:ok, done} ->
        :ok = Rolling.forget(found.targets, watch)

        failure(
          false,
          done.pause_us,
          "#{text}; the old code is current again and all have their old states"
        )

      {:forward, why} ->
        {how, pause_us} = forward(caller, ready, guard, found, changed)
        :ok = Rolling.forget(found.targets, watch)
        failure(true, pause_us, "#{text}; it could not be taken back (#{why}), #{how}")
    end
  end

  defp failure(loaded?, pause_us, text) do
    reason = if loaded?, do: :half, else: :taken_back
    {:error, %{reason: reason, text: text, pause_us: pause_us, loaded?: loaded?, phases: []}}
  end

  defp back(_caller, %{back: {:none, why}}, _guard, _found, _changed), do: {:error, why}

  defp back(caller, %{back: {changes, prepared}} = ready, guard, found, changed) do
    targets =
      for target <- found.targets do
        Map.put(target, :keeps?, not MapSet.member?(changed, target.pid))
      end

    job = %{
      ready.job
      | changes: changes,
        prepared: prepared,
        added: nil,
        on_load: [],
        hold_timeout: nil,
        purge: :soft,
        after_load: nil
    }

    # The new code has made the old one old, and room is for two.
    with :ok <- room(changes),
         :ok <- Guard.turn(guard, ending(fn -> Load.done?(changes) end)),
         {:error, %{text: why}} <-
           SuspendAll.run(
             caller,
             %{
               ready
               | job: job,
                 signal: Signal.new(),
                 shadows: [],
                 found: %{found | targets: targets}
             },
             guard
           ) do
      {:error, why}
    end
  end

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

  defp forward(caller, ready, guard, found, changed) do
    :ok = Guard.turn(guard, ending(fn -> true end))
    left = Enum.reject(found.targets, &MapSet.member?(changed, &1.pid))

    job = %{
      ready.job
      | prepared: nil,
        added: nil,
        on_load: [],
        hold_timeout: nil,
        after_load: nil
    }

    case SuspendAll.run(
           caller,
           %{ready | job: job, signal: Signal.new(), found: %{found | targets: left}},
           guard
         ) do
      {:ok, done} ->
        {"all are changed now and the new code is current", done.pause_us}

      {:error, failed} ->
        {"and not all could be changed: #{failed.text}; the new code is current", failed.pause_us}
    end
  end
end
