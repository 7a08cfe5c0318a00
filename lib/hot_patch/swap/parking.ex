defmodule HotPatch.Swap.Parking do
  @moduledoc false
  # How a process stands still for a swap: it runs one function over its state, by way of
  # `replace_state` (sys.erl, do_replace_state/3), and that function returns when the swap is
  # over. Until then the process handles no message but those of the swap: it converts its state,
  # and in the end it either takes the new one or goes on as before.
  #
  # Against suspending a process and replacing its state by system messages, this takes half the
  # messages, the converted state is a variable, and whoever was suspended by somebody else
  # before stays so.
  #
  # No message of a swap ever reaches the code of the process, whatever dies or comes late:
  #
  #   * All that is sent has the form of a system message, `{system, From, Request}`. One that is
  #     left over is handled by the loop of the behaviour, which answers that it does not know
  #     the request, and callbacks never see it.
  #   * How the swap ends is told by its signal (HotPatch.Swap.Signal), not by a message. A process
  #     that comes to the request too late does not stand still at all. A message only wakes a
  #     process up to look at the signal.
  #   * A process that converts its state runs the user's code, which may receive whatever is in
  #     the mailbox. Nobody is to wake it up then: it looks at the signal when it has finished.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Discovery.Idleness
  alias HotPatch.Swap.Employment
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.StateForm
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Tally

  # Milliseconds. A process is woken up when the swap is over; this is for the case that all who
  # could do so are dead. Many look less often: a hundred thousand that wake up each second would take, on a machine that
  # has little time for them, all the time that it has, and so make their own pause longer.
  @look_every 1_000
  @looks_in_a_ms 10

  @typedoc """
  `ref` is the alias of the engine under which answers come (see SysMessage), `seat` that of a process
  that stands still, `employer` what it has found of whom it works for; `look_every` is how often it looks by itself.
  """
  @type t :: %__MODULE__{
          ref: reference(),
          signal: Signal.t(),
          engine: pid(),
          guard: pid(),
          look_every: pos_integer(),
          seat: Tally.seat() | nil,
          employer: Employment.found() | nil
        }
  @enforce_keys [:ref, :signal, :engine, :guard, :look_every]
  defstruct [:ref, :signal, :engine, :guard, :look_every, :seat, :employer]

  @doc "For the calling engine and its guard, and about so many processes; nobody stands still yet."
  @spec new(pid(), Signal.t(), non_neg_integer()) :: t()
  def new(guard, signal, count) do
    %__MODULE__{
      ref: SysMessage.open(),
      signal: signal,
      engine: self(),
      guard: guard,
      look_every: max(@look_every, div(count, @looks_in_a_ms))
    }
  end

  @typedoc """
  What processes that are alike are asked: to convert their state at once where a conversion is given, and
  to look first for whom they work where it has to be looked. It is the same for all of them, and so it can be
  a shared term (HotPatch.Swap.SharedTerm).
  """
  @opaque request :: %{
            standing: t(),
            conversion: Conversion.t() | nil,
            seats: Tally.seats(),
            asked: {go_on :: fun(), look :: fun()} | nil
          }

  @doc "The request of those that take these seats."
  @spec request(t(), Conversion.t() | nil, Employment.looks() | nil, Tally.seats()) :: request()
  def request(standing, conversion, looks, seats) do
    request = %{standing: standing, conversion: conversion, seats: seats, asked: nil}
    if looks, do: %{request | asked: {go_on(request), look(looks)}}, else: request
  end

  defp go_on(request), do: fn state, employer, place -> still(state, request, place, employer) end
  defp look(looks), do: fn now, before, state -> Employment.look(looks, now, before, state) end

  @doc """
  Asks a process to stand still, as the request says. It takes the seat of its place when it has done all that.
  """
  @spec ask(request(), pid(), Tally.place(), Employment.before()) :: :ok
  def ask(%{asked: nil} = request, pid, place, _before),
    do: SysMessage.run_in(pid, fn state -> still(state, request, place, nil) end)

  def ask(%{asked: {go_on, look}}, pid, place, before),
    do: SysMessage.run_in(pid, Idleness.asked(go_on, look, place, before))

  @doc """
  Has a process that stands still convert its state. It takes its seat when it has; what it has to
  tell it tells as the conversion says.
  """
  @spec convert(t(), pid(), Conversion.t(), Tally.seat()) :: :ok
  def convert(standing, pid, conversion, seat),
    do: SysMessage.unanswered(pid, order(standing, {:convert, conversion, seat}))

  @doc "The same; it tells its end as the conversion says."
  @spec convert_answered(t(), pid(), Conversion.t()) :: :ok
  def convert_answered(standing, pid, conversion),
    do: SysMessage.unanswered(pid, order(standing, {:convert, conversion, nil}))

  @doc "Has a process that stands still tell of what form its states are, before the change and after it."
  @spec ask_forms(t(), pid(), {Conversion.kind(), reference()}) :: :ok
  def ask_forms(standing, pid, of), do: SysMessage.unanswered(pid, order(standing, {:forms, of}))

  @doc "Has one process go on for a moment, with the state that it had, while the others stand still."
  @spec release(t(), pid()) :: :ok
  def release(standing, pid), do: SysMessage.unanswered(pid, order(standing, :release))

  @doc "Ends it for all. Those that stand still see it when they are woken up."
  @spec settle(t(), Signal.outcome()) :: Signal.outcome()
  def settle(standing, outcome), do: Signal.settle(standing.signal, outcome)

  @doc "What has a process look at the signal; the same for all."
  @spec wake_message(t()) :: SysMessage.t()
  def wake_message(standing), do: SysMessage.to_nobody(order(standing, :look))

  @doc "Has a process look at the signal. It must not be converting its state."
  @spec wake(SysMessage.t(), pid()) :: :ok
  def wake(message, pid) do
    _ = Kernel.send(pid, message)
    :ok
  end

  @doc "The same; it answers under a ref when it has looked."
  @spec wake_answered(t(), pid(), reference()) :: :ok
  def wake_answered(standing, pid, ref), do: SysMessage.send(pid, ref, order(standing, :look))

  @doc """
  Whether a process stands still in this way and waits. Once the signal is settled, a process of
  which this is true may be woken up: it converts nothing any more.
  """
  @spec standing?(pid()) :: boolean()
  def standing?(pid),
    do: Process.info(pid, :current_function) == {:current_function, {__MODULE__, :wait, 4}}

  defp order(%{ref: ref}, order), do: {:hot_patch, ref, order}

  # A process that was busy may get here when the swap is over. Whether the engine lives is not asked
  # here: the VM lets the process wait for the answer.
  defp still(state, %{standing: standing, conversion: conversion, seats: seats}, place, employer) do
    if Signal.open?(standing.signal) do
      base = %{standing | seat: Tally.seat(seats, place), employer: employer}
      {new, conversion} = at_once(state, known(conversion, employer), base.seat)
      Tally.arrive(base.seat)
      look(state, new, conversion, base)
    else
      state
    end
  end

  defp known(nil, _employer), do: nil
  defp known(conversion, nil), do: conversion
  defp known(conversion, found), do: %{conversion | works_for: found}

  # Where it cannot be done yet, it is asked for when all stand still.
  defp at_once(state, nil, _seat), do: {state, nil}

  defp at_once(state, conversion, seat) do
    case Conversion.at_once(state, conversion, seat) do
      {:ok, new} -> {new, conversion}
      :later -> {state, nil}
    end
  end

  defp look(state, new, conversion, base) do
    case Signal.read(base.signal) do
      :open -> wait(state, new, conversion, base)
      outcome -> go_on(outcome, state, new, base)
    end
  end

  defp go_on(outcome, state, new, base) do
    Tally.leave(base.seat)
    if outcome == :take, do: taken(state, new), else: dropped(state)
  end

  # With the state goes what else was put aside.
  defp taken(state, new) do
    :ok = FunRenewal.take_dictionary()
    Conversion.final(state, new)
  end

  defp dropped(state) do
    :ok = FunRenewal.drop_dictionary()
    state
  end

  @doc false
  @spec wait(state, state, Conversion.t() | nil, map()) :: state when state: term()
  def wait(state, new, conversion, %{ref: ref} = base) do
    receive do
      {:system, from, {:hot_patch, ^ref, order}} ->
        SysMessage.reply(from, :ok)
        follow(order, {state, new, conversion}, base)
    after
      base.look_every ->
        if Process.alive?(base.engine) or Process.alive?(base.guard),
          do: look(state, new, conversion, base),
          else: abandoned(state, new, conversion, base)
    end
  end

  defp follow(:look, {state, new, conversion}, base), do: look(state, new, conversion, base)

  defp follow({:forms, {kind, ref}}, {state, new, conversion}, base) do
    SysMessage.tell(ref, ref, {StateForm.of(state, kind), StateForm.of(new, kind)})
    look(state, new, conversion, base)
  end

  defp follow(:release, {state, new, conversion}, base) do
    # Not in the moment in which the swap ends with the new states.
    if Signal.read(base.signal) == :take,
      do: look(state, new, conversion, base),
      else: dropped(state)
  end

  defp follow({:convert, conversion, seat}, {state, new, former}, base) do
    conversion = known(conversion, base.employer)

    if Signal.open?(base.signal) do
      look(state, converted(state, conversion, seat), conversion, base)
    else
      look(state, new, former, base)
    end
  end

  defp converted(state, conversion, nil), do: Conversion.converted(state, conversion)

  defp converted(state, conversion, seat) do
    new = Conversion.converted(state, conversion, seat)
    Tally.arrive(seat)
    new
  end

  # Engine and guard are dead, and nobody will settle the signal. The version that is current
  # decides, for this process alone.
  defp abandoned(state, new, conversion, base) do
    case Signal.read(base.signal) do
      :open when conversion == nil -> dropped(state)
      :open -> if Conversion.current?(conversion), do: taken(state, new), else: dropped(state)
      _settled -> look(state, new, conversion, base)
    end
  end
end
