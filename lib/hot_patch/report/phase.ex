defmodule HotPatch.Report.Phase do
  @moduledoc """
  A part of the time in which a node changed its memory.

    * `:phase` - `:suspend` (processes come to stand still, and most convert their states in the same turn), `:convert`,
      `:load` or `:resume`; one may come several times, see `HotPatch.Telemetry`
    * `:from_us`, `:until_us` - microseconds since the first of them began
    * `:error` - why it failed, or `nil`

  Between two of them the node waits: for the other nodes, or for the decision.
  """

  alias HotPatch.Support.Table

  @type t :: %__MODULE__{
          phase: :suspend | :convert | :load | :resume,
          from_us: non_neg_integer(),
          until_us: non_neg_integer(),
          error: String.t() | nil
        }
  @enforce_keys [:phase, :from_us, :until_us]
  defstruct [:phase, :from_us, :until_us, :error]

  # Columns of a line of bars.
  @columns 60

  @signs %{suspend: ?s, convert: ?c, load: ?l, resume: ?r}

  @doc false
  # From native monotonic times.
  @spec of([map()]) :: [t()]
  def of([]), do: []

  def of(noted) do
    began = noted |> Enum.map(& &1.started) |> Enum.min()
    us = &System.convert_time_unit(&1 - began, :native, :microsecond)

    for one <- noted do
      %__MODULE__{
        phase: one.phase,
        from_us: us.(one.started),
        until_us: us.(one.ended),
        error: one.error
      }
    end
    |> Enum.sort_by(& &1.from_us)
  end

  @doc """
  Phases as a line of bars, each column the one that takes most of it: `s`uspend, `c`onvert, `l`oad, `r`esume,
  and a dot where the node waits. One that is too short for a column is left out.

      iex> alias HotPatch.Report.Phase
      iex> phases = [%Phase{phase: :suspend, from_us: 0, until_us: 40}, %Phase{phase: :resume, from_us: 50, until_us: 60}]
      iex> Phase.bar(phases, 240)
      "ssssssssss..rrr"
  """
  @spec bar([t()], pos_integer()) :: String.t()
  def bar(phases, longest_us) do
    columns = max(1, round(@columns * last(phases) / max(longest_us, 1)))
    for(column <- 0..(columns - 1), do: sign(phases, column, longest_us)) |> List.to_string()
  end

  defp sign(phases, column, longest_us) do
    from = column * longest_us / @columns
    until = (column + 1) * longest_us / @columns

    phases
    |> Enum.map(&{min(&1.until_us, until) - max(&1.from_us, from), &1.phase})
    |> Enum.max_by(&elem(&1, 0))
    |> case do
      {share, phase} when share > 0 -> Map.fetch!(@signs, phase)
      _waits -> ?.
    end
  end

  @doc "When the last of them ended."
  @spec last([t()]) :: non_neg_integer()
  def last(phases), do: phases |> Enum.map(& &1.until_us) |> Enum.max(fn -> 0 end)

  @doc """
  How long each took in all, in words.

      iex> alias HotPatch.Report.Phase
      iex> Phase.words([%Phase{phase: :load, from_us: 0, until_us: 1_500}])
      "load 1.5 ms"
  """
  @spec words([t()]) :: String.t()
  def words(phases) do
    for name <- [:suspend, :convert, :load, :resume],
        some = Enum.filter(phases, &(&1.phase == name)),
        some != [] do
      us = some |> Enum.map(&(&1.until_us - &1.from_us)) |> Enum.sum()
      "#{name} #{Table.milliseconds(us)}"
    end
    |> Enum.join(", ")
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
