defmodule HotPatch.Answers do
  @moduledoc """
  What all nodes were asked for, put together, and which of them have not said anything: the result of
  `HotPatch.list/0`, `HotPatch.journal/1`, `HotPatch.drift/1`, `HotPatch.stragglers/1` and `HotPatch.releases/1`.

    * `:of` - what was asked for: `:patches`, `:journal`, `:drift`, `:stragglers`, `:releases`
    * `:items` - what was found: a list of `HotPatch.Patch`, `HotPatch.JournalEntry`, `HotPatch.Drift`,
      `HotPatch.Straggler`, or `HotPatch.InstalledRelease`
    * `:nodes` - the nodes whose answers it is made of
    * `:failed` - nodes that are connected and gave no answer, each with its `:problem`
    * `:missing` - nodes that belong to the system and are away

  It can be enumerated, so that `for`, `Enum` and `Stream` see the items. Nothing found means that there is
  nothing only where `:failed` and `:missing` are empty: `complete?/1`.

      {:ok, drift} = HotPatch.drift()
      for one <- drift, do: one.module
      HotPatch.Answers.complete?(drift)
  """

  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @type failure :: %{node: node(), problem: String.t()}
  @type t(item) :: %__MODULE__{
          of: :patches | :journal | :drift | :stragglers | :releases,
          items: [item],
          nodes: [node()],
          failed: [failure()],
          missing: [node()]
        }
  @type t :: t(term())
  @enforce_keys [:of, :items]
  defstruct [:of, :items, nodes: [], failed: [], missing: []]

  @doc "Whether every node of the system has answered."
  @spec complete?(t()) :: boolean()
  def complete?(answers), do: answers.failed == [] and answers.missing == []

  @doc "Who has not answered, a line each."
  @spec lines(t()) :: [String.t()]
  def lines(%{failed: failed, missing: missing}) do
    for(
      %{node: node, problem: problem} <- failed,
      do: "#{node} #{problem}: what it has is not here"
    ) ++
      for node <- missing, do: "#{node} is away: what it has is not here"
  end

  @doc false
  @spec to_text(t()) :: iodata()
  def to_text(answers) do
    found =
      case answers.items do
        [] -> ["nothing, on #{Table.count(length(answers.nodes), "node", "nodes")}"]
        items -> Enum.map(items, &to_string/1)
      end

    Enum.intersperse(found ++ Enum.map(lines(answers), &Printable.line/1), "\n")
  end

  defimpl Inspect do
    import Inspect.Algebra

    def inspect(answers, options) do
      away =
        for line <- HotPatch.Answers.lines(answers),
            do: [", ", HotPatch.Support.Printable.line(line)]

      concat([
        "#HotPatch.Answers<#{answers.of} of #{HotPatch.Support.Table.count(length(answers.nodes), "node", "nodes")}: ",
        to_doc(answers.items, options),
        IO.iodata_to_binary(away),
        ">"
      ])
    end
  end

  defimpl String.Chars do
    def to_string(answers), do: answers |> HotPatch.Answers.to_text() |> IO.iodata_to_binary()
  end

  defimpl Enumerable do
    def count(answers), do: {:ok, length(answers.items)}
    def member?(answers, item), do: {:ok, item in answers.items}
    def slice(_answers), do: {:error, __MODULE__}
    def reduce(answers, acc, fun), do: Enumerable.List.reduce(answers.items, acc, fun)
  end
end
