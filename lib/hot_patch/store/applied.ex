defmodule HotPatch.Store.Applied do
  @moduledoc false
  # The patches that are in force on this node, in the order in which they came, with what
  # it takes to take each back; and the operations that led there, by which nodes see what
  # they have missed. Bound to the release: under another version all of it has ended.

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.Rights

  @typedoc """
  One operation on the cluster. `seq` orders them; `scope` is `:all` or the nodes that were
  named: others do not miss it. `tried_by`: it was the first step of an apply in several, and
  counts for as long as that process lives, or until the last step has followed.
  """
  @type op :: %{
          id: String.t(),
          seq: pos_integer(),
          kind: :apply | :rollback,
          patch: String.t(),
          cumulative?: boolean(),
          disk: :replace | :memory_only,
          transition: HotPatch.Swap.transition(),
          on_load: :restart | :load,
          scope: :all | [node()],
          by: String.t(),
          tried_by: pid() | nil,
          at: DateTime.t()
        }

  @typedoc """
  A file of a patch on this node; digests are nil where there is, or was, no file. `module` is
  nil for what is no module; `alone?` is one that runs code when it is loaded. `rights` are those of
  the file, before and after.
  """
  @type file :: %{
          path: Path.t(),
          target: Path.t(),
          module: String.t() | nil,
          alone?: boolean(),
          old: Blobs.digest() | nil,
          new: Blobs.digest() | nil,
          rights: Rights.t() | nil,
          folders: [Path.t()]
        }

  @typedoc """
  `about` is what is known of the archive, for the time after it was deleted. `restart` names why memory is not what the disk is, until the node restarts. `forced?`:
  processes were killed for it. `memory_only?`: no file of the system was touched, so that it is in force
  until the node restarts. `payload` is the digest of what came to this node, for those
  that missed it. `down` are the instructions for the way back, `applications` those that every
  start follows, `stopped` the applications that
  were stopped, and how they ran before. `replaced` are the records that a cumulative patch has taken the place of.
  """
  @type t :: %{
          id: String.t(),
          op: String.t(),
          at: DateTime.t(),
          by: String.t(),
          about: map() | nil,
          restart: String.t() | nil,
          forced?: boolean(),
          memory_only?: boolean(),
          boot: term(),
          files: [file()],
          payload: Blobs.digest() | nil,
          config: [setting()],
          down: [map()],
          applications: [map()],
          stopped: [{atom(), atom()}],
          replaced: [t()]
        }

  @typedoc "What a patch has set in the environment of an application, and what was there before."
  @type setting :: %{
          application: atom(),
          key: atom(),
          old: {:ok, term()} | :none,
          new: {:ok, term()} | :none
        }

  @type state :: %{
          release: Release.t(),
          install: String.t() | nil,
          retired: %{String.t() => DateTime.t()},
          stack: [t()],
          ops: [op()]
        }

  # More operations than this on one release are not remembered for those that missed them.
  @most_ops 1_000

  @doc "The state under the running release; empty if there is none, or it is another's."
  @spec state() :: state()
  def state do
    release = Release.current()

    case read() do
      %{release: ^release} = state -> state
      _ -> empty()
    end
  end

  @doc "The state as it was written, of whatever release; nil if there is none."
  @spec read() :: state() | nil
  def read do
    Enum.find_value([path(), copy()], fn path ->
      case Store.read_term(path) do
        {:ok, %{release: _, stack: _, ops: _} = state} -> state
        _ -> nil
      end
    end)
  end

  @doc """
  Writes the state; twice, for without it nobody knows what the backups are for. The copy is
  read where the first is damaged, and is never newer.
  """
  @spec put(state()) :: :ok | {:error, File.posix()}
  def put(state) do
    with :ok <- Store.write_term(path(), state), do: Store.write_term(copy(), state)
  end

  @doc "Nothing applied."
  @spec empty() :: state()
  def empty, do: %{release: Release.current(), install: nil, retired: %{}, stack: [], ops: []}

  @doc "Records of this release, oldest first; what a restart has mended is left out."
  @spec list() :: [t()]
  def list do
    boot = boot()

    for record <- state().stack,
        do: if(record.boot == boot, do: record, else: %{record | restart: nil})
  end

  @doc "The record of a patch."
  @spec find(String.t()) :: t() | nil
  def find(id), do: Enum.find(list(), &(&1.id == id))

  @doc "The patches on top of one that have files or settings in common with it, the newest first."
  @spec covering(String.t()) :: [String.t()]
  def covering(id) do
    case list() |> Enum.drop_while(&(&1.id != id)) do
      [] ->
        []

      [record | later] ->
        own = MapSet.new(touched(record))
        for other <- Enum.reverse(later), Enum.any?(touched(other), &(&1 in own)), do: other.id
    end
  end

  defp touched(record) do
    settings = for setting <- Map.get(record, :config, []), do: {setting.application, setting.key}
    Enum.map(record.files, & &1.target) ++ settings
  end

  @doc "The state after a patch was applied."
  @spec applied(state(), op(), t()) :: state()
  def applied(state, op, record) do
    {replaced, below} = if op.cumulative?, do: {state.stack, []}, else: {[], state.stack}

    stack =
      case Enum.find_index(below, &(&1.id == record.id)) do
        nil -> below ++ [%{record | replaced: replaced}]
        n -> List.update_at(below, n, &again(&1, record))
      end

    noted(%{state | stack: stack}, op)
  end

  @doc "The state after a patch was rolled back; what it had replaced is in force again."
  @spec rolled_back(state(), op()) :: state()
  def rolled_back(state, op) do
    stack =
      Enum.flat_map(state.stack, fn record ->
        if record.id == op.patch, do: record.replaced, else: [record]
      end)

    noted(%{state | stack: stack}, op)
  end

  @doc "The state with an operation that has changed nothing here."
  @spec noted(state(), op()) :: state()
  def noted(state, op) do
    if Enum.any?(state.ops, &(&1.id == op.id)),
      do: state,
      else: %{state | ops: recent([op | state.ops], state.stack)}
  end

  # By them it is known what is in force: of that nothing is forgotten.
  defp recent(ops, stack) do
    {recent, older} = Enum.split(ops, @most_ops)
    recent ++ Enum.filter(older, &(&1.kind == :apply and in_force?(&1.patch, stack)))
  end

  defp in_force?(id, stack), do: Enum.any?(stack, &(&1.id == id or in_force?(id, &1.replaced)))

  @doc "Whether a patch is in memory only."
  @spec memory_only?(t()) :: boolean()
  def memory_only?(record), do: Map.get(record, :memory_only?, false)

  @doc """
  A state as it is after a boot: patches that were in memory only are gone, what they had taken the
  place of is in force again, and the operations that brought them are none that this node knows. Gives
  the patches that are gone, too.
  """
  @spec booted(state(), boot :: term()) :: {state(), [t()]}
  def booted(state, boot) do
    {stack, gone} = surviving(state.stack, boot)
    ids = MapSet.new(gone, & &1.id)

    ops =
      Enum.reject(state.ops, fn op ->
        op.kind == :apply and Map.get(op, :disk) == :memory_only and op.patch in ids
      end)

    {%{state | stack: stack, ops: ops}, gone}
  end

  defp surviving(stack, boot) do
    {stacks, gone} = stack |> Enum.map(&survives(&1, boot)) |> Enum.unzip()
    {Enum.concat(stacks), Enum.concat(gone)}
  end

  defp survives(record, boot) do
    if memory_only?(record) and record.boot != boot do
      {stack, gone} = surviving(record.replaced, boot)
      {stack, [record | gone]}
    else
      {[record], []}
    end
  end

  @doc "All blobs that a state needs."
  @spec digests(state()) :: [Blobs.digest()]
  def digests(state), do: Enum.flat_map(state.stack, &digests_of/1)

  @doc """
  Tells one boot of the system from the next, by what is there without our doing: also in a container,
  where the VM has the same number every time, and after `:init.restart/0`, which keeps the VM and ends
  all processes.
  """
  @spec boot() :: {String.t(), integer(), String.t()}
  def boot, do: {System.pid(), started_at(), inspect(Process.whereis(:application_controller))}

  # The start by itself is the same in every VM; by the clock it is not, where the clock stays as it
  # was taken at the start.
  defp started_at do
    case :erlang.system_info(:time_warp_mode) do
      :no_time_warp -> :erlang.system_info(:start_time) + :erlang.time_offset()
      _moves -> 0
    end
  end

  # Applied once more: what was there before it the first time is what to go back to.
  defp again(first, record) do
    before = Map.new(first.files, &{&1.target, Map.take(&1, [:old, :folders])})
    files = Enum.map(record.files, &Map.merge(&1, Map.get(before, &1.target, %{})))
    first_settings = Map.get(first, :config, [])
    settings = Enum.map(record.config, &since(&1, first_settings))
    kept = for one <- first_settings, not Enum.any?(settings, &same?(&1, one)), do: one

    %{
      record
      | files: files,
        config: kept ++ settings,
        applications: Map.get(first, :applications, []),
        stopped: Enum.uniq(Map.get(first, :stopped, []) ++ record.stopped),
        replaced: first.replaced,
        forced?: first.forced? or record.forced?,
        memory_only?: memory_only?(first) and memory_only?(record)
    }
  end

  defp since(setting, first) do
    case Enum.find(first, &same?(&1, setting)) do
      nil -> setting
      before -> %{setting | old: before.old}
    end
  end

  defp same?(a, b), do: {a.application, a.key} == {b.application, b.key}

  defp digests_of(record) do
    files = for file <- record.files, digest <- [file.old, file.new], digest != nil, do: digest
    List.wrap(record.payload) ++ files ++ Enum.flat_map(record.replaced, &digests_of/1)
  end

  defp path, do: Path.join(Store.directory(), "applied.record")
  defp copy, do: Path.join(Store.directory(), "applied.copy")
end
