defmodule HotPatch.Rehearsal.ModuleResult do
  @moduledoc """
  What a rehearsal has found for the processes of one module, on one node.

    * `:module`, `:kind` - the module, and what its processes are (`:server`, `:statem`, `:event`, `:supervisor`,
      `:special`, `:hosted`, `:wrapper`, `:foreign`)
    * `:processes` - how many there are; an event manager counts for each of its handlers' modules
    * `:tried` - for how many the callback was called to its end, or its failure
    * `:forms` - how states change their form, and how many do so: `%{from: "{_, _, _}", to: "%{a, b}", count: 4}`
    * `:convert_us` - microseconds that all conversions took which were tried; `:longest_us` the longest of them
    * `:memory_bytes` - what the new states take that were made
    * `:failures` - alike ones together: `reason`, `place` (line and function, where it is known), `count`, and
      the first few `processes`
    * `:left_out` - those that could not be tried: `why` (an atom), `text`, `count`
  """

  alias HotPatch.Support.Table

  @typedoc """
    * `:effects` - the callback has effects, as far as the code shows
    * `:no_copy` - the module converts by itself, after the load: it cannot be tried beforehand
    * `:late` - the process did not get to its turn in time
    * `:too_large` - its state is larger than `max_state_bytes`
    * `:too_much_memory` - the conversion needs more memory than a rehearsal gives it
    * `:own_table` - it reads an ETS table that only the process itself may read
    * `:unasked` - a supervisor of a library: what its `init` is given is not known
    * `:out_of_time` - `timeout` was over, or the rehearsal was told to stop
    * `:gone` - the process ended meanwhile
    * `:works_for_another` - it turned out to work for another module
  """
  @type why ::
          :effects
          | :no_copy
          | :late
          | :too_large
          | :too_much_memory
          | :own_table
          | :unasked
          | :out_of_time
          | :gone
          | :works_for_another
  @type form :: %{from: String.t(), to: String.t(), count: pos_integer()}
  @type failure :: %{
          reason: String.t(),
          place: String.t() | nil,
          count: pos_integer(),
          processes: [String.t()]
        }
  @type left_out :: %{why: why(), text: String.t(), count: pos_integer()}
  @type t :: %__MODULE__{
          module: String.t(),
          kind: atom(),
          processes: non_neg_integer(),
          tried: non_neg_integer(),
          forms: [form()],
          convert_us: non_neg_integer(),
          longest_us: non_neg_integer(),
          memory_bytes: non_neg_integer(),
          failures: [failure()],
          left_out: [left_out()]
        }
  @enforce_keys [:module, :kind]
  defstruct [
    :module,
    :kind,
    processes: 0,
    tried: 0,
    forms: [],
    convert_us: 0,
    longest_us: 0,
    memory_bytes: 0,
    failures: [],
    left_out: []
  ]

  @texts %{
    effects: "their callback has effects, see below; effects: :run has it run",
    no_copy: "converts by itself, after the load: that cannot be tried beforehand",
    late: "did not get to their turn in time, see below",
    too_large: "have a state larger than max_state_bytes",
    too_much_memory: "need more memory to convert than a rehearsal gives",
    own_table: "read an ETS table that only they themselves may read",
    unasked: "are supervisors of a library, and what their init is given is not known",
    out_of_time: "were not got to within timeout",
    gone: "ended meanwhile",
    works_for_another: "turned out to work for another module"
  }

  @doc "What is said of those that could not be tried for a reason."
  @spec text(why()) :: String.t()
  def text(why), do: Map.fetch!(@texts, why)

  # What is no state that would have been converted.
  @nobody [:gone, :works_for_another]

  @doc "Whether all of it went well. That a process ends is no failure of anything."
  @spec outcome(t()) :: HotPatch.Rehearsal.Outcome.t()
  def outcome(%__MODULE__{failures: [_ | _]}), do: :failed

  def outcome(%__MODULE__{left_out: left_out}) do
    if Enum.all?(left_out, &(&1.why in @nobody)), do: :ok, else: :incomplete
  end

  @doc "A failure in a sentence."
  @spec failure_line(String.t(), failure()) :: String.t()
  def failure_line(module, failure) do
    place = if failure.place, do: " in #{failure.place}", else: ""

    "the new code of #{module} failed for #{Table.count(failure.count, "process", "processes")}: " <>
      "#{failure.reason}#{place}"
  end

  @doc "Those that could not be tried, in a sentence."
  @spec left_out_line(left_out()) :: String.t()
  def left_out_line(left),
    do: "#{Table.count(left.count, "process", "processes")} not tried: #{left.text}"

  @doc false
  # What several nodes have of a module, as the last cells of a row.
  @spec cells([t()]) :: [String.t()]
  def cells(modules) do
    sum = fn field -> modules |> Enum.map(&Map.fetch!(&1, field)) |> Enum.sum() end
    longest = modules |> Enum.map(& &1.longest_us) |> Enum.max()

    ["#{sum.(:processes)}", "#{sum.(:tried)}", Table.milliseconds(longest), forms(modules)]
  end

  defp forms(modules) do
    modules
    |> Enum.flat_map(& &1.forms)
    |> Enum.group_by(&{&1.from, &1.to}, & &1.count)
    |> Enum.sort()
    |> Enum.map_join("; ", fn
      {{same, same}, _counts} -> "#{same} as before"
      {{from, to}, _counts} -> "#{from} -> #{to}"
    end)
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
