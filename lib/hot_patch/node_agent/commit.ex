defmodule HotPatch.NodeAgent.Commit do
  @moduledoc false
  # The second half of an apply, on one node, in a process of its own. Memory: everybody
  # concerned stands still and has tried the change when the coordinator, who hears from all
  # nodes, decides. Then disk, and what really runs is read back. The agent gets
  # `{Commit, pid, {:held, decider}}` in between, with the process that waits for the decision, and
  # `{Commit, pid, {:ended, result}}` at the end; `pid` is this process.
  #
  # An agent that is started anew finds the commit of the one before, and what it is about, in a table
  # that belongs to this process and ends with it.

  alias HotPatch.Hook
  alias HotPatch.LiveView
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.CommitRecord
  alias HotPatch.NodeAgent.Environment
  alias HotPatch.NodeAgent.InstructionRunner
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Store
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Swap
  alias HotPatch.Telemetry

  require HotPatch.Support.Log, as: Log

  @type result :: %{
          optional(:strategy) => HotPatch.Strategy.t(),
          optional(:already?) => boolean(),
          optional(:as_told?) => boolean(),
          files: [Report.FileResult.t()],
          pause_us: non_neg_integer(),
          phases: [Report.Phase.t()],
          suspended: non_neg_integer(),
          killed: [pid()],
          stragglers: [HotPatch.Straggler.t()],
          loaded_at_us: integer() | nil,
          restart_needed: String.t() | nil,
          error: String.t() | nil,
          warnings: [String.t()]
        }

  @typedoc "What the coordinator decides when every node has said how far it came."
  @type decision :: :finish | {:take_back, String.t()}

  @table __MODULE__

  # Of a swap in which nobody took part.
  @nobody %Swap.Done{}

  @doc "Body of the commit process."
  @spec run(pid(), Prepare.t()) :: :ok
  def run(agent, preparation) do
    Swap.Guard.outlive_application()
    enter(preparation.operation)
    metadata = Map.take(preparation.operation, [:patch, :by])
    {result, phases} = Telemetry.span(:commit, metadata, fn -> commit(preparation, agent) end)
    Telemetry.phases(phases, metadata)
    log(result, preparation.operation)
  end

  # The agent hears of the end before handlers and loggers do: processes of other nodes may
  # stand still until the coordinator knows of it, and the next commit needs the name.
  defp commit(preparation, agent) do
    deadline = now() + preparation.operation.pause_timeout

    {preparation, begun} =
      case same_release(preparation) do
        :ok -> begin(preparation, deadline)
        error -> {preparation, error}
      end

    swapped = with :ok <- begun, :ok <- place(preparation), do: swap(preparation, agent, deadline)

    {_ok_or_error, %{phases: phases}} = swapped

    result =
      swapped
      |> finish(preparation)
      |> Map.merge(CommitRecord.facts(preparation))
      |> Map.update!(:warnings, &(preparation.warnings ++ &1))

    leave()
    send(agent, {__MODULE__, self(), {:ended, result}})

    status = Report.FileResult.combine(result.files)
    measured = Map.take(result, [:pause_us, :suspended])
    {{result, phases}, measured, %{status: status, error: result.error}}
  end

  @doc """
  The commit that runs on this node, if one does, and what it is about. It is not asked, for it may be
  busy for long.
  """
  @spec running() :: {pid(), Operation.t()} | nil
  def running do
    case :ets.lookup(@table, :commit) do
      [{:commit, pid, operation}] -> {pid, operation}
      [] -> nil
    end
  rescue
    _no_table in ArgumentError -> nil
  end

  # The name is for people, and lets no second one in.
  defp enter(operation) do
    Process.register(self(), __MODULE__)
    _ = :ets.new(@table, [:named_table])
    true = :ets.insert(@table, {:commit, self(), operation})
  end

  defp leave do
    :ets.delete(@table)
    Process.unregister(__MODULE__)
  end

  # OTP's release handler may have changed the release since, or be about to.
  defp same_release(preparation) do
    if Release.changing?() or Store.Applied.state().release != preparation.release,
      do: {:error, nothing_done("the release of this node changes: another is being installed")},
      else: :ok
  end

  # What instructions and hooks want done before the pause has its time limit in common with it:
  # other nodes may stand still already, and the coordinator does not wait much longer.
  defp begin(%Prepare{examination: %{instructions: instructions}} = preparation, deadline) do
    {begun, failure} = InstructionRunner.begin(instructions, gone(preparation), deadline)
    {%{preparation | begun: begun}, if(failure, do: {:error, nothing_done(failure)}, else: :ok)}
  end

  # What the new code looks for when it is loaded is there by then, and goes back with it. Before
  # the pause: the disk may take its time. What is new with an upgrade lies there since it was prepared.
  defp place(%Prepare{examination: %{upgrade: upgrade}, staged: staged} = preparation) do
    replaced = if upgrade, do: common(preparation), else: staged

    with {:error, {path, reason}} <- Store.EarlyFiles.put(replaced) do
      {:error, nothing_done("cannot write #{path}: #{inspect(reason)}")}
    end
  end

  defp common(%Prepare{staged: staged} = preparation) do
    targets =
      for %{common?: true, target: target} <- verdicts(preparation),
          into: MapSet.new(),
          do: Store.Transaction.real(target)

    %{staged | files: Enum.filter(staged.files, &(&1.target in targets))}
  end

  defp gone(%Prepare{ready: nil}), do: []

  defp gone(%Prepare{ready: ready}),
    do: for(%{kind: :delete, module: module} <- ready.job.changes, do: module)

  # Nothing to change in memory here; the decision is about the disk all the same.
  defp swap(%Prepare{ready: nil, operation: operation} = preparation, agent, _deadline) do
    Hook.run(:before_pause, told(preparation))
    send(agent, {__MODULE__, self(), {:held, self()}})

    receive do
      {:decided, :finish} ->
        Hook.run(:after_resume, told(preparation))
        {:ok, @nobody}

      {:decided, {:take_back, why}} ->
        {:error, Swap.Failure.new(:told, why)}
    after
      # rule: hold-ends
      operation.hold_timeout -> {:error, nothing_done("no decision came in time")}
    end
  end

  defp swap(%Prepare{ready: ready, operation: operation} = preparation, agent, deadline) do
    change = told(preparation)
    Hook.run(:before_pause, change)
    commit = self()

    case deadline - now() do
      left when left > 0 ->
        result =
          Swap.run(put_in(ready.job.pause_timeout, left), fn engine ->
            FaultPoint.point(:held)
            send(agent, {__MODULE__, commit, {:held, engine}})
          end)

        if match?({:ok, _done}, result), do: Hook.run(:after_resume, change)
        result

      _late ->
        {:error,
         nothing_done(
           "the instructions and hooks that come before the pause have taken all of its " <>
             "#{operation.pause_timeout} ms: nobody was suspended"
         )}
    end
  end

  # What hooks are told.
  defp told(%Prepare{ready: ready, examination: examination, operation: operation}) do
    changes = if ready, do: ready.job.changes, else: []
    Prepare.change(changes, Check.paths(examination), operation)
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp nothing_done(why), do: Swap.Failure.new(:taken_back, why)

  # The new code runs, though not all went well: disk has to agree with memory.
  defp finish({:error, %{loaded?: true} = failure}, preparation) do
    done = %{@nobody | pause_us: failure.pause_us, phases: failure.phases}
    write(done, preparation, and_back(failure.text, preparation))
  end

  defp finish({:error, failure}, preparation) do
    with %Course{} = course <- preparation.examination.upgrade, do: Course.stay(course)
    Prepare.discard(preparation)
    Environment.unset(preparation.accepted.config)
    text = and_back(failure.text, preparation)
    files = for verdict <- verdicts(preparation), do: failed(verdict, text)
    known = %{error: text, as_told?: failure.told?}
    result = result(files, %{@nobody | pause_us: failure.pause_us}, known)
    _ = Store.Journal.add(:failed, CommitRecord.entry(preparation, result))
    result
  end

  defp finish({:ok, done}, preparation) do
    done |> write(preparation, nil) |> carry_out(preparation)
  end

  defp and_back(text, preparation),
    do: Enum.join([text | InstructionRunner.undo(preparation.begun)], "; ")

  # Memory and disk agree: applications that are started now find what is theirs on both.
  defp carry_out(%{error: nil} = result, preparation) do
    case InstructionRunner.finish(preparation.examination.instructions, preparation.begun) do
      :ok ->
        result

      {:error, text} ->
        result = %{result | error: text}
        entry = %{CommitRecord.entry(preparation, result) | status: :error}
        _ = Store.Journal.add(:failed, entry)
        result
    end
  end

  # All that an upgrade brings lay there before the load: what is started finds what is its own, and the other release runs,
  # whether that could be written down or not.
  defp carry_out(
         %{error: text} = result,
         %{examination: %{upgrade: %Course{}} = examination} = preparation
       ) do
    case InstructionRunner.finish(examination.instructions, preparation.begun) do
      :ok -> result
      {:error, more} -> %{result | error: "#{text}; #{more}"}
    end
  end

  defp carry_out(%{error: text} = result, preparation),
    do: %{result | error: and_back(text, preparation)}

  # The new code runs: now the disk has to agree with it, whatever happens.
  # rule: disk-after-load
  defp write(done, preparation, error) do
    result = write_now(done, preparation, error)
    Hook.run(:after_write, told(preparation), [LiveView])
    result
  end

  defp write_now(done, preparation, error) do
    FaultPoint.point(:loaded)
    verdicts = Enum.map(verdicts(preparation), &read_back/1)
    restart = error || restart_needed(verdicts)
    config = preparation.accepted.config
    # What the code that waits for a restart reads is for then, too.
    if restart_needed(verdicts) == nil, do: Environment.set(config)
    with %Course{} = course <- preparation.examination.upgrade, do: Course.follow(course)
    stragglers = stragglers(preparation, done)
    known = %{stragglers: stragglers, restart_needed: restart, error: error}
    result = result(verdicts, done, known)

    case CommitRecord.write(preparation, result) do
      :ok ->
        files = verdicts |> Enum.map(&taken_out/1) |> Enum.map(&Verdict.to_report/1)
        told = if restart_needed(verdicts) == nil, do: Environment.tell(config), else: []
        %{result | files: files, warnings: told}

      {:error, text} ->
        files = for verdict <- verdicts(preparation), do: failed(verdict, text)
        result(files, done, %{known | restart_needed: text, error: text})
    end
  end

  defp verdicts(preparation), do: preparation.examination.verdicts

  # Only what was to be loaded can have failed to be.
  defp failed(%Verdict{change: nil} = verdict, _text), do: verdict
  defp failed(verdict, text), do: Verdict.change_status(verdict, :error, text)

  defp read_back(%Verdict{change: nil} = verdict), do: verdict

  # When its file is gone, too.
  defp read_back(%Verdict{change: :delete} = verdict), do: verdict

  defp read_back(%Verdict{entry: %{beam: beam}} = verdict) do
    with {:ok, module} <- LoadedCode.module(beam.module),
         %{} = facts <- LoadedCode.facts(module),
         true <- LoadedCode.same?(facts, beam.md5, beam.vsn) do
      verdict
    else
      _ ->
        Verdict.change_status(
          verdict,
          :error,
          "another version of it runs: something else loaded this module just now"
        )
    end
  end

  # Until its file was gone a call could have loaded it again, where code is loaded on demand.
  defp taken_out(%Verdict{change: :delete} = verdict) do
    with {:ok, module} <- LoadedCode.module(Verdict.module(verdict)),
         false <- Swap.take_out(module) do
      Verdict.change_status(verdict, :error, "it runs still: something else loaded it just now")
    else
      _out -> verdict
    end
  end

  defp taken_out(verdict), do: verdict

  defp restart_needed(verdicts) do
    case for %{status: :not_updated} = verdict <- verdicts, do: Verdict.name(verdict) do
      [] -> nil
      names -> "on disk but not in memory: #{Enum.join(names, ", ")}"
    end
  end

  defp stragglers(%Prepare{ready: nil}, _done), do: []

  defp stragglers(%Prepare{ready: ready}, done) do
    Swap.stragglers(Swap.Change.replaced(ready.job.changes), done.unsure)
  end

  defp result(verdicts, done, known) do
    Map.merge(
      %{
        files: Enum.map(verdicts, &Verdict.to_report/1),
        pause_us: done.pause_us,
        phases: Report.Phase.of(done.phases),
        suspended: done.suspended,
        killed: done.killed,
        stragglers: [],
        loaded_at_us: loaded_at(done.phases),
        restart_needed: nil,
        error: nil,
        warnings: []
      },
      known
    )
  end

  # The last load without an error: one before it may have been a module's own on_load.
  defp loaded_at(phases) do
    case for %{phase: :load, error: nil, ended: ended} <- phases, do: ended do
      [] ->
        nil

      times ->
        now = Enum.max(times) + System.time_offset()
        System.convert_time_unit(now, :native, :microsecond)
    end
  end

  defp log(result, operation) do
    status = Report.FileResult.combine(result.files)

    Log.info(
      "HotPatch: #{operation.kind} #{operation.patch} on #{node()}: #{status}, #{result.suspended} processes " <>
        "paused for #{result.pause_us} us",
      patch: operation.patch,
      status: status,
      by: operation.by
    )
  end
end
