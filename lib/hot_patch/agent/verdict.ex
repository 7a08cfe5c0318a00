defmodule HotPatch.Agent.Verdict do
  @moduledoc false
  # What this node makes of one file of a patch: a status with its reason, and what there
  # is to do. `change` is `:replace` or `:add` for a module to load, `:delete` for one to take
  # out, `nil` otherwise; `direction` is `:down` where it is an older version that comes. `new?`
  # is a module that this node did not have, also when it is not to be loaded now. `alone?`: it
  # runs code when it is loaded, so it becomes current by a step of its own. `folders` were made
  # for a file that is to go. `keeps` are the bytes that stay in its place where the boot script of
  # the release needs a file, and `returns?` is a module that comes back to such a file. `move`: of the two files of a module that moves to another
  # application, the one that comes, `:here`, or the one that goes, `:away`.

  alias HotPatch.Composition.Entry
  alias HotPatch.Report
  alias HotPatch.Status

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
          transient?: boolean(),
          carried?: boolean(),
          keeps: binary() | nil,
          returns?: boolean(),
          move: :here | :away | nil
        }
  @enforce_keys [:entry, :status]
  defstruct [
    :entry,
    :status,
    :reason,
    :target,
    :change,
    :keeps,
    :move,
    folders: [],
    direction: :up,
    new?: false,
    alone?: false,
    transient?: false,
    carried?: false,
    returns?: false
  ]

  @doc "A verdict without anything to load."
  @spec new(Entry.t(), Status.t(), String.t() | nil, Path.t() | nil) :: t()
  def new(entry, status, reason \\ nil, target \\ nil) do
    %__MODULE__{entry: entry, status: status, reason: reason, target: target}
  end

  @doc "Of a file that is no module and is, or will be, where it belongs."
  @spec carried(Entry.t(), String.t(), Path.t() | nil) :: t()
  def carried(entry, reason, target \\ nil),
    do: %{new(entry, :not_beam, reason, target) | carried?: true}

  @doc "The same file with another status; nothing of it is loaded any more."
  @spec change_status(t(), Status.t(), String.t() | nil) :: t()
  def change_status(verdict, status, reason) do
    %{verdict | status: status, reason: reason, change: nil, carried?: false}
  end

  @doc "Name of the file's module, or `nil`."
  @spec module(t()) :: String.t() | nil
  def module(%__MODULE__{entry: %{beam: %{module: module}}}), do: module
  def module(_verdict), do: nil

  @doc "The verdict as it appears in a report."
  @spec to_report(t()) :: Report.File.t()
  def to_report(verdict) do
    %Report.File{
      path: verdict.entry.path,
      module: module(verdict),
      status: verdict.status,
      reason: verdict.reason,
      target: verdict.target,
      carried?: verdict.carried?
    }
  end
end
