defmodule HotPatch.Report do
  @moduledoc """
  How a check, an apply or a rollback ended: each file on each node with its status and reason, the
  integral status of each node and of the whole, and timings.

  `inspect/1` is one line, `IO.puts/1` prints a table, `HotPatch.to_json/1` gives JSON.
  """

  alias HotPatch.Manifest
  alias HotPatch.Report
  alias HotPatch.Report.NodeResult
  alias HotPatch.Report.Phase
  alias HotPatch.Status
  alias HotPatch.Straggler
  alias HotPatch.Strategy
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @typedoc """
    * `:operation` - what was done
    * `:patch` - id of the patch
    * `:status` - integral over all nodes
    * `:unmanaged` - connected nodes that do not run HotPatch, and so were left out
    * `:missing` - nodes that belong to the system and are away. What is done on all nodes they do when they
      are back
    * `:by`, `:started_at` - who and when
    * `:signed_by` - the key by which the patch is signed, or `nil`
    * `:overridden` - where options were given in place of what the patch's manifest says
    * `:disk` - `:memory_only` where no file of the system was, or is to be, touched, else `:replace`
    * `:duration_us`, `:prepare_us`, `:commit_us` - microseconds in all, and of the two phases
      (where nodes were changed group by group: of the last group)
    * `:skew_us` - microseconds from the load on the first node to that on the last, as far as
      their clocks can be compared; `nil` if fewer than two loaded
    * `:watch` - what was seen afterwards, see `HotPatch.Watch`; `nil` if nobody watched
    * `:rollback` - the report of the rollback that followed by itself, or `nil`
  """
  @type t :: %__MODULE__{
          operation: :check | :apply | :rollback,
          patch: String.t(),
          status: Status.t(),
          nodes: [NodeResult.t()],
          unmanaged: [node()],
          missing: [node()],
          by: String.t() | nil,
          signed_by: String.t() | nil,
          overridden: HotPatch.Manifest.overridden(),
          disk: :replace | :memory_only,
          started_at: DateTime.t(),
          duration_us: non_neg_integer(),
          prepare_us: non_neg_integer(),
          commit_us: non_neg_integer(),
          skew_us: non_neg_integer() | nil,
          watch: HotPatch.Watch.t() | nil,
          rollback: t() | nil
        }
  # Nodes whose phases a terminal is shown.
  @bars 5

  @enforce_keys [:operation, :patch, :status, :nodes, :started_at]
  defstruct [
    :operation,
    :patch,
    :status,
    :nodes,
    :by,
    :signed_by,
    :started_at,
    :skew_us,
    :watch,
    :rollback,
    disk: :replace,
    overridden: %{},
    unmanaged: [],
    missing: [],
    duration_us: 0,
    prepare_us: 0,
    commit_us: 0
  ]

  @doc "Whether all of it runs on every node of the system as it should: nothing failed, and no node is away."
  @spec everywhere?(t()) :: boolean()
  def everywhere?(%__MODULE__{status: status, missing: missing}),
    do: missing == [] and status in [:ok, :not_changed, :not_loaded, :not_beam]

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(report) do
    [
      headline(report),
      nodes(report),
      pauses(report),
      files(report),
      problems(report),
      afterwards(report)
    ]
  end

  defp afterwards(report) do
    [
      if(report.watch, do: ["\n", HotPatch.Watch.to_table(report.watch)], else: []),
      if(report.rollback, do: ["\nwas taken back:\n", to_table(report.rollback)], else: [])
    ]
  end

  defp headline(report) do
    "#{report.operation} #{Printable.line(report.patch)}: #{report.status}, " <>
      "#{Table.nodes_of(report)}, #{Table.milliseconds(report.duration_us)}" <>
      if(report.skew_us, do: ", #{Table.milliseconds(report.skew_us)} apart\n", else: "\n") <>
      if(report.disk == :memory_only, do: "in memory only: gone with a restart\n", else: "") <>
      if(report.signed_by, do: "signed by #{Printable.line(report.signed_by)}\n", else: "") <>
      if(report.overridden == %{},
        do: "",
        else: "#{Printable.line(Manifest.overridden_line(report.overridden))}\n"
      )
  end

  defp nodes(%Report{operation: :check} = report) do
    rows =
      for node <- report.nodes,
          do: [Atom.to_string(node.node), Status.text(node.status), tally(node)]

    Table.render(["node", "status", "files"], rows)
  end

  defp nodes(report) do
    rows =
      for node <- report.nodes do
        [
          Atom.to_string(node.node),
          Status.text(node.status),
          Integer.to_string(node.suspended),
          Table.milliseconds(node.pause_us),
          if(node.restart_needed, do: "yes", else: "no"),
          tally(node)
        ]
      end

    Table.render(["node", "status", "paused", "pause", "restart", "files"], rows)
  end

  # Of those that took longest, as many as are read.
  defp pauses(report) do
    changed = for %{phases: [_ | _]} = node <- report.nodes, do: node
    {shown, more} = changed |> Enum.sort_by(&(-Phase.last(&1.phases))) |> Enum.split(@bars)

    if shown == [] do
      []
    else
      longest = Phase.last(hd(shown).phases)

      [
        "\nwhat the time went into (s: suspend, c: convert, l: load, r: resume, dots: waits)\n",
        for(node <- shown, do: pause(node, longest)),
        if(more == [], do: [], else: "and #{length(more)} more, which took less\n")
      ]
    end
  end

  defp pause(%{node: node, phases: phases}, longest) do
    name = node |> Atom.to_string() |> Printable.line()
    "#{Phase.bar(phases, longest)}  #{name}: #{Phase.words(phases)}\n"
  end

  defp tally(node) do
    counts = Enum.frequencies_by(node.files, & &1.status)

    for(status <- Status.all(), counts[status], do: "#{counts[status]} #{status}")
    |> Enum.join(", ")
  end

  # A file on which all nodes agree takes one row, and so do several of which the same is said.
  defp files(report) do
    twins = twins(report)

    rows =
      for(node <- report.nodes, file <- node.files, do: {node.node, file})
      |> Enum.group_by(
        fn {_node, file} -> {file.path, file.status, file.reason} end,
        &elem(&1, 0)
      )
      |> Enum.group_by(
        fn {{path, status, reason}, nodes} ->
          {status, reason, Enum.sort(nodes), reason || path}
        end,
        fn {{path, _status, _reason}, _nodes} -> path end
      )
      |> Enum.map(fn {{status, reason, nodes, _}, paths} ->
        {status, Enum.sort(paths), reason, nodes}
      end)
      |> Enum.sort_by(&put_elem(&1, 0, Status.code(elem(&1, 0))))
      |> Enum.map(&file_row(&1, twins, length(report.nodes)))

    if rows == [], do: [], else: ["\n", Table.render(["file", "status", "nodes", "reason"], rows)]
  end

  defp file_row({status, paths, reason, nodes}, twins, total),
    do: [names(paths, twins), Status.text(status), Table.nodes(nodes, total), reason || ""]

  defp names([path], twins), do: name(path, twins)

  defp names(paths, twins),
    do: "#{length(paths)} files: #{paths |> Enum.map(&name(&1, twins)) |> Table.some()}"

  # The last part is enough, unless another file has the same.
  defp name(path, twins) do
    base = Path.basename(path)
    if base in twins, do: path, else: base
  end

  defp twins(report) do
    paths = for node <- report.nodes, file <- node.files, uniq: true, do: file.path
    for {base, [_, _ | _]} <- Enum.group_by(paths, &Path.basename/1), into: MapSet.new(), do: base
  end

  defp problems(report) do
    notes =
      for(
        %{error: error} = node when error != nil <- report.nodes,
        not told?(node),
        do: {node.node, error}
      ) ++
        for(node <- report.nodes, text <- Strategy.lines(node.strategy), do: {node.node, text}) ++
        for(
          node <- report.nodes,
          text <- straggling(node) ++ node.warnings,
          do: {node.node, text}
        )

    unmanaged =
      if report.unmanaged == [],
        do: [],
        else: [
          "\nnot running HotPatch, left out: #{Printable.line(Enum.join(report.unmanaged, ", "))}\n"
        ]

    [Table.notes(notes, length(report.nodes)), unmanaged, missing(report)]
  end

  defp missing(%{missing: []}), do: []

  defp missing(%{operation: :check, missing: nodes}),
    do: "\naway, and not asked: #{Printable.line(Enum.join(nodes, ", "))}\n"

  defp missing(%{missing: nodes}) do
    "\naway: #{Printable.line(Enum.join(nodes, ", "))}; what is done on all nodes they do when they are back\n"
  end

  # A file's reason says it already.
  defp told?(node) do
    Enum.any?(node.files, &(&1.reason == node.error))
  end

  defp straggling(node) do
    killed =
      if node.killed == [],
        do: [],
        else: ["killed by force: #{node.killed |> Enum.map(&inspect/1) |> Table.some(10)}"]

    killed ++ Straggler.lines(node.stragglers)
  end

  defimpl Inspect do
    def inspect(report, _options) do
      HotPatch.Support.Printable.line([
        "#HotPatch.Report<#{report.operation} #{report.patch} #{report.status} ",
        "#{HotPatch.Support.Table.nodes_of(report)} #{HotPatch.Support.Table.milliseconds(report.duration_us)}>"
      ])
    end
  end

  defimpl String.Chars do
    def to_string(report),
      do: report |> HotPatch.Report.to_table() |> HotPatch.Support.Printable.lines()
  end
end
