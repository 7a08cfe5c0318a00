defmodule HotPatch.Cluster.Analyses do
  @moduledoc false
  # What a patch means for each node, compared with what that node runs. The comparison needs the
  # native reader, which only the coordinator is sure to have. Every node says in one digest what
  # it runs, so that nodes that run the same are compared once. One of these gives the files that
  # have to do with the patch: those of the modules that change, of modules that they name, and of
  # those that name them. All others would be read for nothing.

  alias HotPatch.Analysis
  alias HotPatch.Bridge
  alias HotPatch.Cluster
  alias HotPatch.NodeAgent.AtomName
  alias HotPatch.NodeAgent.IdleConversions
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.Inventory
  alias HotPatch.NodeAgent.Mentions
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Plan
  alias HotPatch.Support.Table

  # What comes and what goes, and the names that the code calls which comes.
  @typep change :: %{
           later: [{String.t(), binary()}],
           deleted: [String.t()],
           calls: [String.t()] | :unknown
         }

  # So many names of modules are spelled out.
  @named 3

  @doc """
  Plans with the analysis of each node, and their modules in its order; or why it is missing. Each comes
  with what its node runs, nil where there is no plan.
  """
  @spec add([{Plan.NodePlan.t(), Inventory.summary() | nil}], Payload.t(), timeout()) ::
          [Plan.NodePlan.t()]
  # A node that is restarted has neither the code nor the states of before to compare with.
  def add(plans, %Payload{restart: :rolling}, _timeout),
    do: for({plan, _summary} <- plans, do: plan)

  def add(plans, payload, timeout) do
    case Bridge.check() do
      :ok ->
        compare(plans, payload, timeout)

      {:error, error} ->
        for {plan, _summary} <- plans, do: not_compared(plan, Exception.message(error))
    end
  end

  defp compare(plans, payload, timeout) do
    {failed, planned} = Enum.split_with(plans, &match?({_plan, nil}, &1))

    compared =
      planned
      |> Enum.group_by(fn {plan, summary} -> {summary, Enum.sort(plan.order)} end, &elem(&1, 0))
      |> Enum.flat_map(fn {{summary, _order}, alike} ->
        compare_group(alike, summary, payload, timeout)
      end)

    Enum.sort_by(Enum.map(failed, &elem(&1, 0)) ++ compared, & &1.node)
  end

  defp compare_group(alike, summary, payload, timeout) do
    # This node's own files need not be sent.
    one = Enum.find(alike, hd(alike), &(&1.node == node()))

    with {:ok, change} <- change(payload, one, summary.names, timeout),
         query = query(change, summary.names),
         {:ok, related} <- ask(one.node, :related, [query], timeout),
         before = Map.values(related.files),
         later = Enum.map(change.later, &elem(&1, 1)),
         options = [deleted: change.deleted, direction: direction(payload)],
         {:ok, analysis} <- Analysis.run(before, later, options) do
      analysis = %{analysis | findings: open(analysis.findings, payload)}
      for plan <- alike, do: plan |> with_analysis(analysis) |> not_looked_at(related.unknown)
    else
      {:error, %{} = error} -> Enum.map(alike, &not_compared(&1, Exception.message(error)))
      {:error, text} -> Enum.map(alike, &not_compared(&1, text))
    end
  end

  # What the change itself sees to is nothing to be done by hand.
  defp open(findings, payload) do
    if Enum.any?(findings, &(&1.name == :supervisor_init_changed)) do
      following = Instructions.following(payload)
      Enum.reject(findings, &(&1.name == :supervisor_init_changed and &1.module in following))
    else
      findings
    end
  end

  defp ask(node, function, args, timeout) do
    [{_node, answer}] = Cluster.call([node], function, args, timeout)
    answer
  end

  # Of a patch that will not be loaded there, what the node runs.
  @spec change(Payload.t(), Plan.NodePlan.t(), [String.t()], timeout()) ::
          {:ok, change()} | {:error, String.t()}
  defp change(%Payload{kind: :apply} = payload, plan, running, _timeout) do
    ordered = for {change, module} <- plan.order, do: {change, AtomName.name(module)}
    concerned = if ordered == [], do: running, else: Enum.map(ordered, &elem(&1, 1))
    concerned = MapSet.new(concerned)

    beams =
      for %{beam: %{module: name} = beam} = entry <- payload.entries,
          name in concerned,
          do: {name, entry.bytes, for({module, _, _} <- beam.imports, uniq: true, do: module)}

    {:ok,
     %{
       later: for({name, bytes, _calls} <- beams, do: {name, bytes}),
       deleted: for({:delete, name} <- ordered, do: name),
       calls: for({_name, _bytes, calls} <- beams, module <- calls, uniq: true, do: module)
     }}
  end

  defp change(%Payload{kind: :rollback} = payload, plan, _running, timeout) do
    case ask(plan.node, :former, [payload.patch], timeout) do
      {:ok, {:ok, files, _way}} ->
        beams =
          for {path, bytes} <- files,
              Path.extname(path) == ".beam",
              do: {Path.basename(path, ".beam"), bytes}

        {gone, later} = Enum.split_with(beams, &match?({_name, nil}, &1))
        # One that moves back goes from one place and comes to another.
        deleted = for {name, nil} <- gone, not List.keymember?(later, name, 0), do: name
        {:ok, %{later: later, deleted: deleted, calls: calls(later)}}

      {:ok, :unknown} ->
        {:error, "what the patch has replaced is no longer kept there"}

      {:error, text} ->
        {:error, text}
    end
  end

  # This node's beam_lib may be older than the file.
  defp calls(beams) do
    Enum.reduce_while(beams, [], fn {_name, bytes}, calls ->
      case :beam_lib.chunks(bytes, [:imports]) do
        {:ok, {_module, [imports: imports]}} ->
          {:cont, for({module, _, _} <- imports, do: Atom.to_string(module)) ++ calls}

        {:error, :beam_lib, _reason} ->
          {:halt, :unknown}
      end
    end)
  rescue
    _of_beam_lib -> :unknown
  end

  defp query(change, running) do
    names = Mentions.patterns(running)
    changed = Enum.map(change.later, &elem(&1, 0)) ++ change.deleted

    named =
      for {_name, bytes} <- change.later,
          name <- Mentions.which(bytes, names),
          uniq: true,
          do: name

    naming =
      with calls when is_list(calls) <- change.calls,
           do: changed ++ Enum.reject(calls -- running, &Analysis.known?/1),
           else: (:unknown -> :all)

    %{change: changed, named: named, naming: naming}
  end

  defp direction(%Payload{kind: :rollback}), do: :down
  defp direction(_payload), do: :up

  defp not_compared(%{error: nil} = plan, why),
    do: add_risk(plan, "what the change means was not compared with what runs: #{why}")

  defp not_compared(plan, _why), do: plan

  defp not_looked_at(plan, []), do: plan

  defp not_looked_at(plan, names) do
    some = names |> Enum.sort() |> Table.some(@named)

    add_risk(
      plan,
      "what the change means was compared without #{Table.count(length(names), "module", "modules")} " <>
        "whose files are not the code that runs (see HotPatch.drift/1) or too large to be sent: #{some}"
    )
  end

  defp add_risk(plan, text), do: %{plan | risks: plan.risks ++ [Plan.Risk.of(text)]}

  defp with_analysis(plan, analysis) do
    counts =
      Enum.reduce(plan.processes, %{}, fn part, counts ->
        Map.update(counts, AtomName.name(part.module), part.count, &(&1 + part.count))
      end)

    findings =
      for finding <- analysis.findings,
          do: %{finding | processes: Map.get(counts, finding.module, 0)}

    place =
      for {name, place} <- analysis.order |> List.flatten() |> Enum.with_index(),
          into: %{},
          do: {name, place}

    order = Enum.sort_by(plan.order, fn {_change, module} -> place[AtomName.name(module)] end)
    risks = plan.risks ++ idle(plan, analysis)
    %{plan | order: order, analysis: %{analysis | findings: findings}, risks: risks}
  end

  # Of a patch made by hand the node cannot know that a code_change is another than before.
  defp idle(plan, analysis) do
    converted = for %{module: module, change_code?: true} <- plan.processes, do: module

    for {:replace, module} <- plan.order,
        change = Enum.find(analysis.modules, &(&1.module == AtomName.name(module))),
        change.code_change == :touched,
        module not in converted,
        not Enum.any?(plan.risks, &match?(%{kind: :idle_conversion, about: ^module}, &1)),
        do: IdleConversions.touched(module)
  end
end
