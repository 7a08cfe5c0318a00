defmodule HotPatch.Console.Page.Entries do
  @moduledoc false
  # Entries of the journal as a table.

  use HotPatch.Console.Page.Template, [:entries]

  alias HotPatch.Console.HTML
  alias HotPatch.JournalEntry

  @doc "The table; `patch?` says whether it names the patches."
  @spec table(String.t(), [JournalEntry.t()], boolean()) :: HTML.safe()
  def table(base, list, patch?), do: entries(%{base: base, entries: list, patch?: patch?})

  @doc "Whether an entry's nodes have anything to tell."
  @spec more?(JournalEntry.t()) :: boolean()
  def more?(entry),
    do:
      entry.what in [:apply, :rollback, :failed] or
        Enum.any?(entry.nodes, &(&1[:error] || &1[:restart_needed]))
end
