defmodule HotPatch.Analysis.Steps do
  @moduledoc """
  Whether a change is better made in two steps: first the functions that take both the former and the new states, then
  the processes that hand these to them.

  On one node that is not needed: all modules become current at one instant, with the states. It is where nodes
  of the old and of the new code meet, as with a canary, and call each other.

    * `:first` - names of the modules that can come first; none where one step is enough, or there is no other way
    * `:why` - which function of the processes makes it so, and whom it calls: pairs, as `"Mod.fun/1"`
    * `:across` - functions of the change that call other nodes, as far as that shows
    * `:tied` - modules that would have to come first and call the processes' new code themselves, so that they cannot
  """

  @type t :: %__MODULE__{
          first: [String.t()],
          why: [{caller :: String.t(), called :: String.t()}],
          across: [String.t()],
          tied: [String.t()]
        }
  defstruct first: [], why: [], across: [], tied: []

  @doc false
  @spec vocabulary() :: [atom()]
  def vocabulary, do: [:first, :why, :across, :tied]

  @doc "Why one step is enough, or has to be; `nil` where two are possible."
  @spec one(t()) :: String.t() | nil
  def one(%__MODULE__{first: [], tied: []}),
    do: "no process whose state changes calls a function of another module that changes with it"

  def one(%__MODULE__{first: [], tied: tied}) do
    "#{Enum.map_join(tied, ", ", &short/1)} would have to come first, and the new code of the processes is called from there: " <>
      "both have to become current at once"
  end

  def one(_steps), do: nil

  @doc "Why two steps, a line for each reason."
  @spec lines(t()) :: [String.t()]
  def lines(%__MODULE__{first: []}), do: []

  def lines(steps) do
    ["first #{Enum.map_join(steps.first, ", ", &short/1)}, then the rest:"] ++
      for(
        {caller, called} <- steps.why,
        do: "  #{caller}, whose processes get another state, calls #{called}, which changes"
      ) ++
      for function <- steps.across, do: "  #{function} calls other nodes"
  end

  defp short(module), do: String.replace_prefix(module, "Elixir.", "")

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
