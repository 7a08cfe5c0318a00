defmodule HotPatch.Rehearsal.NodeResult do
  @moduledoc """
  What a rehearsal has found on one node.

    * `:outcome` - as that of the whole, see `HotPatch.Rehearsal`
    * `:modules` - for each module with processes what was tried, see `HotPatch.Rehearsal.ModuleResult`
    * `:replays` - for each module what its messages have shown, with `replay: seconds`, see `HotPatch.Rehearsal.Replay`
    * `:suspended` - how many processes would pause
    * `:pause_us` - about how long, in microseconds: the longest that a process took until it got to its turn,
      and the conversions of all, spread over the schedulers
    * `:wait_us` - the first of these two
    * `:memory_bytes` - about how much the new states take while they stand beside those that there are
    * `:instructions` - what the manifest's instructions would have done, in order; nothing of it was done
    * `:late` - processes that did not get to their turn within `pause_timeout`, with what they were doing
    * `:uncertain` - processes of which it is not known whether they have a state that would have to change
    * `:refused` - why this node would refuse the patch as it is now
    * `:warnings` - what else should be known, in words
    * `:error` - why the node could not be asked, or `nil`
  """

  alias HotPatch.Rehearsal.ModuleResult
  alias HotPatch.Rehearsal.Outcome
  alias HotPatch.Rehearsal.Replay

  @type t :: %__MODULE__{
          node: node(),
          outcome: Outcome.t(),
          modules: [ModuleResult.t()],
          replays: [Replay.t()],
          suspended: non_neg_integer(),
          pause_us: non_neg_integer(),
          wait_us: non_neg_integer(),
          memory_bytes: non_neg_integer(),
          instructions: [String.t()],
          late: [String.t()],
          uncertain: [String.t()],
          refused: [String.t()],
          warnings: [String.t()],
          error: String.t() | nil
        }
  @enforce_keys [:node, :outcome]
  defstruct [
    :node,
    :outcome,
    :error,
    modules: [],
    replays: [],
    suspended: 0,
    pause_us: 0,
    wait_us: 0,
    memory_bytes: 0,
    instructions: [],
    late: [],
    uncertain: [],
    refused: [],
    warnings: []
  ]

  @doc "A node of which nothing is known, and why."
  @spec unknown(node(), String.t()) :: t()
  def unknown(node, text), do: %__MODULE__{node: node, outcome: :failed, error: text}

  @doc "The outcome that follows from what was found."
  @spec judged(t()) :: t()
  def judged(%__MODULE__{} = result) do
    own =
      cond do
        result.error != nil or result.refused != [] -> :failed
        result.late != [] or result.uncertain != [] -> :incomplete
        true -> :ok
      end

    outcomes =
      Enum.map(result.modules, &ModuleResult.outcome/1) ++
        Enum.map(result.replays, &Replay.outcome/1)

    %{result | outcome: Outcome.combine([own | outcomes])}
  end

  @doc "How many processes were tried."
  @spec tried(t()) :: non_neg_integer()
  def tried(result), do: result.modules |> Enum.map(& &1.tried) |> Enum.sum()

  @doc "What failed first; nil if nothing did."
  @spec failure(t()) :: String.t() | nil
  def failure(%__MODULE__{error: error}) when error != nil, do: error
  def failure(%__MODULE__{refused: [reason | _]}), do: reason

  def failure(%__MODULE__{modules: modules, replays: replays}) do
    unconverted =
      Enum.find_value(modules, fn %{module: module, failures: failures} ->
        with [first | _] <- failures,
             do: ModuleResult.failure_line(module, first),
             else: (_ -> nil)
      end)

    unconverted || Enum.find_value(replays, &Replay.failure/1)
  end

  @doc "What is to be said of it besides its figures."
  @spec notes(t()) :: [String.t()]
  def notes(result) do
    List.wrap(result.error) ++
      result.refused ++
      Enum.map(result.late, &("would be late: " <> &1)) ++
      Enum.map(result.instructions, &("would be done: " <> &1)) ++
      result.uncertain ++ result.warnings
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
