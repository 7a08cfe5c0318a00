defmodule HotPatch.NodeAgent.Verdict do
  @moduledoc false
  # What this node makes of one file of a patch: a status with its reason, and what there
  # is to do. `change` is `:replace` or `:add` for a module to load, `:delete` for one to take
  # out, `nil` otherwise; `direction` is `:down` where it is an older version that comes. `new?`
  # is a module that this node did not have, also when it is not to be loaded now. `alone?`: it
  # runs code when it is loaded, so it becomes current by a step of its own. `convert?` is false where
  # the states of its processes have the same format in both versions. `callback_mode` is that of a
  # gen_statem's older version, where it is known. `folders` were made
  # for a file that is to go. `ran` is where the code is that runs now, if it is not what the file
  # has. `disk` is what the file is to be, where that is not the code that is to run: also where the
  # module goes and the boot script of the release needs its file; `disk?` is false where only memory
  # is changed. `rights` are those that the file had when it was taken away. `returns?` is a module
  # that comes back to such a file. `move`: of the two files of a module that moves to another
  # application, the one that comes, `:here`, or the one that goes, `:away`. `former` is the file of the code of before
  # where that stays beside the new one, as in an upgrade; `common?` is a file in a folder that both of its releases
  # have, which a patch of the one has changed. `held_back?`: nothing is wrong
  # with the file itself, and it waits for another.

  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.AtomName
  alias HotPatch.NodeAgent.PreviousCode
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
          convert?: boolean(),
          disk?: boolean(),
          rights: Rights.t() | nil,
          callback_mode: term(),
          transient?: boolean(),
          old_code?: boolean(),
          carried?: boolean(),
          held_back?: boolean(),
          ran: PreviousCode.t(),
          disk: :entry | {:bytes, binary() | nil},
          returns?: boolean(),
          move: :here | :away | nil,
          former: Path.t() | nil,
          common?: boolean()
        }
  @enforce_keys [:entry, :status]
  defstruct [
    :entry,
    :status,
    :reason,
    :target,
    :change,
    :callback_mode,
    :move,
    :former,
    :rights,
    folders: [],
    direction: :up,
    new?: false,
    alone?: false,
    convert?: true,
    disk?: true,
    transient?: false,
    old_code?: false,
    carried?: false,
    held_back?: false,
    ran: :file,
    disk: :entry,
    returns?: false,
    common?: false
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
    %{
      verdict
      | status: status,
        reason: reason,
        change: nil,
        carried?: false,
        held_back?: false
    }
  end

  @doc """
  Whether it keeps the patch from being applied: also by a condition that will pass by itself, as refusing now is better
  than a restart later.
  """
  @spec refuses?(t()) :: boolean()
  def refuses?(verdict), do: Status.refuses?(verdict.status) or verdict.transient?

  @doc "Name of the file's module, or `nil`."
  @spec module(t()) :: String.t() | nil
  def module(%__MODULE__{entry: %{beam: %{module: module}}}), do: module
  def module(_verdict), do: nil

  @doc "What to call the file in a sentence: its module, or its path in the archive."
  @spec name(t()) :: String.t()
  def name(verdict), do: module(verdict) || verdict.entry.path

  @doc "The same for people: the module as `inspect/1` shows it."
  @spec title(t()) :: String.t()
  def title(verdict),
    do: if(name = module(verdict), do: AtomName.text(name), else: verdict.entry.path)

  @doc "Whether the module goes, and its file stays because the boot script needs one."
  @spec stays_for_boot?(t()) :: boolean()
  def stays_for_boot?(%__MODULE__{disk: {:bytes, bytes}, entry: %{bytes: nil}, move: nil})
      when bytes != nil,
      do: true

  def stays_for_boot?(_verdict), do: false

  @doc "The verdict as it appears in a report."
  @spec to_report(t()) :: Report.FileResult.t()
  def to_report(verdict) do
    %Report.FileResult{
      path: verdict.entry.path,
      module: module(verdict),
      status: verdict.status,
      reason: verdict.reason,
      target: verdict.target,
      carried?: verdict.carried?,
      held_back?: verdict.held_back?
    }
  end
end
