defmodule HotPatch.Support.Table do
  @moduledoc false
  # Plain text tables for terminals, at most 100 columns wide. The last column is the
  # one that may be long: it is folded on spaces, never cut, because it holds reasons.

  @width 100
  @gap "  "

  alias HotPatch.Support.Printable

  @doc "Renders rows under a header; every cell is text, and of one line."
  @spec render([String.t()], [[String.t()]]) :: iodata()
  def render(header, rows) do
    rows = for row <- rows, do: Enum.map(row, &Printable.line/1)
    widths = widths([header | rows])
    rule = Enum.map(widths, &String.duplicate("-", &1))

    for row <- [header, rule | rows], do: line(row, widths)
  end

  @doc "Bytes as a person reads them."
  @spec bytes(non_neg_integer()) :: String.t()
  def bytes(size) when size < 1024, do: "#{size} B"
  def bytes(size) when size < 1024 * 1024, do: "#{Float.round(size / 1024, 1)} kB"
  def bytes(size), do: "#{Float.round(size / 1024 / 1024, 1)} MB"

  @doc "Microseconds as milliseconds."
  @spec milliseconds(non_neg_integer() | nil) :: String.t()
  def milliseconds(nil), do: "-"
  def milliseconds(us), do: "#{:erlang.float_to_binary(us / 1000, decimals: 1)} ms"

  @doc "A count and its noun, in the plural where it belongs."
  @spec count(non_neg_integer(), String.t(), String.t()) :: String.t()
  def count(1, one, _many), do: "1 #{one}"
  def count(number, _one, many), do: "#{number} #{many}"

  @doc "How many nodes, and of how many where some of the system are away."
  @spec nodes_of(%{:nodes => list(), :missing => list(), optional(atom()) => term()}) ::
          String.t()
  def nodes_of(%{nodes: nodes, missing: []}), do: count(length(nodes), "node", "nodes")

  def nodes_of(%{nodes: nodes, missing: missing}) do
    here = length(nodes)
    "#{here} of #{count(here + length(missing), "node", "nodes")}"
  end

  @doc """
  Some of many, and how many there are more.

      iex> HotPatch.Support.Table.some(["a", "b", "c", "d"], 3)
      "a, b, c and 1 more"
  """
  @spec some([String.t() | node()], pos_integer()) :: String.t()
  def some(names, most \\ 3) do
    {named, more} = Enum.split(names, most)
    Enum.join(named, ", ") <> if(more == [], do: "", else: " and #{length(more)} more")
  end

  @doc """
  What several nodes say, each thing once, in the order in which it comes first.

      iex> HotPatch.Support.Table.each_once([a: "is away", b: "is full", c: "is away"])
      [{[:a, :c], "is away"}, {[:b], "is full"}]
  """
  @spec each_once([{node(), String.t()}]) :: [{[node()], String.t()}]
  def each_once(said) do
    by_text = Enum.group_by(said, &elem(&1, 1), &elem(&1, 0))
    for {_node, text} <- Enum.uniq_by(said, &elem(&1, 1)), do: {Map.fetch!(by_text, text), text}
  end

  @doc """
  Nodes in a sentence: of many their number and some of their names.

      iex> HotPatch.Support.Table.named([:a, :b, :c, :d, :e])
      "5 nodes (a, b, c and 2 more)"
  """
  @spec named([node()]) :: String.t()
  def named([_, _, _, _ | _] = nodes), do: "#{length(nodes)} nodes (#{some(nodes)})"
  def named(nodes), do: Enum.join(nodes, ", ")

  @doc """
  What is wrong with nodes, each thing once: clauses of which the nodes are the subject.

      iex> HotPatch.Support.Table.problems([%{node: :a, problem: "is away"}, %{node: :b, problem: "is away"}])
      "each of a, b is away"
  """
  @spec problems([%{:node => node(), :problem => String.t(), optional(atom()) => term()}]) ::
          String.t()
  def problems(nodes) do
    nodes
    |> Enum.map(&{&1.node, &1.problem})
    |> each_once()
    |> Enum.map_join("; ", fn
      {[node], problem} -> "#{node} #{problem}"
      {nodes, problem} -> "each of #{named(nodes)} #{problem}"
    end)
  end

  @doc "Names a few nodes, or says that it is all of them."
  @spec nodes([node()], pos_integer()) :: String.t()
  def nodes(nodes, total) when length(nodes) == total, do: "all"
  def nodes(nodes, _total), do: nodes |> Enum.sort() |> Enum.join(", ")

  @doc "A list of remarks about nodes, each once."
  @spec notes([{node(), String.t()}], pos_integer()) :: iodata()
  def notes([], _total), do: []

  def notes(notes, total) do
    rows =
      notes
      |> Enum.group_by(&elem(&1, 1), &elem(&1, 0))
      |> Enum.sort()
      |> Enum.map(fn {text, nodes} -> [nodes(nodes, total), text] end)

    ["\n", render(["nodes", "note"], rows)]
  end

  # Columns take what they need; what is too much is taken from the last one, and what is
  # still too much from the widest of the others.
  defp widths(rows) do
    natural =
      rows
      |> Enum.zip_with(fn cells -> cells |> Enum.map(&String.length/1) |> Enum.max() end)

    shrink(natural, Enum.sum(natural) + String.length(@gap) * (length(natural) - 1) - @width)
  end

  defp shrink(widths, excess) when excess <= 0, do: widths

  defp shrink(widths, excess) do
    widest = Enum.max(widths)
    index = length(widths) - 1 - Enum.find_index(Enum.reverse(widths), &(&1 == widest))
    # One column at a time down to the next widest keeps all of them readable.
    next = widths |> List.delete_at(index) |> Enum.max(fn -> 0 end)
    cut = excess |> min(max(widest - next, 1)) |> max(1)
    shrink(List.replace_at(widths, index, widest - cut), excess - cut)
  end

  defp line(cells, widths) do
    folded = Enum.zip_with([cells, widths], fn [cell, width] -> fold(cell, width) end)
    height = folded |> Enum.map(&length/1) |> Enum.max()

    for row <- 0..(height - 1) do
      text =
        folded
        |> Enum.zip_with(widths, fn lines, width ->
          lines |> Enum.at(row, "") |> String.pad_trailing(width)
        end)
        |> Enum.join(@gap)

      [String.trim_trailing(text), "\n"]
    end
  end

  defp fold(text, width) do
    text
    |> String.split(" ")
    |> Enum.flat_map(&pieces(&1, width))
    |> Enum.reduce([], fn
      word, [] ->
        [word]

      word, [line | rest] ->
        if String.length(line) + 1 + String.length(word) <= width,
          do: [line <> " " <> word | rest],
          else: [word, line | rest]
    end)
    |> Enum.reverse()
  end

  # A word longer than its column (a path, a pid list) is broken, not cut.
  defp pieces(word, width) do
    case String.split_at(word, width) do
      {all, ""} -> [all]
      {head, tail} -> [head | pieces(tail, width)]
    end
  end
end
