defmodule HotPatch.Rehearsal do
  @moduledoc """
  What would happen if a patch were applied now, tried on the state that processes have now, with nobody
  paused: the result of `HotPatch.rehearse/2`. `IO.puts/1` prints it, `HotPatch.to_json/1` gives JSON.

  No value of a state is in it, only forms (see `HotPatch.Rehearsal.Form`), unless `show: :values` asks for those of
  messages and answers.

    * `:outcome` - see below
    * `:patch` - id of the patch
    * `:nodes` - what was found on each node, see `HotPatch.Rehearsal.NodeResult`
    * `:sample` - how many processes of each module were tried at most, on a node; `nil`: all
    * `:replay` - for how many seconds messages were played; `nil`: none were
    * `:effects` - `:skip` where a callback that has effects was left out, else `:run`
    * `:effective` - callbacks that have effects, as far as the code shows, with what they call
    * `:unmanaged` - connected nodes that do not run HotPatch, and so were left out
    * `:missing` - nodes that belong to the system and are away
    * `:by`, `:started_at`, `:duration_us` - who, when, and how long it took

  | outcome | what it means |
  |---|---|
  | `:ok` | all that was to be tried went well |
  | `:incomplete` | nothing failed, and something could not be tried: the nodes' results say what and why |
  | `:failed` | a callback failed for a state, the new code crashed at a message that the old took, or a node would refuse the patch |

  What a process does after this it may do in another state. So `:ok` is about this moment, and about those
  processes that were there.
  """

  alias HotPatch.Rehearsal.ModuleResult
  alias HotPatch.Rehearsal.NodeResult
  alias HotPatch.Rehearsal.Outcome
  alias HotPatch.Rehearsal.Replay
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @type effective :: %{
          module: String.t(),
          function: String.t(),
          calls: [String.t()]
        }
  @type t :: %__MODULE__{
          patch: String.t(),
          outcome: Outcome.t(),
          nodes: [NodeResult.t()],
          sample: pos_integer() | nil,
          replay: pos_integer() | nil,
          effects: :skip | :run,
          effective: [effective()],
          unmanaged: [node()],
          missing: [node()],
          by: String.t() | nil,
          started_at: DateTime.t(),
          duration_us: non_neg_integer()
        }
  @enforce_keys [:patch, :outcome, :nodes, :started_at]
  defstruct [
    :patch,
    :outcome,
    :nodes,
    :sample,
    :replay,
    :by,
    :started_at,
    effects: :skip,
    effective: [],
    unmanaged: [],
    missing: [],
    duration_us: 0
  ]

  @doc "What failed first, in a sentence; nil if nothing did."
  @spec failure(t()) :: String.t() | nil
  def failure(rehearsal) do
    Enum.find_value(rehearsal.nodes, fn node ->
      text = NodeResult.failure(node)
      text && "#{text} on #{node.node}"
    end)
  end

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(rehearsal) do
    total = length(rehearsal.nodes)

    [
      headline(rehearsal),
      nodes(rehearsal),
      modules(rehearsal, total),
      failures(rehearsal, total),
      replays(rehearsal, total),
      left_out(rehearsal, total),
      effective(rehearsal),
      Table.notes(
        for(node <- rehearsal.nodes, note <- NodeResult.notes(node), do: {node.node, note}),
        total
      ),
      named("not running HotPatch, left out", rehearsal.unmanaged),
      named("away, and not asked", rehearsal.missing)
    ]
  end

  defp headline(rehearsal) do
    tried = rehearsal.nodes |> Enum.map(&NodeResult.tried/1) |> Enum.sum()

    "rehearsal #{Printable.line(rehearsal.patch)}: #{rehearsal.outcome}, #{Table.nodes_of(rehearsal)}, " <>
      "#{Table.count(tried, "process", "processes")} tried in #{Table.milliseconds(rehearsal.duration_us)}" <>
      if(rehearsal.sample, do: ", at most #{rehearsal.sample} of each module\n", else: "\n")
  end

  defp nodes(rehearsal) do
    rows =
      for node <- rehearsal.nodes do
        [
          "#{node.node}",
          "#{node.outcome}",
          "#{node.suspended}",
          Table.milliseconds(node.pause_us),
          Table.bytes(node.memory_bytes)
        ]
      end

    Table.render(["node", "outcome", "would pause", "for about", "memory"], rows)
  end

  defp modules(rehearsal, total) do
    rows =
      for(node <- rehearsal.nodes, module <- node.modules, do: {module, node.node})
      |> Enum.group_by(fn {module, _node} -> module.module end)
      |> Enum.sort()
      |> Enum.map(fn {name, found} ->
        modules = Enum.map(found, &elem(&1, 0))
        nodes = Enum.map(found, &elem(&1, 1))
        [name, Table.nodes(nodes, total) | ModuleResult.cells(modules)]
      end)

    if rows == [],
      do: [],
      else: [
        "\n",
        Table.render(
          ["module", "nodes", "processes", "tried", "longest", "form of the state"],
          rows
        )
      ]
  end

  defp failures(rehearsal, total) do
    rows =
      for(
        node <- rehearsal.nodes,
        module <- node.modules,
        failure <- module.failures,
        do: {{module.module, failure.reason, failure.place}, {node.node, failure}}
      )
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Enum.sort()
      |> Enum.map(fn {{module, reason, place}, found} ->
        nodes = found |> Enum.map(&elem(&1, 0)) |> Enum.uniq()
        pids = found |> Enum.flat_map(fn {_node, failure} -> failure.processes end)
        count = found |> Enum.map(fn {_node, failure} -> failure.count end) |> Enum.sum()

        [
          module,
          Table.nodes(nodes, total),
          "#{count}",
          "#{reason}#{if place, do: " in #{place}"} (#{Table.some(pids)})"
        ]
      end)

    if rows == [],
      do: [],
      else: ["\n", Table.render(["failed", "nodes", "processes", "reason"], rows)]
  end

  defp replays(%{replay: nil}, _total), do: []

  defp replays(rehearsal, total) do
    by_module =
      for(node <- rehearsal.nodes, replay <- node.replays, do: {node.node, replay})
      |> Enum.group_by(fn {_node, replay} -> replay.module end)
      |> Enum.sort()

    rows =
      for {name, found} <- by_module,
          do: [name, Table.nodes(Enum.map(found, &elem(&1, 0)), total) | Replay.cells(found)]

    [
      "\n",
      Table.render(
        ["played", "nodes", "processes", "messages", "same", "crashed", "differ", "left aside"],
        rows
      ),
      crashes(by_module),
      differences(by_module),
      aside(by_module, total)
    ]
  end

  defp crashes(by_module) do
    rows =
      for {name, found} <- by_module, crash <- Replay.together(found, :crashes) do
        place = if crash.place, do: " in #{crash.place}", else: ""
        [name, "#{crash.count}", crash.message, "#{crash.reason}#{place}"]
      end

    if rows == [],
      do: [],
      else: ["\n", Table.render(["crashes in the new code", "times", "at", "reason"], rows)]
  end

  defp differences(by_module) do
    rows =
      for {name, found} <- by_module,
          difference <- Replay.together(found, :differences),
          line <- [nil | difference.values] do
        case line do
          nil ->
            change = "#{Replay.what(difference)}: #{Replay.change(difference)}"
            [name, "#{difference.count}", difference.message, change]

          values ->
            ["", "", values.message, "#{values.from} became #{values.to}"]
        end
      end

    if rows == [],
      do: [],
      else: ["\n", Table.render(["does something else", "times", "at", "what"], rows)]
  end

  defp aside(by_module, total) do
    notes =
      for {_name, found} <- by_module,
          {node, replay} <- found,
          line <- Replay.notes(replay),
          do: {node, line}

    Table.notes(notes, total)
  end

  defp left_out(rehearsal, total) do
    notes =
      for node <- rehearsal.nodes, module <- node.modules, left <- module.left_out do
        {node.node, "#{module.module}: #{ModuleResult.left_out_line(left)}"}
      end

    Table.notes(notes, total)
  end

  defp effective(%{effective: []}), do: []

  defp effective(rehearsal) do
    how = if rehearsal.effects == :run, do: "was run", else: "was left out"

    rows =
      for one <- rehearsal.effective,
          do: [
            "#{String.replace_prefix(one.module, "Elixir.", "")}.#{one.function}",
            "#{how}: #{Enum.join(one.calls, ", ")}"
          ]

    ["\n", Table.render(["has effects", "as far as the code shows"], rows)]
  end

  defp named(_what, []), do: []
  defp named(what, nodes), do: "\n#{what}: #{Printable.line(Enum.join(nodes, ", "))}\n"

  defimpl Inspect do
    def inspect(rehearsal, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Rehearsal<#{rehearsal.patch} #{rehearsal.outcome} #{HotPatch.Support.Table.nodes_of(rehearsal)}>"
      )
    end
  end

  defimpl String.Chars do
    def to_string(rehearsal),
      do: rehearsal |> HotPatch.Rehearsal.to_table() |> HotPatch.Support.Printable.lines()
  end
end
