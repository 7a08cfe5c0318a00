defmodule HotPatch.Console.Page.Pictures do
  @moduledoc false
  # What people would rather look at than read, as SVG within the page: what the time of a pause went into, and
  # which modules of a patch call which. Colours come from the style; nothing here needs a script.

  alias HotPatch.Composition
  alias HotPatch.Console.HTML
  alias HotPatch.Console.View
  alias HotPatch.Plan
  alias HotPatch.Report
  alias HotPatch.Report.Phase
  alias HotPatch.Support.Table

  @phases [:suspend, :convert, :load, :resume]

  # Of the picture, in its own units.
  @width 720
  @row 24
  @label 200

  # Nodes and modules that a picture has room for.
  @most_nodes 50
  @most_modules 80

  @doc "What the time on each node went into, those that took longest first; nil where nobody changed anything."
  @spec timeline(Report.t()) :: HTML.safe() | nil
  def timeline(%Report{nodes: nodes}) do
    changed = for %{phases: [_ | _]} = node <- nodes, do: node
    {shown, more} = changed |> Enum.sort_by(&(-Phase.last(&1.phases))) |> Enum.split(@most_nodes)
    if shown != [], do: {:safe, timeline(shown, length(more))}
  end

  # Each begins at its own first suspend: clocks of nodes differ by more than a pause takes.
  defp timeline(shown, more) do
    longest = shown |> hd() |> Map.fetch!(:phases) |> Phase.last() |> max(1)
    height = @row * (length(shown) + 1)
    rows = for {node, row} <- Enum.with_index(shown), do: row(node, row * @row, longest)

    [
      ~s(<svg class="timeline" role="img" aria-label="What the pause went into" viewBox="0 0 #{@width} #{height}">),
      rows,
      text(@label, height - 7, "axis", "0"),
      text(@width, height - 7, "axis end", Table.milliseconds(longest)),
      "</svg><p class=\"keys\">",
      for(phase <- @phases, do: ~s(<span class="key ph-#{phase}">#{phase}</span> )),
      ~s(<span class="key ph-waits">waits for the other nodes, or for the decision</span></p>),
      if(more > 0, do: "<p class=\"meta\">and #{more} more nodes, which took less</p>", else: [])
    ]
  end

  defp row(%{node: node, phases: phases}, y, longest) do
    name = Atom.to_string(node)

    [
      text(0, y + 16, "name", shortened(name, 25), name),
      rect({0, Phase.last(phases)}, y, longest, "ph-waits", "waits"),
      for phase <- phases do
        took = Table.milliseconds(phase.until_us - phase.from_us)
        failed = if phase.error, do: ", failed", else: ""

        rect(
          {phase.from_us, phase.until_us},
          y,
          longest,
          "ph-#{phase.phase}",
          "#{phase.phase}: #{took}#{failed}"
        )
      end
    ]
  end

  # Wide enough to be seen.
  defp rect({from, until}, y, longest, class, title) do
    scale = (@width - @label) / longest
    x = @label + from * scale
    width = max((until - from) * scale, 1.0)

    ~s(<rect class="#{class}" x="#{number(x)}" y="#{y + 4}" width="#{number(width)}" height="#{@row - 8}">) <>
      "<title>#{title}</title></rect>"
  end

  @doc """
  Which modules of a patch call which, in load order from above: an arc for each call, thick and of another colour where
  it leads to a module that comes later, which is so within a circle. Nil of a single module, and where nothing is known.
  """
  @spec calls(Plan.t(), Composition.t()) :: HTML.safe() | nil
  def calls(%Plan{nodes: nodes}, %Composition{files: files}) do
    order = nodes |> Enum.map(&names/1) |> Enum.max_by(&length/1, fn -> [] end)
    {shown, more} = Enum.split(order, @most_modules)
    places = shown |> Enum.with_index() |> Map.new()

    arcs =
      for %{beam: %{module: from, imports: imports}} <- files,
          is_map_key(places, from),
          {to, _function, _arity} <- imports,
          is_map_key(places, to) and to != from,
          uniq: true,
          do: {places[from], places[to]}

    if length(shown) > 1,
      do: {:safe, graph(shown, arcs, circles(nodes, places), length(more))}
  end

  defp names(%{order: order}) do
    for {_change, module} <- order, do: name(module)
  end

  # As files name it: a plan shows modules as their authors write them.
  defp name(":\"" <> quoted), do: String.trim_trailing(quoted, "\"")
  defp name(":" <> erlang), do: erlang
  defp name(elixir), do: "Elixir." <> elixir

  defp circles(nodes, places) do
    for %{analysis: %{order: groups}} <- Enum.take(nodes, 1),
        [_, _ | _] = circle <- groups,
        known = for(name <- circle, place = places[name], do: place),
        known != [],
        do: Enum.min_max(known)
  end

  defp graph(names, arcs, circles, more) do
    height = @row * length(names)
    from = @width - 330

    [
      ~s(<svg class="calls" role="img" aria-label="Which modules call which" viewBox="0 0 #{@width} #{height}">),
      for {first, last} <- circles do
        ~s(<rect class="circle" x="1" y="#{first * @row + 1}" width="#{from + 6}" height="#{(last - first + 1) * @row - 2}" rx="6">) <>
          "<title>they call each other in a circle</title></rect>"
      end,
      for {name, place} <- Enum.with_index(names) do
        shown = "#{place + 1}. #{View.module_name(name)}"
        text(from, place * @row + 16, "name end", shortened(shown, 52), name)
      end,
      # What stands out is drawn over the others.
      for {caller, callee} <- Enum.sort_by(arcs, fn {caller, callee} -> callee > caller end) do
        arc(names, caller, callee, from + 10)
      end,
      "</svg>",
      if(more > 0, do: "<p class=\"meta\">and #{more} more modules</p>", else: [])
    ]
  end

  defp arc(names, caller, callee, x) do
    [y1, y2] = for place <- [caller, callee], do: place * @row + 12
    reach = min(24 + abs(caller - callee) * 14, 300)
    class = if callee > caller, do: "later", else: "before"
    said = "#{Enum.at(names, caller)} calls #{Enum.at(names, callee)}"

    [
      ~s(<path class="#{class}" d="M#{x} #{y1} C#{x + reach} #{y1} #{x + reach} #{y2} #{x} #{y2}">),
      "<title>",
      HTML.escape(said),
      "</title></path>",
      ~s(<circle class="#{class}" cx="#{x}" cy="#{y2}" r="2.5"/>)
    ]
  end

  defp text(x, y, class, shown, whole \\ nil) do
    [
      ~s(<text class="#{class}" x="#{x}" y="#{y}">),
      HTML.escape(shown),
      if(whole && whole != shown, do: ["<title>", HTML.escape(whole), "</title>"], else: []),
      "</text>"
    ]
  end

  defp shortened(text, most) do
    if String.length(text) > most,
      do: "…" <> String.slice(text, -(most - 1), most - 1),
      else: text
  end

  defp number(float), do: :erlang.float_to_binary(float / 1, decimals: 1)
end
