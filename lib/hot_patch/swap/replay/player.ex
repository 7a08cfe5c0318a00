defmodule HotPatch.Swap.Replay.Player do
  @moduledoc false
  # The process that plays messages: it has a copy of the state of one process, and one that the new code has
  # converted, and runs each message by both. It tells what it has found in forms; states and messages end with it.

  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.Replay.Callback
  alias HotPatch.Swap.Replay.Coming
  alias HotPatch.Swap.Replay.Comparison
  alias HotPatch.Swap.Replay.Event
  alias HotPatch.Swap.Replay.Funs
  alias HotPatch.Swap.Replay.Sandbox
  alias HotPatch.Swap.Signal

  @typedoc """
  What is asked of a process in its turn. `id` tells one question from another where it is seen among what
  the process receives. `key` says who is meant: of an event manager one of its handlers.
  """
  @type order :: %{
          ref: reference(),
          id: reference(),
          key: {pid(), module()},
          kind: Callback.kind(),
          director: pid(),
          signal: Signal.t(),
          most_words: pos_integer()
        }

  @typedoc """
  Whom it plays and how. `plays` is the module whose callbacks are called; one that `renders?` is made to render again by the new
  code before, as a LiveView is after a change. `stage` says what runs: 0 nothing, 1 the old code, 2 the new. `vsn` is nil where states are
  not converted.
  """
  @type about :: %{
          stage: :atomics.atomics_ref(),
          module: module(),
          plays: module(),
          renders?: boolean(),
          kind: Callback.kind(),
          families: %{Sandbox.side() => Sandbox.family()},
          coming: Coming.t(),
          funs: %{Sandbox.side() => Funs.table()},
          vsn: {old_vsn :: term(), extra :: term()} | nil,
          values?: boolean()
        }

  # Words that it may take besides some times the state.
  @room 4_000_000
  @times 8

  @doc "Runs inside the process that is played, in its turn; gives the state as it is."
  @spec turn(state, order()) :: state when state: term()
  def turn(state, order) do
    if Signal.open?(order.signal), do: hand_out(own(state, order), order)
    state
  catch
    # Whatever it is, it is none of the process' business.
    _kind, _reason -> state
  end

  # The state of a handler comes with its module and its id.
  defp own({module, id, state}, %{kind: :event, key: {_pid, module}}), do: {state, id}
  defp own(_of_another, %{kind: :event}), do: :none
  defp own(state, _order), do: {state, nil}

  defp hand_out(:none, _order), do: :ok

  defp hand_out({state, id}, order) do
    at = System.monotonic_time()
    dictionary = Process.get()
    words = :erts_debug.flat_size([state | dictionary])

    told =
      if words > order.most_words,
        do: :too_large,
        else: {:played_by, player({state, id, dictionary}, words, order)}

    us = System.convert_time_unit(System.monotonic_time() - at, :native, :microsecond)
    send(order.director, {order.ref, order.key, {:turn, told, us}})
  end

  defp player({state, id, dictionary}, words, order) do
    real = self()

    :erlang.spawn_opt(fn -> run(state, dictionary, {real, id}, order) end,
      priority: :low,
      max_heap_size: most(@times * words + @room)
    )
  end

  # From OTP 27 on binaries count, too.
  defp most(words) do
    most = %{size: words, kill: true, error_logger: false}

    if :erlang.system_info(:otp_release) >= ~c"27",
      do: Map.put(most, :include_shared_binaries, true),
      else: most
  end

  # Runs until it is told no more, or does not know any more what the state would be.
  defp run(state, dictionary, {real, id}, %{ref: ref} = order) do
    if linked?(order.director) do
      receive do
        {^ref, :about, about} ->
          about = Map.merge(about, %{real: real, id: id, ref: ref, director: order.director})
          begin(state, dictionary, about)
      end
    end
  catch
    # A fault of ours: nobody logs it, with what it was about.
    _kind, _reason -> exit(:replay_failed)
  end

  defp begin(state, dictionary, about) do
    [old, new] = for side <- [:old, :new], do: actor(side, state, dictionary, about)

    with {:ok, new} <- converted(new, about),
         {:ok, new} <- rendered(new, old, about) do
      tell(about, :ready)
      play(old, new, about)
    else
      {:not, why} -> tell(about, {:unconverted, why})
    end
  end

  defp actor(side, state, dictionary, about) do
    family = about.families[side]
    funs = about.funs[side]

    %{
      side: side,
      kind: about.kind,
      module: family[about.plays],
      family: family,
      coming: if(side == :new, do: about.coming, else: %Coming{}),
      real: about.real,
      funs: funs,
      state: Funs.lent(state, funs, {about.real, self()}),
      dictionary: Funs.lent(dictionary, funs, {about.real, self()})
    }
  end

  defp linked?(director) do
    Process.link(director)
  rescue
    ErlangError -> false
  end

  defp converted(new, %{vsn: nil}), do: {:ok, new}

  defp converted(new, %{vsn: {old_vsn, extra}} = about) do
    :atomics.put(about.stage, 1, 2)
    {outcome, new} = Callback.convert(new, old_vsn, extra)
    :atomics.put(about.stage, 1, 0)

    case outcome do
      {:done, _done} -> {:ok, new}
      {:crashed, _crash} -> {:not, :crashed}
      {:left, reason} -> {:not, reason}
    end
  end

  # One that fails to goes on as it was, in a replay as after a change.
  defp rendered(new, _old, %{renders?: false}), do: {:ok, new}

  defp rendered(new, old, about) do
    with {message, state} <- Hosted.rendering_again(new.state) do
      :atomics.put(about.stage, 1, 2)
      {outcome, after_it, _reads} = Callback.run(%{new | state: state}, message, %{})
      :atomics.put(about.stage, 1, 0)

      case outcome do
        {:done, %{next: {:go_on, _wait}}} ->
          {:ok, after_it}

        {:left, reason} ->
          {:not, reason}

        crashed ->
          nothing = {:done, %{sent: [], next: {:go_on, :infinity}}}
          tell(about, {:found, found({nothing, old}, {crashed, new}, message, {old, new, about})})
          {:ok, new}
      end
    else
      :none -> {:ok, new}
    end
  end

  defp found({was, old_after}, {is, new_after}, message, {old, new, about}) do
    about_it = %{message: message, old: old, new: new, values?: about.values?, funs: about.funs}
    Comparison.of({was, old_after.state}, {is, new_after.state}, about_it)
  end

  defp play(old, new, %{ref: ref} = about) do
    receive do
      {^ref, :play, message} ->
        case told(about, message) do
          {:ok, told} ->
            played(old, new, told, about)

          :others ->
            tell(about, {:played, :not_its_own, true})
            play(old, new, about)

          :lost ->
            tell(about, {:played, :not_its_own, false})
        end

      {^ref, :enough} ->
        :ok
    end
  end

  defp told(%{kind: :event} = about, message), do: Event.told(message, about.module, about.id)
  defp told(_server, message), do: {:ok, message}

  defp played(old, new, message, about) do
    :atomics.put(about.stage, 1, 1)
    {was, old_after, reads} = Callback.run(old, lent(message, old), %{})
    :atomics.put(about.stage, 1, 2)
    {is, new_after, _reads} = Callback.run(new, lent(message, new), Sandbox.in_order(reads))
    :atomics.put(about.stage, 1, 0)
    finding = found({was, old_after}, {is, new_after}, message, {old, new, about})
    goes_on? = goes_on?(was) and goes_on?(is)
    tell(about, {:played, finding, goes_on?})
    if goes_on?, do: play(old_after, new_after, about)
  end

  defp lent(message, actor), do: Funs.lent(message, actor.funs, {actor.real, self()})

  # After a timeout it would have done what no message says.
  defp goes_on?({:done, %{next: {:go_on, :infinity}}}), do: true
  defp goes_on?(_other), do: false

  defp tell(about, what), do: send(about.director, {about.ref, self(), {:player, what}})
end
