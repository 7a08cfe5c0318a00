defmodule HotPatch.Swap.SysMessage do
  @moduledoc false
  # System messages made by hand, so that thousands can be under way at once: OTP's functions in
  # :sys wait for each answer. gen_server, gen_statem, gen_event, supervisor and special processes
  # answer them alike on OTP 25 to 29 (sys.erl, handle_system_msg/6).
  #
  # Nothing else is ever sent to a process of the system. The code of a callback module does not
  # see system messages, not even one with a request that nobody knows: the behaviour's loop
  # answers that.
  #
  # Answers arrive as `{tag, answer}` with the tag that was sent; the tag here is
  # `[[:alias | ref] | pid]`, so that one receive takes them all in the order of their arrival.
  # `ref` is an alias of the process that asks (gen.erl, reply/2, sends to it): once that process
  # has closed it, or is dead, late answers go nowhere, whoever may have its pid by then.

  # Milliseconds without an answer after which the dead are looked for.
  @look_for_dead 20

  @type from :: {pid(), term()}
  @type t :: {:system, from(), term()}

  @doc "A ref under which the calling process gets answers. One that lives on has to close it."
  @spec open() :: reference()
  def open, do: :erlang.alias([:explicit_unalias])

  @doc "Ends a ref: no answer comes under it any more, and none is left in the mailbox."
  @spec close(reference()) :: :ok
  def close(ref) do
    _ = :erlang.unalias(ref)
    _ = answered(ref)
    :ok
  end

  @doc "The processes whose answers under a ref are there by now; the answers are forgotten."
  @spec answered(reference()) :: [pid()]
  def answered(ref, pids \\ []) do
    receive do
      {[[:alias | ^ref] | pid], _answer} -> answered(ref, [pid | pids])
    after
      0 -> pids
    end
  end

  @doc "Sends one system message; the answer comes under the ref."
  @spec send(pid(), reference(), term()) :: :ok
  def send(pid, ref, message) do
    _ = Kernel.send(pid, {:system, {self(), tag(ref, pid)}, message})
    :ok
  end

  @doc "Sends one system message whose answer nobody gets."
  @spec unanswered(pid(), term()) :: :ok
  def unanswered(pid, message) do
    _ = Kernel.send(pid, to_nobody(message))
    :ok
  end

  @doc "What is sent in order to be answered under a ref, where the answer is not sys' own."
  @spec tag(reference(), pid()) :: nonempty_improper_list(term(), pid())
  def tag(ref, pid), do: [[:alias | ref] | pid]

  @doc "The calling process's own answer under somebody's ref; `to` is that process or the ref."
  @spec tell(pid() | reference(), reference(), term()) :: :ok
  def tell(to, ref, answer) do
    _ = Kernel.send(to, {tag(ref, self()), answer})
    :ok
  end

  @doc "Answers a system message in the place of sys."
  @spec reply(from(), term()) :: :ok
  def reply({_pid, [[:alias | ref] | _] = tag}, answer) do
    _ = Kernel.send(ref, {tag, answer})
    :ok
  end

  def reply(_nobody, _answer), do: :ok

  @doc "Has a process answer when it has handled what was sent before, and do nothing else."
  @spec probe(pid(), reference()) :: :ok
  # Any request that sys does not know is answered as such.
  def probe(pid, ref), do: __MODULE__.send(pid, ref, :hot_patch)

  @doc "Suspends without an answer."
  @spec suspend_unanswered(pid()) :: :ok
  def suspend_unanswered(pid), do: unanswered(pid, :suspend)

  @doc "Resumes without an answer."
  @spec resume_unanswered(pid()) :: :ok
  def resume_unanswered(pid), do: unanswered(pid, :resume)

  @doc "Whether a process is suspended by a system message."
  @spec suspended?(pid()) :: boolean()
  def suspended?(pid) do
    case Process.info(pid, :current_function) do
      {:current_function, {:sys, _suspend_loop, _arity}} -> true
      {:current_function, {:erlang, :hibernate, 3}} -> true
      _ -> false
    end
  end

  @doc """
  Has a process run a fun over its state. The answer would carry a copy of the whole state,
  so it is addressed to nobody; a fun that has something to say tells it by itself. Messages of
  one sender keep their order: what follows sees the effect.
  """
  @spec run_in(pid(), (term() -> term())) :: :ok
  def run_in(pid, fun), do: unanswered(pid, {:replace_state, fun})

  @typedoc "The ref under which answers come, and who owes one."
  @type owed :: {reference(), [pid()]}

  @doc """
  Collects one answer of each process, in the order of their arrival, until a time without
  any: then those who owe one still and live are given, for the caller to judge. `fun` may
  take an answer without counting it (`:more`), or end the collecting (`:halt`).

  Nothing is looked up for an answer: only when some are missing is it worked out whose.
  """
  @spec collect(
          owed(),
          timeout(),
          acc,
          (pid(), term(), acc -> {:done | :more | :halt, acc})
        ) ::
          {:all | :halt, acc} | {{:silent, [pid(), ...]}, acc}
        when acc: term()
  def collect({_ref, pids} = from, tick, acc, fun),
    do: collect_from({from, tick, fun}, length(pids), [], acc)

  defp collect_from(_what, 0, _answered, acc), do: {:all, acc}

  defp collect_from({{ref, pids}, tick, fun} = what, owed, answered, acc) do
    receive do
      {[[:alias | ^ref] | pid], answer} ->
        case fun.(pid, answer, acc) do
          {:done, acc} -> collect_from(what, owed - 1, [pid | answered], acc)
          {:more, acc} -> collect_from(what, owed, answered, acc)
          {:halt, acc} -> {:halt, acc}
        end
    after
      tick ->
        answered = MapSet.new(answered)

        # A monitor for each process would cost more than all else here: the dead are looked
        # for now.
        case for pid <- pids, not MapSet.member?(answered, pid), Process.alive?(pid), do: pid do
          [] -> {:all, acc}
          silent -> {{:silent, silent}, acc}
        end
    end
  end

  @doc "The same until a deadline, in monotonic milliseconds; gives those who did not answer."
  @spec collect_until(
          owed(),
          integer(),
          acc,
          (pid(), term(), acc -> {:done | :more | :halt, acc})
        ) ::
          {[pid()], acc}
        when acc: term()
  def collect_until({ref, _pids} = from, deadline, acc, fun) do
    left = deadline - System.monotonic_time(:millisecond)

    case collect(from, left |> min(@look_for_dead) |> max(0), acc, fun) do
      {{:silent, silent}, acc} when left > 0 -> collect_until({ref, silent}, deadline, acc, fun)
      {{:silent, silent}, acc} -> {silent, acc}
      {_all_or_halt, acc} -> {[], acc}
    end
  end

  @doc "A system message whose answer nobody gets."
  @spec to_nobody(term()) :: t()
  def to_nobody(message), do: {:system, nobody(), message}

  # An alias of a process that is dead. What is sent to it is dropped without being copied, and
  # no process that is started later can have it.
  defp nobody do
    case :persistent_term.get(__MODULE__, nil) do
      nil ->
        caller = self()
        {pid, monitor} = spawn_monitor(fn -> Kernel.send(caller, {self(), open()}) end)
        alias = receive(do: ({^pid, alias} -> alias))
        receive(do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok))
        nobody = {pid, [:alias | alias]}
        :persistent_term.put(__MODULE__, nobody)
        nobody

      nobody ->
        nobody
    end
  end
end
