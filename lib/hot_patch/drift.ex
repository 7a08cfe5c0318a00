defmodule HotPatch.Drift do
  @moduledoc """
  A module that does not run on a node as it should, as `HotPatch.drift/1` gives it.

    * `:node`, `:module`
    * `:from` - what it differs from: `:disk` (its file) or `:nodes` (most of the other nodes of the
      same release)
    * `:running`, `:expected` - MD5 of the code, in hex; `nil` where there is none
    * `:cause` - in words, as far as it is known
  """

  alias HotPatch.Support.Table

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
    HotPatch.Support.Printable.line(
      "#{drift.module} on #{drift.node}: runs another version than #{differs(drift.from)}; #{drift.cause}"
    )
  end

  @doc """
  Findings as a table: modules of which the same is to be said on the same nodes take one row.
  """
  @spec to_table([t()]) :: iodata()
  def to_table([]), do: "every module runs as it should\n"

  def to_table(drift) do
    rows =
      drift
      |> Enum.group_by(&{&1.module, &1.from, &1.cause}, & &1.node)
      |> Enum.group_by(
        fn {{_module, from, cause}, nodes} -> {from, cause, Enum.sort(nodes)} end,
        fn {{module, _from, _cause}, _nodes} -> String.replace_prefix(module, "Elixir.", "") end
      )
      |> Enum.sort()
      |> Enum.map(fn {{from, cause, nodes}, modules} ->
        nodes = nodes |> Enum.map(&Atom.to_string/1) |> Table.some()
        [named(Enum.sort(modules)), nodes, differs(from), cause]
      end)

    Table.render(["module", "nodes", "runs another version than", "cause"], rows)
  end

  defp named([module]), do: module
  defp named(modules), do: "#{length(modules)} modules: #{Table.some(modules)}"

  defp differs(:disk), do: "its file"
  defp differs(:nodes), do: "most other nodes"

  defimpl Inspect do
    def inspect(drift, _options), do: "#HotPatch.Drift<#{HotPatch.Drift.line(drift)}>"
  end

  defimpl String.Chars do
    def to_string(drift), do: HotPatch.Drift.line(drift)
  end
end
