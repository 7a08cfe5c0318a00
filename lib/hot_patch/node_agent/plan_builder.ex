defmodule HotPatch.NodeAgent.PlanBuilder do
  @moduledoc false
  # What an apply would do on this node, from an examination: order, processes, risks.

  alias HotPatch.LiveView
  alias HotPatch.LoaderVM
  alias HotPatch.NodeAgent.AtomName
  alias HotPatch.NodeAgent.Changes
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.DiskCheck
  alias HotPatch.NodeAgent.Environment
  alias HotPatch.NodeAgent.FunMaps
  alias HotPatch.NodeAgent.IdleConversions
  alias HotPatch.NodeAgent.InstructionRunner.Children
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.PreviousCode
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Plan
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Strategy
  alias HotPatch.Support.Table
  alias HotPatch.Swap

  # So many are named of those that will be killed, and of those that are too busy.
  @named 10

  @doc "What whoever applies this patch should know beforehand, of the processes of this node."
  @spec warnings(Check.t()) :: [String.t()]
  def warnings(%Check{} = examination), do: examination.notes ++ of_processes(examination)

  defp of_processes(examination) do
    changes = examination |> Check.known_changes() |> Changes.of(examination.instructions)

    if Enum.any?(changes, &Swap.Change.converts?/1) do
      %{targets: targets, unpaused: unpaused, silent: silent} = found = Swap.find(changes)
      running = Swap.running(changes, targets ++ unpaused, found.running)
      converting = Enum.filter(changes, &Swap.Change.converts?/1)

      IdleConversions.warnings(changes, targets ++ unpaused, examination.instructions) ++
        Enum.map(Swap.state_keepers(converting, targets), &to_string/1) ++
        Swap.uncertain(changes, running, silent)
    else
      []
    end
  end

  @doc "The plan of this node."
  @spec plan(Check.t()) :: Plan.NodePlan.t()
  def plan(%Check{verdicts: verdicts} = examination) do
    # Of a module whose name this VM does not know there are no processes.
    known = Check.known_changes(examination)
    {changes, unknown} = known |> Changes.of(examination.instructions) |> FunMaps.attach(known)

    %{targets: targets, unpaused: unpaused, silent: silent} = found = Swap.find(changes)
    running = Swap.running(changes, targets ++ unpaused, found.running)
    pause? = examination.strategy.transition == :suspend
    files = Enum.map(verdicts, &Verdict.to_report/1)

    %Plan.NodePlan{
      node: node(),
      status: Report.FileResult.combine(files),
      files: files,
      order: order(Check.changes(examination)),
      processes: processes(targets, pause?) ++ processes(unpaused, false),
      suspended: if(pause?, do: length(targets), else: 0),
      strategy: examination.strategy,
      disk:
        for(%{target: target, disk?: true} <- verdicts, target != nil, do: target) |> Enum.sort(),
      config: Environment.names(examination.config),
      instructions: Instructions.lines(examination.instructions),
      risks:
        examination
        |> risks(changes, targets ++ unpaused, {running, silent})
        |> Enum.concat(unknown)
        |> Enum.concat(Swap.fun_lines(changes, targets, examination.instructions.purge))
        |> Enum.map(&Plan.Risk.of/1)
    }
  end

  # New modules first: nothing calls them yet, and what replaces others may. Those that go come
  # last.
  defp order(verdicts) do
    for kind <- [:add, :replace, :delete],
        verdict <- Enum.sort_by(verdicts, &Verdict.module/1),
        verdict.change == kind do
      {kind, AtomName.text(Verdict.module(verdict))}
    end
  end

  defp processes(targets, pauses?) do
    targets
    |> Enum.flat_map(fn %{kind: kind, rule: rule, modules: modules} ->
      for {module, change_code?} <- modules, do: {inspect(module), kind, rule, change_code?}
    end)
    |> Enum.frequencies()
    |> Enum.map(fn {{module, kind, rule, change_code?}, count} ->
      %{
        module: module,
        kind: kind,
        rule: rule,
        count: count,
        change_code?: change_code?,
        pauses?: pauses?
      }
    end)
    |> Enum.sort_by(&{-&1.count, &1.module})
  end

  # Those that are about a module's processes say so, the others are their message.
  @spec risks(Check.t(), [Swap.Change.t()], [Swap.Target.t()], {running, [pid()]}) ::
          [Plan.Risk.t() | String.t()]
        when running: [Swap.Discovery.Running.t()]
  defp risks(%{verdicts: verdicts} = examination, changes, targets, {running, silent}) do
    Enum.concat([
      for(%{status: :not_updated} = v <- verdicts, do: "#{Verdict.name(v)}: #{v.reason}"),
      Strategy.lines(examination.strategy),
      examination.apart,
      for(v <- verdicts, Status.refuses?(v.status), do: "#{v.entry.path}: #{v.reason}"),
      drifted(verdicts),
      restart(examination),
      examination.notes,
      busy(silent),
      without_code_change(changes, targets),
      supervisors(targets),
      bare(changes, running),
      Swap.kept_frames(changes, targets),
      Swap.state_keepers(changes, targets),
      Swap.uncertain(changes, running, silent),
      alone(examination),
      untried_loading(examination),
      untried(examination),
      killed(changes),
      disk(verdicts),
      IdleConversions.risks(changes, targets, examination.instructions),
      LiveView.lines(for(%{module: module} <- changes, do: module)),
      ended(examination, changes),
      Instructions.risks(examination.instructions)
    ])
  end

  # By whom it is started again.
  defp restart(%{restart: nil}), do: []
  defp restart(%{restart: {:heart, command}}), do: [restart_line("heart (#{command})")]
  defp restart(%{restart: {:exit, _status, by}}), do: [restart_line(by)]

  defp restart_line(by) do
    "the node is restarted into the other release, all its processes end, and is started again by #{by}; patches of the " <>
      "release that runs end with it"
  end

  # Where memory and disk differ now; and, of a rollback, what cannot come back.
  # Each thing is said once: an upgrade brings whole folders, of which hundreds of files may have the same to say.
  defp drifted(verdicts) do
    said =
      for %{status: status, target: target} = verdict <- verdicts,
          not Status.refuses?(status),
          text = (status == :ok && verdict.reason) || PreviousCode.remark(verdict.ran, target),
          do: {Verdict.title(verdict), text}

    for {_name, text} <- Enum.uniq_by(said, &elem(&1, 1)) do
      case for {name, ^text} <- said, do: name do
        [name] -> "#{name}: #{text}"
        names -> "#{length(names)} files (#{Table.some(names)}): #{text}"
      end
    end
  end

  defp busy([]), do: []

  defp busy(pids) do
    message =
      Table.count(
        length(pids),
        "process is too busy to say which modules it works for",
        "processes are too busy to say which modules they work for"
      )

    [%Plan.Risk{message: message, processes: pids |> Enum.take(@named) |> Enum.map(&inspect/1)}]
  end

  # Of one that has it, an instruction may say that it is not called, and the plan says that.
  defp without_code_change(changes, targets) do
    for %{module: module, exports: exports, kind: :replace} <- changes,
        not List.keymember?(exports, "code_change", 0),
        count = Enum.count(targets, &({module, false} in &1.modules and not &1.holds?)),
        count > 0 do
      "#{inspect(module)} exports no code_change: #{count} of its processes keep their state as it is, and are not paused"
    end
  end

  defp supervisors(targets) do
    for %{kind: :supervisor, modules: [{module, _}], pid: pid} <- targets do
      Plan.Risk.of(
        "the supervisor #{inspect(module)} takes over the child specs of its new init; running children " <>
          "stay as they are",
        module,
        [pid]
      )
    end
  end

  @doc "What a plan says of those that run changed modules by themselves."
  @spec bare([Swap.Change.t()], [Swap.Discovery.Running.t()]) :: [Plan.Risk.t()]
  def bare(changes, running) do
    running
    |> Swap.bare(changes)
    |> Enum.group_by(&elem(&1, 1), &elem(&1, 0))
    |> Enum.map(fn {module, pids} ->
      Plan.Risk.of(
        "#{inspect(module)} is run by #{Table.count(length(pids), "process", "processes")} without system " <>
          "messages#{tasks(pids)}: not paused, in the old code until the next fully qualified call; until then " <>
          "neither a failed code_change nor the patch can be taken back, nor the module be changed again, without " <>
          "purge: :force, which kills them",
        module,
        pids
      )
    end)
  end

  defp tasks(pids) do
    case Enum.count(pids, &Swap.task?/1) do
      0 -> ""
      count -> ", #{count} of them #{if count == 1, do: "a Task", else: "Tasks"}"
    end
  end

  defp alone(examination) do
    for %Verdict{alone?: true, entry: entry} <- Check.changes(examination) do
      nif = if entry.beam.load_nif, do: ", a NIF library among it", else: ""

      "#{AtomName.text(entry.beam.module)} runs code when it is loaded#{nif}: it becomes current by a step of its own " <>
        "before the others. If that fails nothing is changed; what its code has done by then is not " <>
        "undone, and a NIF library may refuse to go back"
    end
  end

  defp untried_loading(examination) do
    if not LoaderVM.on?() and Enum.any?(Check.changes(examination), &(&1.direction == :up)),
      do: [
        "the loading of its modules was not tried in a VM of its own (config :hot_patch, " <>
          "loader_vm: :off): a damaged one ends the node"
      ],
      else: []
  end

  # Their values name the module that made them: a copy's would be of no use.
  defp untried(examination) do
    for %Verdict{change: :replace, direction: :up, entry: %{beam: beam}} <-
          Check.changes(examination),
        List.keymember?(beam.chunks, "Recs", 0) do
      "#{AtomName.text(beam.module)} defines native records, so that no copy of it can convert states: its " <>
        "code_change is called after the load, and if it fails all is taken back; that of another " <>
        "module that calls it calls the version before"
    end
  end

  defp disk(verdicts) do
    Enum.concat([
      if(Enum.any?(verdicts, &(&1.target != nil and not &1.disk?)),
        do: [
          "in memory only: no file of the system is touched, and a restart of the node ends it; one that starts " <>
            "again while others still run it gets it from them"
        ],
        else: []
      ),
      for uid <- DiskCheck.former_owners(verdicts) do
        "files of the user with the number #{uid} will belong to this node's own user, who cannot give " <>
          "files away; their modes stay"
      end
    ])
  end

  # Where the operator does not say so, the change is refused because of them. Children that an
  # instruction has stopped are not there any more.
  defp ended(%{instructions: %{purge: :force} = instructions} = examination, changes) do
    casualties = Swap.casualties(changes, examination.strategy.transition)
    pids = Enum.map(casualties, & &1.pid)
    stopped = Children.about_to_stop(pids, Instructions.supervisors(instructions))

    for {text, named} <- casualties |> Enum.reject(&(&1.pid in stopped)) |> Swap.alike() do
      message = "purge: :force ends them in the moment of the load: #{text}"
      %Plan.Risk{message: message, processes: named}
    end
  end

  defp ended(_examination, _changes), do: []

  # A change with old code in use is planned only where it may be purged by force.
  defp killed(changes) do
    for {module, users} <- changes |> Swap.Change.replaced() |> Swap.holders() do
      Plan.Risk.of(
        "purge: :force kills #{Table.count(length(users), "process", "processes")} that still run old code of " <>
          inspect(module),
        module,
        users,
        @named
      )
    end
  end
end
