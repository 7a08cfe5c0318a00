defmodule HotPatch.Agent.Verdict do
  @moduledoc false
  # What this node makes of one file of a patch: a status with its reason, and what there
  # is to do. `change` is `:replace` or `:add` for a module to load, `:delete` for one to take
  # out, `nil` otherwise; `direction` is `:down` where it is an older version that comes. `new?`
  # is a module that this node did not have, also when it is not to be loaded now. `alone?`: it
  # runs code when it is loaded, so it becomes current by a step of its own. `folders` were made
  # for a file that is to go. `disk?` is false where only memory is changed. `rights` are those that
  # the file had when it was taken away.

  alias HotPatch.Composition.Entry
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Store.Rights

  @type t :: %__MODULE__{
          entry: Entry.t(),
          status: Status.t(),
          reason: String.t() | nil,
          target: Path.t() | nil,
          folders: [Path.t()],
          change: :replace | :add | :delete | nil,
          direction: :up | :down,
          new?: boolean(),
          alone?: boolean(),
          disk?: boolean(),
          rights: Rights.t() | nil,
          transient?: boolean()
        }
  @enforce_keys [:entry, :status]
  defstruct [
    :entry,
    :status,
    :reason,
    :target,
    :change,
    :rights,
    folders: [],
    direction: :up,
    new?: false,
    alone?: false,
    disk?: true,
    transient?: false
  ]

  @doc "A verdict without anything to load."
  @spec new(Entry.t(), Status.t(), String.t() | nil, Path.t() | nil) :: t()
  def new(entry, status, reason \\ nil, target \\ nil) do
    %__MODULE__{entry: entry, status: status, reason: reason, target: target}
  end

  @doc "The same file with another status; nothing of it is loaded any more."
  @spec change_status(t(), Status.t(), String.t() | nil) :: t()
  def change_status(verdict, status, reason) do
    %{verdict | status: status, reason: reason, change: nil}
  end

  @doc "Name of the file's module, or `nil`."
  @spec module(t()) :: String.t() | nil
  def module(%__MODULE__{entry: %{beam: %{module: module}}}), do: module
  def module(_verdict), do: nil

  @doc "What to call the file in a sentence: its module, or its path in the archive."
  @spec name(t()) :: String.t()
  def name(verdict), do: module(verdict) || verdict.entry.path

  @doc "The verdict as it appears in a report."
  @spec to_report(t()) :: Report.File.t()
  def to_report(verdict) do
    %Report.File{
      path: verdict.entry.path,
      module: module(verdict),
      status: verdict.status,
      reason: verdict.reason,
      target: verdict.target
    }
  end
end
