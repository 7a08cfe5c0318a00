defmodule HotPatch.Store.Transaction do
  @moduledoc false
  # Replaces a set of files of the running version, as if all at once.
  #
  # First everything is put where only renames are left to do: the old files among the blobs,
  # the new ones there too and beside their targets, where a full or read-only disk shows
  # before anything has changed; an intent says what the set is. When it is decided, that is
  # written into the intent. From then on the set is finished, whatever dies in the middle,
  # and before that not one file has changed: recovering is either removing what was staged
  # or doing the rest, each as often as it takes.
  #
  # What new code needs when it is loaded, as a NIF library, cannot wait for that: it is put in
  # place early, beside what was there before, and goes back if the set is not decided
  # (HotPatch.Store.EarlyFiles).
  #
  # Nodes of one host may share the files: each has an intent of its own, a lock keeps them
  # apart, and who comes second finds the files done.

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.FileChange
  alias HotPatch.Store.FileMark
  alias HotPatch.Store.Lock
  alias HotPatch.Store.Rights
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  @typedoc """
  Digests are nil where there is no file. `folders` are those made for it, deepest first. `rights`
  are those that the file is to have. The rest: see HotPatch.Store.FileChange.
  """
  @type file :: %{
          target: Path.t(),
          staged: Path.t(),
          old: Blobs.digest() | nil,
          new: Blobs.digest() | nil,
          folders: [Path.t()],
          rights: Rights.t() | nil,
          early?: boolean(),
          disk?: boolean(),
          alone?: boolean()
        }

  @typedoc "`note` is what whoever finishes the set needs to know."
  @type intent :: %{tag: String.t(), state: :staged | :decided, files: [file()], note: term()}
  @type failure :: {Path.t(), File.posix() | {:locked, String.t()}}

  # Files that are written at the same time.
  @at_once 8

  # As many as Linux follows.
  @most_links 40

  # How long another node of this host may take for its renames.
  @lock_within 30_000

  # Bytes: what the file system itself needs for a few small files.
  @room 65_536

  @doc "Puts everything in place for a set, changing nothing of it."
  @spec stage([FileChange.t()], String.t()) :: {:ok, intent()} | {:error, failure()}
  def stage(changes, tag) do
    # Which folders are to be made is known only before they are.
    begun = begun_folders()
    bare = Enum.map(changes, &bare(&1, tag, begun))

    with {:ok, files} <- each(Enum.zip(bare, changes), &plan/1),
         :ok <- Store.flush_folder(Store.blobs()),
         intent = %{tag: tag, state: :staged, files: files, note: nil},
         :ok <- write_down(intent),
         :ok <- hold_room(intent),
         :ok <- FaultPoint.point(:intent_written),
         {:ok, _} <- each(Enum.zip(files, changes), &stage_one/1) do
      FaultPoint.point(:files_staged)
      {:ok, intent}
    else
      {:error, failure} ->
        unstage(%{tag: tag, files: bare})
        {:error, failure}
    end
  end

  @doc "Writes down that the set is to be finished, and what is to be noted then."
  @spec decide(intent(), term()) :: {:ok, intent()} | {:error, failure()}
  def decide(intent, note) do
    intent = %{intent | state: :decided, note: note}
    _ = File.rm(room(intent))
    with :ok <- write_down(intent), do: {:ok, intent}
  end

  @doc """
  Puts all files in place. What cannot be put there is left for the next time, and the
  first of it is named.
  """
  @spec replace(intent()) :: :ok | {:error, failure()}
  def replace(intent) do
    case Enum.filter(intent.files, & &1.disk?) do
      [] -> :ok
      files -> locked(fn -> replace_all(files) end)
    end
  end

  @doc "Runs something while no other node of this host changes the files of the system."
  @spec locked((() -> result)) :: result | {:error, failure()} when result: term()
  def locked(fun) do
    # Its file lies beside the release's own.
    case Lock.with_lock(lock(), @lock_within, fun, 0o644) do
      {:ok, result} -> result
      {:error, reason} -> {:error, {lock(), reason}}
    end
  end

  @doc "The file that keeps nodes of this host apart which share the system's files."
  @spec lock() :: Path.t()
  # Beside what is shared: the release, or else the data of all nodes.
  def lock, do: Path.join(Release.root() || Path.dirname(Store.directory()), "hot_patch.lock")

  @doc "The set is finished and noted."
  @spec done(intent()) :: :ok
  def done(intent) do
    :ok = remove_staged(intent)
    _ = Store.flush_folder(folder())
    :ok
  end

  @doc """
  Removes all that staging has made. The targets are as they were: what was put in place early has
  gone back before.
  """
  @spec unstage(%{:tag => String.t(), :files => [map()], optional(atom()) => term()}) :: :ok
  def unstage(intent) do
    # A folder that somebody else uses by now stays.
    :ok = remove_staged(intent)
    for %{made: folders} <- intent.files, folder <- folders, do: _ = File.rmdir(folder)
    :ok
  end

  defp remove_staged(intent) do
    for %{staged: staged} <- intent.files, path <- [staged, before(staged)], do: _ = File.rm(path)
    _ = File.rm(room(intent))
    _ = File.rm(path(intent))
    :ok
  end

  @doc "Where the file lies that was there before, while another is in place early."
  @spec before(Path.t()) :: Path.t()
  def before(staged), do: staged <> ".before"

  @doc """
  Why it cannot be told which sets were begun; nil if it can. Nothing may be built upon files of which that
  is not known.
  """
  @spec unreadable() :: failure() | nil
  def unreadable do
    case File.ls(folder()) do
      {:error, posix} when posix != :enoent -> {folder(), posix}
      _names_or_no_set_yet -> nil
    end
  end

  @doc "Intents that nobody has ended."
  @spec pending() :: [intent()]
  def pending do
    for path <- records(Store.directory()), {:ok, intent} <- [read(path)], do: intent
  end

  @doc "The same of a node whose data is in another folder; only to look at them."
  @spec pending(Path.t()) :: [intent()]
  def pending(folder) do
    for path <- records(folder), {:ok, intent} <- [Store.read_term(path)], do: whole(intent)
  end

  defp records(folder), do: Folder.files(Path.join(folder, "staged"), ".record")

  @doc "The digest of a file as it is now; nil if there is none."
  @spec digest(Path.t()) :: Blobs.digest() | nil
  defdelegate digest(path), to: FileMark

  # Cut off while it was written: then nothing was staged yet.
  defp read(path) do
    case Store.read_term(path) do
      {:ok, intent} ->
        {:ok, whole(intent)}

      :error ->
        _ = File.rm(path)
        :error
    end
  end

  # An intent may be older than the version that ends it.
  defp whole(intent) do
    defaults = %{rights: nil, made: [], early?: false, disk?: true, alone?: false}
    %{intent | files: for(file <- intent.files, do: Map.merge(defaults, file))}
  end

  defp plan({file, change}) do
    with {:ok, old} <- keep(former(change, file.target), file.target),
         {:ok, new} <- keep({:ok, change.bytes}, file.target) do
      {:ok, %{file | old: old, new: new, rights: rights(file.target, change)}}
    end
  end

  # What is noted of a file, before anything is known of what it holds.
  defp bare(change, tag, begun) do
    target = real(change.target)
    made = if change.bytes, do: missing_folders(Path.dirname(target), begun), else: []

    change
    |> Map.take([:early?, :disk?, :alone?])
    |> Map.merge(%{
      target: target,
      staged: "#{target}.#{tag}",
      old: nil,
      new: nil,
      rights: nil,
      made: if(change.disk?, do: made, else: []),
      folders: if(change.bytes, do: made, else: change.folders)
    })
  end

  defp rights(target, change),
    do: Rights.of(target) || change.rights || Rights.for_new(target, change.executable?)

  @doc "The file itself: a link stays one, and what it leads to is replaced."
  @spec real(Path.t()) :: Path.t()
  def real(target), do: real(target, @most_links)

  # Links that lead to each other lead nowhere: writing there says so.
  defp real(target, 0), do: target

  defp real(target, left) do
    case File.read_link(target) do
      {:ok, link} -> target |> Path.dirname() |> Folder.led(link) |> real(left - 1)
      {:error, _no_link} -> target
    end
  end

  # Where memory is not what the disk is, what runs is what there is to go back to.
  defp former(%{former: :none}, _target), do: {:ok, nil}

  defp former(%{former: digest}, target) when digest != nil do
    case Blobs.fetch(Store.blobs(), digest) do
      {:ok, bytes} -> {:ok, bytes}
      _unknown_or_damaged -> read_old(target)
    end
  end

  # Code may also lie inside an archive, where only the VM's own loader can read it.
  defp former(%{disk?: false}, target) do
    with {:error, posix} <- read_old(target) do
      case :erl_prim_loader.get_file(FileName.to_charlist(target)) do
        {:ok, bytes, _name} -> {:ok, bytes}
        :error -> {:error, posix}
      end
    end
  end

  defp former(_on_disk, target), do: read_old(target)

  defp read_old(target) do
    with {:error, :enoent} <- File.read(target), do: {:ok, nil}
  end

  defp keep({:ok, nil}, _target), do: {:ok, nil}
  defp keep({:ok, bytes}, _target), do: Blobs.add(Store.blobs(), bytes)
  defp keep({:error, posix}, target), do: {:error, {target, posix}}

  defp missing_folders(folder, begun) do
    if File.exists?(folder) and folder not in begun,
      do: [],
      else: [folder | missing_folders(Path.dirname(folder), begun)]
  end

  # What another node of this host has made for a set that has not ended may go with it, or stay for
  # ours: whoever ends last takes it away.
  defp begun_folders do
    for other <- Store.directory() |> Path.dirname() |> Folder.folders(),
        other != Store.directory(),
        %{state: :staged, files: files} <- pending(other),
        %{made: folders} <- files,
        folder <- folders,
        do: folder
  end

  defp stage_one({%{disk?: false}, _change}), do: {:ok, :nothing}
  defp stage_one({%{new: nil}, _removal}), do: {:ok, :nothing}
  defp stage_one({%{old: same, new: same}, _nothing_changes}), do: {:ok, :nothing}

  # Whoever may not read the file may not read what is staged of it either.
  defp stage_one({file, change}) do
    case lay(file, change.bytes) do
      :ok -> {:ok, :staged}
      {:error, posix} -> {:error, {file.target, posix}}
    end
  end

  defp lay(file, bytes) do
    with :ok <- Rights.make_folders(Path.dirname(file.target)),
         :ok <- Store.write_flushed(file.staged, bytes),
         do: Rights.give(file.staged, file.rights)
  end

  # Goes on where one fails: the more of the set is in place the better.
  defp replace_all(files) do
    results =
      for {file, n} <- Enum.with_index(files, 1) do
        FaultPoint.point({:file, n, length(files)})
        {file.target, replace_one(file)}
      end

    settled(results)
  end

  @doc "What came of changes to files: their folders are written to the disk, and the first failure counts."
  @spec settled([{Path.t(), :ok | {:error, File.posix()}}]) :: :ok | {:error, failure()}
  def settled(results) do
    folders = for {target, _result} <- results, uniq: true, do: Path.dirname(target)
    Enum.each(folders, &Store.flush_folder/1)

    case Enum.find(results, &match?({_target, {:error, _posix}}, &1)) do
      nil -> :ok
      {target, {:error, posix}} -> {:error, {target, posix}}
    end
  end

  defp replace_one(%{new: nil} = file) do
    result = File.rm(file.target)
    for folder <- file.folders, do: _ = File.rmdir(folder)
    if result == {:error, :enoent}, do: :ok, else: result
  end

  defp replace_one(file) do
    cond do
      digest(file.target) == file.new -> :ok
      digest(file.staged) == file.new -> File.rename(file.staged, file.target)
      # What was staged is gone, with a fresh disk or by somebody's hand.
      true -> put(file, file.new)
    end
  end

  @doc "Puts bytes that are kept in the place of a file of a set, with its rights."
  @spec put(file(), Blobs.digest()) :: :ok | {:error, File.posix()}
  def put(file, digest) do
    case Blobs.fetch(Store.blobs(), digest) do
      {:ok, bytes} -> with :ok <- lay(file, bytes), do: File.rename(file.staged, file.target)
      _unknown_or_damaged -> {:error, :enoent}
    end
  end

  # When memory has changed it is too late for a full disk: what is to be written then, the
  # decision, the state and the journal, has its room from here on.
  defp hold_room(intent) do
    size = @room + 4 * :erlang.external_size(Applied.read()) + 4 * :erlang.external_size(intent)

    with {:error, posix} <- Store.write_flushed(room(intent), :binary.copy(<<0>>, size)),
         do: {:error, {room(intent), posix}}
  end

  # Nothing to write down where no file changes, but the decision is.
  defp write_down(intent) do
    with {:error, posix} <- Store.write_term(path(intent), intent),
         do: {:error, {path(intent), posix}}
  end

  # Several at a time: while the disk confirms one file it takes in the next, and confirms many as
  # soon as one. The first failure counts, as if they came one after another.
  defp each(items, fun) do
    results =
      items
      |> Task.async_stream(fun, max_concurrency: @at_once, timeout: :infinity)
      |> Enum.map(fn {:ok, result} -> result end)

    with nil <- Enum.find(results, &match?({:error, _failure}, &1)),
         do: {:ok, for({:ok, result} <- results, do: result)}
  end

  defp room(%{tag: tag}), do: Path.join(folder(), tag <> ".room")
  defp path(%{tag: tag}), do: Path.join(folder(), tag <> ".record")
  defp folder, do: Path.join(Store.directory(), "staged")
end
