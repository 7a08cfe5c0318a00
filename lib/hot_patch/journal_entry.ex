defmodule HotPatch.JournalEntry do
  @moduledoc """
  Something that was done, as `HotPatch.journal/1` gives it: one entry for an operation, with
  how it ended on each node.

    * `:at` - when it began to be noted, UTC
    * `:what` - `:apply`, `:rollback`, `:failed` (an operation that was taken back), `:refused`,
      `:upload`, `:delete`, `:restart` (of a node), `:retire`, `:attach`, `:detach`, `:dismiss`, `:cancel`, `:rehearse`, `:put_again` (files on a
      fresh disk), `:put_back` (files of patches that ended), `:drift`, `:journal_damaged`
    * `:operation` - what was tried, where it was refused or failed
    * `:patch` - its id
    * `:by`, `:reason`, `:from` - who, why, and from which address, where that is known
    * `:signed_by` - the key by which the patch is signed
    * `:overridden` - where options were given in place of what the patch's manifest says
    * `:accepted` - what the author of the patch accepted of what was found in it, as
      `"on_load:MyApp.Foo"`
    * `:coordinator` - the node where the call ran
    * `:missing` - nodes that belonged to the system and were away
    * `:release` - of the cluster at that time
    * `:again?` - whether it was told to bring back a patch that another had taken the place of
    * `:disk` - `:memory_only` where no file of the system was touched, else `:replace`
    * `:forced?` - whether processes were killed for it
    * `:status` - integral over the nodes
    * `:outcome` - what became of what was cancelled, as in `HotPatch.Cancellation`; of a rehearsal, as in
      `HotPatch.Rehearsal`
    * `:nodes` - for each: `node`, `at`, `status`, `files` (how many of each status), `pause_us`,
      `suspended`, `killed`, `stragglers`, `restart_needed`, `error`
  """

  alias HotPatch.Manifest
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @type on_node :: %{
          required(:node) => node(),
          required(:at) => DateTime.t(),
          optional(atom()) => term()
        }
  @type t :: %__MODULE__{
          at: DateTime.t(),
          what: atom(),
          operation: atom() | nil,
          patch: String.t() | nil,
          by: String.t() | nil,
          reason: String.t() | nil,
          from: String.t() | nil,
          signed_by: String.t() | nil,
          overridden: Manifest.overridden(),
          accepted: [String.t()],
          coordinator: node() | nil,
          missing: [node()],
          release: HotPatch.Release.t() | nil,
          again?: boolean(),
          disk: :replace | :memory_only,
          forced?: boolean(),
          status: HotPatch.Status.t() | nil,
          outcome: atom() | nil,
          nodes: [on_node()]
        }
  @enforce_keys [:at, :what]
  defstruct [
    :at,
    :what,
    :operation,
    :patch,
    :by,
    :reason,
    :from,
    :signed_by,
    :coordinator,
    :release,
    :status,
    :outcome,
    again?: false,
    disk: :replace,
    forced?: false,
    overridden: %{},
    accepted: [],
    missing: [],
    nodes: []
  ]

  @doc "The entry in one line."
  @spec line(t()) :: String.t()
  def line(entry) do
    [
      Calendar.strftime(entry.at, "%Y-%m-%d %H:%M:%S UTC"),
      " #{String.replace("#{entry.what}", "_", " ")}",
      if(entry.operation && entry.operation != entry.what, do: " #{entry.operation}", else: ""),
      if(entry.patch, do: " of #{entry.patch}", else: ""),
      if(entry.by, do: " by #{entry.by}", else: ""),
      if(entry.from, do: " from #{entry.from}", else: ""),
      if(entry.status, do: ": #{entry.status}", else: ""),
      if(entry.outcome, do: ": #{String.replace("#{entry.outcome}", "_", " ")}", else: ""),
      " on #{where(entry.nodes)}",
      if(entry.missing == [], do: "", else: ", #{Enum.join(entry.missing, ", ")} away"),
      if(entry.disk == :memory_only, do: ", in memory only", else: ""),
      if(entry.forced?, do: ", by force", else: ""),
      if(entry.again?,
        do: ", again: an older patch in the place of a newer one was allowed",
        else: ""
      ),
      if(entry.signed_by, do: ", signed by #{entry.signed_by}", else: ""),
      if(entry.overridden == %{}, do: "", else: ", #{Manifest.overridden_line(entry.overridden)}"),
      if(entry.accepted == [], do: "", else: ", accepted #{Enum.join(entry.accepted, ", ")}"),
      if(entry.reason, do: " (#{entry.reason})", else: "")
    ]
    |> Printable.line()
  end

  defp where([%{node: node}]), do: "#{node}"
  defp where(nodes), do: Table.count(length(nodes), "node", "nodes")

  defimpl Inspect do
    def inspect(entry, _options),
      do: "#HotPatch.JournalEntry<#{HotPatch.JournalEntry.line(entry)}>"
  end

  defimpl String.Chars do
    def to_string(entry), do: HotPatch.JournalEntry.line(entry)
  end
end
