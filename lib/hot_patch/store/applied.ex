defmodule HotPatch.Store.Applied do
  @moduledoc false
  # The patches that are in force on this node, in the order in which they came, with what
  # it takes to take each back; and the operations that led there, by which nodes see what
  # they have missed. Bound to the release: under another version all of it has ended.

  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied.Format
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.FileMark
  alias HotPatch.Store.Leftovers
  alias HotPatch.Store.Rights
  alias HotPatch.Store.Succession
  alias HotPatch.Strategy
  alias HotPatch.Support.ConfigMerge

  @name "applied.record"

  # Where a process has the state while it only looks.
  @seen {__MODULE__, :seen}

  @typedoc "An operation as this node remembers it."
  @type op :: Operation.remembered()

  @typedoc """
  A file of a patch on this node. `old` and `new` are digests of what was on disk before and of what
  the patch has put there, nil where there is no file. `ran` is the digest of the code that ran before
  where that was not the file's: nil where it was, `:lost` where it is kept nowhere. `md5` is that of
  the code that should run since, nil for what is no module. `alone?` is a module that runs code when
  it is loaded; `convert?` is false where the states of its processes have the same format in both
  versions, and `callback_mode` is that of a gen_statem before. `gone?`: the module is not to run, though the boot script needs its file; `returned?`: it
  was so before this patch. `move`: of the two files of a module that has moved to another
  application, the one that came, or the one that went. `rights` are those of the file, before and
  after. `folders` were made for the file. `real` is the path without links, and `stamp` tells whether
  the file was written since: see HotPatch.Store.FileMark.
  """
  @type file :: %{
          path: Path.t(),
          target: Path.t(),
          module: String.t() | nil,
          alone?: boolean(),
          convert?: boolean(),
          callback_mode: term(),
          gone?: boolean(),
          returned?: boolean(),
          move: :here | :away | nil,
          old: Blobs.digest() | nil,
          new: Blobs.digest() | nil,
          ran: Blobs.digest() | nil | :lost,
          md5: binary() | nil,
          rights: Rights.t() | nil,
          folders: [Path.t()],
          real: Path.t() | nil,
          stamp: FileMark.stamp() | nil
        }

  @typedoc """
  `op` is the operation that brought the patch; one that applied it again has not. `about` is what is
  known of the archive, for the time after it was deleted. `forced?`: processes were killed for it.
  `memory_only?`: no file of the system was touched, so that it is in force until the node restarts;
  `boot` is the boot in which it came. `payload` is the digest of what came to this node, for those
  that missed it. `down` are the instructions for the way back, `applications` those that every
  start follows, `stopped` the applications that
  were stopped, and how they ran before. `strategy` is how the patch came, which is how it goes back. `replaced` are the records that a cumulative patch has taken the place of.
  """
  @type t :: %{
          id: String.t(),
          op: String.t(),
          at: DateTime.t(),
          by: String.t(),
          about: map() | nil,
          forced?: boolean(),
          memory_only?: boolean(),
          boot: term(),
          files: [file()],
          payload: Blobs.digest() | nil,
          config: [setting()],
          down: [map()],
          applications: [map()],
          stopped: [{atom(), atom()}],
          strategy: HotPatch.Strategy.t(),
          replaced: [t()],
          upgrade: upgrade() | nil
        }

  @typedoc """
  What an upgrade has made of this node. `course` leads from one release to the other
  (HotPatch.NodeAgent.Upgrade.Course), `files` are those of the release that came, and `modules` tell how each goes back.
  The files of its record are those that both releases have, and that patches of the former one have changed: with it
  they went back to what they were.
  """
  @type upgrade :: %{
          course: map(),
          files: [%{target: Path.t(), new: Blobs.digest()}],
          modules: [map()]
        }

  @typedoc """
  Something in memory that the last operation on it has left otherwise than on disk: the module that
  should run since with its digest (nil where it is to be gone), or what else, in words. It ends with
  the boot.
  """
  @type pending :: %{
          patch: String.t(),
          target: Path.t() | nil,
          module: String.t() | nil,
          md5: binary() | nil,
          boot: term(),
          text: String.t() | nil
        }

  @typedoc """
  What a patch has set in the environment of an application, and what was there before. `given` is how
  `new` comes about: something merged over what was there, or what patches before have set put back.
  `:replace` is of a state that was written when nothing was merged yet. `defaults` is what the module
  whose name is the key has said of what it had no value for.
  """
  @type setting :: %{
          optional(:defaults) => keyword(),
          application: atom(),
          key: atom(),
          old: {:ok, term()} | :none,
          new: {:ok, term()} | :none,
          given: {:merge, term()} | :back | :replace
        }

  @typedoc """
  `boot` is the boot in which the state was written. `retired` are patches that ended under this very
  release, with the number of the last operation that counts no more. `ended` is what takes back the
  files of patches that ended, while those files are there: see HotPatch.Store.Leftovers.
  """
  @type state :: %{
          release: Release.t(),
          boot: term(),
          install: String.t() | nil,
          retired: %{String.t() => %{at: DateTime.t(), seq: non_neg_integer()}},
          stack: [t()],
          ops: [op()],
          pending: [pending()],
          ended: [Leftovers.t()]
        }

  # More operations than this on one release are not remembered for those that missed them.
  @most_ops 1_000

  @doc """
  The state under the running release. One that was written under another is what becomes of it: see
  HotPatch.Store.Succession. Nothing that takes a file back is missing in it.
  """
  @spec state() :: state()
  def state, do: Process.get(@seen) || now()

  defp now do
    case read() do
      nil -> empty()
      state -> state |> succeed() |> elem(1)
    end
  end

  @doc """
  Runs a function that only looks: all that it asks in its process sees the state as it was at the
  beginning, which is read once.
  """
  @spec read_once((() -> result)) :: result when result: term()
  def read_once(fun) do
    if Process.get(@seen) do
      fun.()
    else
      try do
        _ = Process.put(@seen, now())
        fun.()
      after
        Process.delete(@seen)
      end
    end
  end

  @doc """
  What becomes of a state, as it was written, under the running release, and the state that counts: see
  HotPatch.Store.Succession.
  """
  @spec succeed(state()) :: {:same | :carried | :returned | :ended, state()}
  def succeed(state) do
    facts = %{
      release: Release.identity(),
      installed?: &Release.installed?/0,
      boot: boot(),
      as_left?: fn -> as_left?(state) end
    }

    how = Succession.judge(state, facts)
    {how, succeeded(how, state, facts)}
  end

  defp succeeded(:same, state, facts), do: %{without_gone(state) | boot: facts.boot}

  defp succeeded(:carried, state, facts),
    do: %{without_gone(state) | release: facts.release, boot: facts.boot}

  # What the upgrade has brought lies on disk as it came, but for what patches of the new release have made of it. What
  # it has put back in folders that both releases have is for the patches of the former one to be put there again.
  defp succeeded(:returned, state, facts) do
    {upgrade, above} = Succession.find(state.stack, facts)
    gone = MapSet.new([upgrade | above], & &1.id)
    files = [upgrade | above] |> Enum.map(&alone/1) |> on_disk() |> net()

    without_gone(%{
      state
      | release: facts.release,
        boot: facts.boot,
        stack: upgrade.replaced,
        ops: Enum.reject(state.ops, &(&1.kind == :apply and &1.patch in gone)),
        ended: Leftovers.of(files, state.release, state.ended)
    })
  end

  defp succeeded(:ended, state, _facts),
    do: %{empty() | pending: state.pending ++ stays(state), ended: leftovers(state)}

  # What an upgrade has taken the place of is another release's.
  defp alone(%{upgrade: nil} = record), do: record
  defp alone(upgrade), do: %{upgrade | replaced: []}

  @doc "What takes back the files of a state when all its patches end, see HotPatch.Store.Leftovers."
  @spec leftovers(state()) :: [Leftovers.t()]
  def leftovers(state),
    do: state.stack |> on_disk() |> net() |> Leftovers.of(state.release, state.ended)

  # Whoever asks before the start has come to it shall not hear of what was in the memory of the VM
  # before: it would give it to others as what is in force here.
  defp without_gone(state), do: state |> booted(boot()) |> elem(0)

  # Where patches end while the VM runs, not all of theirs ends with them.
  defp stays(%{boot: boot} = state) do
    for record <- state.stack, record.config != [] or record.applications != [], boot == boot() do
      settings = for one <- record.config, do: "#{one.application}: #{inspect(one.key)}"
      applications = for one <- record.applications, do: "the application #{one.subject}"
      what = Enum.join(settings ++ applications, ", ")
      text = "#{record.id} has ended, and what it has set, started or stopped stays so: #{what}"
      %{patch: record.id, target: nil, module: nil, md5: nil, boot: boot, text: text}
    end
  end

  # Whether the files of the patches are on disk as the patches have left them.
  defp as_left?(state),
    do: Enum.all?(net(on_disk(state.stack)), &(FileMark.digest(&1.target) == &1.new))

  @doc "The state as it was written, of whatever release; nil if there is none."
  @spec read() :: state() | nil
  def read, do: Enum.find_value([path(), copy()], &read_file/1)

  @doc "The same of a node whose data is in another folder; nil also where it cannot be read here."
  @spec read(Path.t()) :: state() | nil
  def read(folder) do
    read_file(Path.join(folder, @name))
  rescue
    # Of a newer HotPatch.
    RuntimeError -> nil
  end

  defp read_file(path) do
    case Store.read_term(path) do
      {:ok, term} -> Format.decode(term)
      :error -> nil
    end
  end

  @doc """
  Writes the state; twice, for without it nobody knows what the backups are for. The copy is
  read where the first is damaged, and is never newer.
  """
  @spec put(state()) :: :ok | {:error, File.posix()}
  def put(state) do
    term = Format.encode(state)
    with :ok <- Store.write_term(path(), term), do: Store.write_term(copy(), term)
  end

  @doc "Nothing applied."
  @spec empty() :: state()
  def empty do
    %{
      release: Release.identity(),
      boot: boot(),
      install: nil,
      retired: %{},
      stack: [],
      ops: [],
      pending: [],
      ended: []
    }
  end

  @doc "Records of this release, oldest first."
  @spec list() :: [t()]
  def list, do: state().stack

  @doc """
  What a stack of patches has made of the files, one entry for each: with what was there before the
  first patch that touches it, also one that others have taken the place of, and what the last one
  has put there. `id` is that of the last.
  """
  @spec net([t()]) :: [%{:id => String.t(), optional(atom()) => term()}]
  def net(stack) do
    stack
    |> all()
    |> Enum.flat_map(&own/1)
    |> Enum.reduce(%{}, fn file, net ->
      Map.update(net, file.target, file, &together(&1, file))
    end)
    |> Map.values()
    |> Enum.sort_by(& &1.path)
  end

  # States have kept their format where none of the patches has converted them.
  defp own(record) do
    converts? = Strategy.back(record).transition != :none
    for file <- record.files, do: Map.merge(file, %{id: record.id, convert?: converts?})
  end

  defp together(first, last) do
    last
    |> Map.merge(Map.take(first, [:old, :ran, :folders, :callback_mode, :returned?]))
    |> Map.merge(%{convert?: first.convert? or last.convert?, move: last.move || first.move})
  end

  @doc """
  These records and those that they have taken the place of, in the order in which they came: the first
  that has a file knows what was there before all patches.
  """
  @spec all([t()]) :: [t()]
  def all(records), do: Enum.flat_map(records, &(all(&1.replaced) ++ [&1]))

  @doc "The record of a patch."
  @spec find(String.t()) :: t() | nil
  def find(id), do: Enum.find(list(), &(&1.id == id))

  @doc "The patches of a stack on top of one that have files or settings in common with it, the newest first."
  @spec covering([t()], String.t()) :: [String.t()]
  def covering(stack, id) do
    case Enum.drop_while(stack, &(&1.id != id)) do
      [] ->
        []

      [record | later] ->
        own = MapSet.new(touched(record) ++ brought(record))

        for other <- Enum.reverse(later),
            Enum.any?(touched(other) ++ followed(other), &(&1 in own)),
            do: other.id
    end
  end

  defp brought(record),
    do: for(%{module: name} when name != nil <- record.files, do: {:module, name})

  # What it wants to run as long as it is in force.
  defp followed(%{about: %{follows: %{modules: modules}}}), do: Enum.map(modules, &{:module, &1})
  defp followed(_alone), do: []

  defp touched(record) do
    settings = for setting <- record.config, do: {setting.application, setting.key}
    Enum.map(record.files, & &1.target) ++ settings
  end

  @doc "Whether an operation is for a node: to others it means nothing, and they do not miss it."
  @spec concerns?(op(), node()) :: boolean()
  def concerns?(%{scope: :all}, _node), do: true
  def concerns?(%{scope: nodes}, node), do: node in nodes

  @doc "Whether a rollback is meant where the patch came by this operation."
  @spec undoes?(%{optional(atom()) => term()}, String.t()) :: boolean()
  def undoes?(%{undoes: ids}, brought_by) when is_list(ids), do: brought_by in ids
  def undoes?(_of_the_patch_itself, _brought_by), do: true

  @doc """
  Whether an apply finds its patch in force already, and the place where it would put it. A cumulative
  one takes the place of all others: what it finds is the same only where there are none.
  """
  @spec renews?(state(), String.t(), boolean()) :: boolean()
  def renews?(%{stack: [%{id: id}]}, id, true), do: true
  def renews?(_state, _id, true), do: false
  def renews?(%{stack: stack}, id, false), do: Enum.any?(stack, &(&1.id == id))

  @doc "The state after a patch was applied."
  @spec applied(state(), op(), t()) :: state()
  def applied(%{stack: stack} = state, op, record) do
    stack =
      cond do
        renews?(state, record.id, op.cumulative?) ->
          Enum.map(stack, &if(&1.id == record.id, do: again(&1, record), else: &1))

        op.cumulative? ->
          [%{record | replaced: stack}]

        true ->
          stack ++ [record]
      end

    noted(%{state | stack: stack}, op)
  end

  @doc "The state after an upgrade to a release was applied: what was in force before is so no more, until it goes back."
  @spec upgraded(state(), op(), t(), Release.t()) :: state()
  def upgraded(state, op, record, release) do
    stack = [%{record | replaced: state.stack}]
    noted(%{state | release: release, stack: stack}, op)
  end

  @doc "The state after a patch was rolled back; what it had replaced is in force again."
  @spec rolled_back(state(), op()) :: state()
  def rolled_back(state, op) do
    stack =
      Enum.flat_map(state.stack, fn record ->
        if record.id == op.patch and undoes?(op, record.op), do: record.replaced, else: [record]
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

  defp in_force?(id, stack), do: Enum.any?(all(stack), &(&1.id == id))

  @doc """
  The state after an operation has left memory otherwise than the disk: what earlier ones have left in
  these files is replaced, and so is what was said of the same patch. Entries of earlier boots go.
  """
  @spec pending(state(), String.t(), [Path.t()], [pending()]) :: state()
  def pending(state, id, targets, more) do
    stays? = &(&1.boot == state.boot and &1.target not in targets and not said_of?(&1, id))
    %{state | pending: Enum.filter(state.pending, stays?) ++ more}
  end

  defp said_of?(pending, id), do: pending.target == nil and pending.patch == id

  @doc "Whether a patch waits for a restart: memory is not what it has put on disk."
  @spec waits?(state(), String.t()) :: boolean()
  def waits?(state, id), do: Enum.any?(state.pending, &(&1.patch == id and &1.boot == boot()))

  @doc """
  The state in which all patches ended under the same release. The operations stay known: other nodes,
  where they still count, shall not bring them back.
  """
  @spec retired(state(), DateTime.t()) :: state()
  def retired(state, now) do
    seq = state.ops |> Enum.map(& &1.seq) |> Enum.max(fn -> 0 end)
    ended = Map.new(state.stack, &{&1.id, %{at: now, seq: seq}})

    %{
      state
      | install: nil,
        ended: leftovers(state),
        stack: [],
        retired: Map.merge(state.retired, ended)
    }
  end

  @doc "A state with the marks of files that are in place now."
  @spec marked(state(), [%{:target => Path.t(), optional(atom()) => term()}]) :: state()
  def marked(state, files) do
    marks = Map.new(files, &{&1.target, FileMark.of(&1.target)})
    %{state | stack: Enum.map(state.stack, &mark(&1, marks))}
  end

  defp mark(record, marks) do
    files = for file <- record.files, do: Map.merge(file, Map.get(marks, file.target, %{}))
    %{record | files: files}
  end

  @doc "Whether a patch is in memory only."
  @spec memory_only?(t()) :: boolean()
  def memory_only?(record), do: record.memory_only?

  @doc "What a stack of patches has on disk: those that are in memory only have nothing there."
  @spec on_disk([t()]) :: [t()]
  def on_disk(stack) do
    Enum.flat_map(stack, &if(memory_only?(&1), do: on_disk(&1.replaced), else: [&1]))
  end

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
  def digests(state) do
    ended =
      for file <- Leftovers.open(state.ended),
          digest <- [file.old, file.new],
          is_binary(digest),
          do: digest

    Enum.flat_map(all(state.stack), &digests_of/1) ++ ended
  end

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
    before =
      Map.new(
        first.files,
        &{&1.target, Map.take(&1, [:old, :ran, :folders, :move, :callback_mode])}
      )

    files = Enum.map(record.files, &Map.merge(&1, Map.get(before, &1.target, %{})))
    # What only the first time has changed is to go back all the same.
    others =
      Enum.reject(first.files, fn file -> Enum.any?(files, &(&1.target == file.target)) end)

    settings = Enum.map(record.config, &since(&1, first.config))
    kept = for one <- first.config, not Enum.any?(settings, &same?(&1, one)), do: one

    %{
      record
      | op: first.op,
        files: files ++ others,
        config: kept ++ settings,
        applications: first.applications,
        stopped: Enum.uniq(first.stopped ++ record.stopped),
        replaced: first.replaced,
        forced?: first.forced? or record.forced?,
        memory_only?: memory_only?(first) and memory_only?(record)
    }
  end

  defp since(setting, first) do
    case Enum.find(first, &same?(&1, setting)) do
      nil -> setting
      before -> Map.merge(setting, first_of(before, setting))
    end
  end

  defp first_of(before, setting) do
    given = given(before.given, setting.given)
    defaults = Keyword.merge(Map.get(setting, :defaults, []), Map.get(before, :defaults, []))
    %{old: before.old, given: given, defaults: defaults}
  end

  defp given({:merge, first}, {:merge, again}), do: {:merge, ConfigMerge.merge(first, again)}
  defp given(_first, again), do: again

  defp same?(a, b), do: {a.application, a.key} == {b.application, b.key}

  defp digests_of(record) do
    files =
      for file <- record.files,
          digest <- [file.old, file.new, file.ran],
          is_binary(digest),
          do: digest

    # Code that ran and was not that of its file.
    kept = if record.upgrade, do: record.upgrade.modules, else: []
    List.wrap(record.payload) ++ files ++ for(%{old: old} when old != nil <- kept, do: old)
  end

  defp path, do: Path.join(Store.directory(), @name)
  defp copy, do: Path.join(Store.directory(), "applied.copy")
end
