defmodule HotPatch.Drift do
  @moduledoc """
  A module that does not run on a node as it should, as `HotPatch.drift/1` gives it.

    * `:node`, `:module`
    * `:from` - what it differs from: `:disk` (its file) or `:nodes` (most of the other nodes of the
      same release)
    * `:running`, `:expected` - MD5 of the code, in hex; `nil` where there is none
    * `:cause` - in words, as far as it is known
  """

  @type t :: %__MODULE__{
          node: node(),
          module: String.t(),
          from: :disk | :nodes,
          running: String.t() | nil,
          expected: String.t() | nil,
          cause: String.t()
        }
  @enforce_keys [:node, :module, :from, :running, :expected, :cause]
  defstruct [:node, :module, :from, :running, :expected, :cause]

  @doc "The finding in one line."
  @spec line(t()) :: String.t()
  def line(drift) do
    what = if drift.from == :disk, do: "its file", else: "most other nodes"

    HotPatch.Printable.line(
      "#{drift.module} on #{drift.node}: runs another version than #{what}; #{drift.cause}"
    )
  end

  defimpl Inspect do
    def inspect(drift, _options), do: "#HotPatch.Drift<#{HotPatch.Drift.line(drift)}>"
  end

  defimpl String.Chars do
    def to_string(drift), do: HotPatch.Drift.line(drift)
  end
end
