defmodule HotPatch.LayersTest do
  use ExUnit.Case, async: true

  # The table of docs/architecture.md is the law; what a compiled module names is what it uses, be it
  # by a call, as a struct, or by a name that is called on another node.

  @document "docs/architecture.md"

  # Names that are no use of a module.
  @allowed %{
    # The tag of the messages that subscribers get.
    {"hot_patch/event.ex", "hot_patch.ex"} => true
  }

  # Files that name each other, with the reason.
  @circles [
    # Who owns the wire names the process behind it, and that process its owner's messages.
    [
      "hot_patch/node_agent.ex",
      "hot_patch/node_agent/server.ex",
      "hot_patch/node_agent/server/protocol.ex"
    ],
    # The facade chooses one of two doors; both answer in its terms.
    [
      "hot_patch/bridge.ex",
      "hot_patch/bridge/nif.ex",
      "hot_patch/bridge/os_process.ex",
      "hot_patch/bridge/os_process/program.ex",
      "hot_patch/bridge/os_process/server.ex"
    ]
  ]

  setup_all do
    %{layers: layers(), arrows: arrows()}
  end

  # Of each place, its layer; of each layer, what it may use.
  defp layers do
    rows =
      for "| " <> row <- @document |> File.stream!() |> Enum.map(&String.trim/1),
          [layer, _is, places, uses] <- [
            row |> String.trim_trailing("|") |> String.split("|") |> Enum.map(&String.trim/1)
          ],
          String.starts_with?(places, "`"),
          do:
            {layer, Regex.scan(~r/`([^`]+)`/, places, capture: :all_but_first),
             String.split(uses)}

    %{
      of:
        for(
          {layer, places, _uses} <- rows,
          [place] <- places,
          into: %{},
          do: {place, layer}
        ),
      uses: for({layer, _places, uses} <- rows, into: %{}, do: {layer, [layer | uses]})
    }
  end

  # Every module's source and what it names, from its own file.
  defp arrows do
    modules =
      for path <- Path.wildcard(Path.join(:code.lib_dir(:hot_patch), "ebin/Elixir.*.beam")),
          {:ok, {module, chunks}} =
            :beam_lib.chunks(String.to_charlist(path), [:atoms, :compile_info]),
          source =
            chunks[:compile_info][:source] |> to_string() |> Path.relative_to(Path.expand("lib")),
          Path.type(source) == :relative,
          into: %{},
          do: {module, {source, for({_index, atom} <- chunks[:atoms], do: atom)}}

    for {_module, {from, atoms}} <- modules,
        atom <- atoms,
        {to, _atoms} <- [modules[atom]],
        to != from,
        uniq: true,
        do: {from, to}
  end

  # The most particular place counts: `analysis/finding.ex` is not `analysis.ex`.
  defp layer(source, layers) do
    parts = source |> Path.rootname() |> Path.split()
    parts = if match?(["hot_patch", _ | _], parts), do: tl(parts), else: parts

    case parts do
      [one] -> layers.of[one]
      ["mix" | _] -> layers.of["mix/"]
      [folder | _] -> layers.of[folder <> "/"] || layers.of[folder]
    end
  end

  test "every file has a layer", %{layers: layers, arrows: arrows} do
    files = Enum.uniq(for {from, to} <- arrows, file <- [from, to], do: file)
    assert for(file <- files, layer(file, layers) == nil, do: file) == []
    # The table is read, not skipped.
    assert map_size(layers.uses) > 10
  end

  test "arrows go where the table allows it", %{layers: layers, arrows: arrows} do
    wrong =
      for {from, to} <- arrows,
          not is_map_key(@allowed, {from, to}),
          upper = layer(from, layers),
          lower = layer(to, layers),
          lower not in layers.uses[upper],
          do: "#{from} (#{upper}) uses #{to} (#{lower})"

    assert Enum.sort(wrong) == []
  end

  test "layers have no circles", %{layers: layers} do
    graph = :digraph.new()
    for layer <- Map.keys(layers.uses), do: :digraph.add_vertex(graph, layer)

    for {layer, uses} <- layers.uses,
        use <- uses,
        use != layer,
        do: :digraph.add_edge(graph, layer, use)

    assert :digraph_utils.is_acyclic(graph)
  end

  test "files name each other in circles only where it is said why", %{arrows: arrows} do
    graph = :digraph.new()
    for {from, to} <- arrows, file <- [from, to], do: :digraph.add_vertex(graph, file)

    for {from, to} <- arrows,
        not is_map_key(@allowed, {from, to}),
        do: :digraph.add_edge(graph, from, to)

    circles =
      for circle <- :digraph_utils.strong_components(graph),
          length(circle) > 1,
          do: Enum.sort(circle)

    assert Enum.sort(circles) == Enum.sort(@circles)
  end
end
