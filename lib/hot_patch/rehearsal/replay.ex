defmodule HotPatch.Rehearsal.Replay do
  @moduledoc """
  What a replay has found for the processes of one module, on one node: messages that they really got were run by
  the old and the new code, on copies of their states.

    * `:module` - the module
    * `:processes` - how many processes were heard. If none of them got a message nothing is known (`:incomplete`)
    * `:messages` - how many messages were run by both to the end, or to a crash of the new code
    * `:same` - in how many of these both did the same
    * `:crashes` - where only the new code crashed, alike ones together: `message` (its form), `reason`, `place`, `stack`, `count`,
      and `values`
    * `:differences` - where both came to their end, and did something else: `what` (`:reply`; `:sent`, what others would have been
      sent; `:state`, how the state changes its form; `:next`, what the process would do then; `:result`, the old code
      crashed), the `message`'s form, `from`, `to`, `count`, and `values`
    * `:left_aside` - messages of which it is not known: `why`, `text`, `count`
    * `:unheard` - processes that could not be heard: `why`, `text`, `count`

  `values` are the first few, as texts, and only with `show: :values`; else the list is empty.
  """

  alias HotPatch.Rehearsal.Outcome
  alias HotPatch.Support.Table

  @type values :: %{message: String.t(), from: String.t(), to: String.t()}
  @type crash :: %{
          message: String.t(),
          reason: String.t(),
          place: String.t() | nil,
          stack: [String.t()],
          count: pos_integer(),
          values: [values()]
        }
  @type difference :: %{
          what: :reply | :sent | :state | :next | :result,
          message: String.t(),
          from: String.t(),
          to: String.t(),
          count: pos_integer(),
          values: [values()]
        }
  @type left :: %{why: atom(), text: String.t(), count: pos_integer()}
  @type t :: %__MODULE__{
          module: String.t(),
          processes: non_neg_integer(),
          messages: non_neg_integer(),
          same: non_neg_integer(),
          crashes: [crash()],
          differences: [difference()],
          left_aside: [left()],
          unheard: [left()]
        }
  @enforce_keys [:module]
  defstruct [
    :module,
    processes: 0,
    messages: 0,
    same: 0,
    crashes: [],
    differences: [],
    left_aside: [],
    unheard: []
  ]

  @doc """
  What it means: a crash is a failure, a difference may be what was wanted. Where no message came nothing is known.

      iex> HotPatch.Rehearsal.Replay.outcome(%HotPatch.Rehearsal.Replay{module: "Shop", processes: 1})
      :incomplete
      iex> HotPatch.Rehearsal.Replay.outcome(%HotPatch.Rehearsal.Replay{module: "Shop", processes: 1, messages: 1, same: 1})
      :ok
  """
  @spec outcome(t()) :: Outcome.t()
  def outcome(%__MODULE__{crashes: [_ | _]}), do: :failed
  def outcome(%__MODULE__{messages: 0, processes: heard}) when heard > 0, do: :incomplete
  def outcome(%__MODULE__{left_aside: [], unheard: []}), do: :ok
  def outcome(%__MODULE__{}), do: :incomplete

  @doc "The first crash in a sentence; nil if there was none."
  @spec failure(t()) :: String.t() | nil
  def failure(%__MODULE__{crashes: []}), do: nil

  def failure(%__MODULE__{crashes: [crash | _]} = replay) do
    place = if crash.place, do: " in #{crash.place}", else: ""

    "the new code of #{replay.module} crashed at #{crash.count} of " <>
      "#{Table.count(replay.messages, "message", "messages")} that were played: #{crash.message}: #{crash.reason}#{place}"
  end

  @doc "How many messages both have taken to their end, and not alike."
  @spec different(t()) :: non_neg_integer()
  def different(replay), do: replay.messages - replay.same - counted(replay.crashes)

  @doc "How many messages were left aside."
  @spec left(t()) :: non_neg_integer()
  def left(replay), do: counted(replay.left_aside)

  @whats %{
    reply: "reply",
    sent: "would send",
    state: "form of the state",
    next: "then",
    result: "outcome"
  }

  @doc "What differs, in a word or two."
  @spec what(difference()) :: String.t()
  def what(difference), do: Map.fetch!(@whats, difference.what)

  @doc "From what to what, in a few words."
  @spec change(difference()) :: String.t()
  def change(%{from: same, to: same}), do: "another #{same}"
  def change(difference), do: "#{difference.from} -> #{difference.to}"

  @doc "What is to be said of it besides its figures."
  @spec notes(t()) :: [String.t()]
  def notes(replay) do
    silent(replay) ++
      for(
        left <- replay.left_aside,
        do:
          "#{replay.module}: #{Table.count(left.count, "message", "messages")} left aside: #{left.text}"
      ) ++
      for(
        left <- replay.unheard,
        do:
          "#{replay.module}: #{Table.count(left.count, "process", "processes")} not heard: #{left.text}"
      )
  end

  defp silent(%{messages: 0, left_aside: [], processes: heard} = replay) when heard > 0,
    do: [
      "#{replay.module}: no message came to those that were heard: nothing is known of what it does with any"
    ]

  defp silent(_replay), do: []

  @doc false
  # What several nodes have of a module, as the last cells of a row.
  @spec cells([{node(), t()}]) :: [String.t()]
  def cells(found) do
    sum = fn fun ->
      "#{found |> Enum.map(fn {_node, replay} -> fun.(replay) end) |> Enum.sum()}"
    end

    counts = fn field -> fn replay -> replay |> Map.fetch!(field) |> counted() end end

    [
      sum.(& &1.processes),
      sum.(& &1.messages),
      sum.(& &1.same),
      sum.(counts.(:crashes)),
      sum.(counts.(:differences)),
      sum.(&left/1)
    ]
  end

  defp counted(kinds), do: kinds |> Enum.map(& &1.count) |> Enum.sum()

  @doc false
  # What several nodes have found, alike ones as one.
  @spec together([{node(), t()}], :crashes | :differences) :: [crash()] | [difference()]
  def together(found, field) do
    for({_node, replay} <- found, one <- Map.fetch!(replay, field), do: one)
    |> Enum.group_by(&Map.drop(&1, [:count, :values]))
    |> Enum.map(fn {kind, ones} ->
      Map.merge(kind, %{
        count: counted(ones),
        values: ones |> Enum.flat_map(& &1.values) |> Enum.take(3)
      })
    end)
    |> Enum.sort_by(&{-&1.count, &1.message})
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
