defmodule HotPatch.Plan.Risk do
  @moduledoc """
  Something that the operator should know before a patch is applied to a node, or taken back.
  `to_string/1` gives it as one line.

    * `:message` - what it is, as a whole sentence. On nodes on which the same holds it is the same, so
      that it can be said once of all of them
    * `:processes` - the processes of the node that it is about, as `inspect/1` shows their pids there, some with
      the registered name behind it. Of many they are the first; the message says how many there are. A message
      about places in which something is held names their processes itself
    * `:about` - the module that it is about, as in the plan's `:order`; `nil` where it is about none or
      several, or where the message alone names it
    * `:kind` - `:idle_conversion` where a `code_change` is called for no process, because none was found
      that works for its module; `:general` for all others
  """

  @type kind :: :general | :idle_conversion
  @type t :: %__MODULE__{
          message: String.t(),
          processes: [String.t()],
          about: String.t() | nil,
          kind: kind()
        }
  @enforce_keys [:message]
  defstruct [:message, :about, processes: [], kind: :general]

  # So many processes are named.
  @named 3

  @doc false
  @spec of(String.t() | t()) :: t()
  def of(%__MODULE__{} = risk), do: risk
  def of(message) when is_binary(message), do: %__MODULE__{message: message}

  @doc false
  @spec of(String.t(), module(), [pid()], pos_integer()) :: t()
  def of(message, module, pids, named \\ @named) do
    %__MODULE__{
      message: message,
      about: inspect(module),
      processes: pids |> Enum.take(named) |> Enum.map(&inspect/1)
    }
  end

  @doc "The risk in one line, with the processes that it names."
  @spec line(t()) :: String.t()
  def line(%__MODULE__{message: message, processes: processes}) do
    named = if processes == [], do: "", else: " (#{Enum.join(processes, ", ")})"
    HotPatch.Support.Printable.line(message <> named)
  end

  defimpl Inspect do
    def inspect(risk, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Plan.Risk<#{risk.kind} #{HotPatch.Plan.Risk.line(risk)}>"
      )
    end
  end

  defimpl String.Chars do
    def to_string(risk), do: HotPatch.Plan.Risk.line(risk)
  end
end
