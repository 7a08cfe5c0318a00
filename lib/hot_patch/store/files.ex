defmodule HotPatch.Store.Files do
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
  # Nodes of one host may share the files: each has an intent of its own, a lock keeps them
  # apart, and who comes second finds the files done.

  alias HotPatch.Fault
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.Dir
  alias HotPatch.Store.Lock
  alias HotPatch.Store.Mark

  @typedoc "A target and its new bytes; or nil where the file is to go, with folders made for it."
  @type change ::
          {target :: Path.t(), bytes :: binary()}
          | {target :: Path.t(), nil, folders :: [Path.t()]}

  @typedoc "Digests are nil where there is no file. `folders` are those made for it, deepest first."
  @type file :: %{
          target: Path.t(),
          staged: Path.t(),
          old: Blobs.digest() | nil,
          new: Blobs.digest() | nil,
          folders: [Path.t()]
        }

  @typedoc "`note` is what whoever finishes the set needs to know."
  @type intent :: %{tag: String.t(), state: :staged | :decided, files: [file()], note: term()}
  @type failure :: {Path.t(), File.posix() | {:locked, String.t()}}

  # Files that are written at the same time.
  @at_once 8

  # How long another node of this host may take for its renames.
  @lock_within 30_000

  # Bytes: what the file system itself needs for a few small files.
  @room 65_536

  @doc "Puts everything in place for a set, changing nothing of it."
  @spec stage([change()], String.t()) :: {:ok, intent()} | {:error, failure()}
  def stage(changes, tag) do
    with {:ok, files} <- each(changes, &plan(&1, tag)),
         :ok <- Store.flush_folder(Store.blobs()),
         intent = %{tag: tag, state: :staged, files: files, note: nil},
         :ok <- write_down(intent),
         :ok <- hold_room(intent),
         :ok <- Fault.point(:intent_written),
         {:ok, _} <- each(Enum.zip(files, changes), &stage_one/1) do
      Fault.point(:files_staged)
      {:ok, intent}
    else
      {:error, failure} ->
        unstage(%{
          tag: tag,
          files: for(change <- changes, do: %{bare(change, tag) | new: elem(change, 1)})
        })

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
  def replace(%{files: []}), do: :ok

  def replace(intent) do
    case Lock.with_lock(lock(), @lock_within, fn -> replace_all(intent.files) end) do
      {:ok, result} -> result
      {:error, reason} -> {:error, {lock(), reason}}
    end
  end

  @doc "The set is finished and noted."
  @spec done(intent()) :: :ok
  def done(intent) do
    for %{staged: staged} <- intent.files, do: _ = File.rm(staged)
    _ = File.rm(room(intent))
    _ = File.rm(path(intent))
    Store.flush_folder(folder())
    :ok
  end

  @doc "Removes all that staging has made; the targets are as they were."
  @spec unstage(%{:tag => String.t(), :files => [map()], optional(atom()) => term()}) :: :ok
  def unstage(intent) do
    for %{staged: staged} <- intent.files, do: _ = File.rm(staged)
    # A folder that somebody else uses by now stays.
    for %{new: new, folders: folders} when new != nil <- intent.files,
        folder <- folders,
        do: _ = File.rmdir(folder)

    _ = File.rm(room(intent))
    _ = File.rm(path(intent))
    :ok
  end

  @doc "Intents that nobody has ended."
  @spec pending() :: [intent()]
  def pending do
    for path <- records(Store.directory()), {:ok, intent} <- [read(path)], do: intent
  end

  @doc "The same of a node whose data is in another folder; only to look at them."
  @spec pending(Path.t()) :: [intent()]
  def pending(folder) do
    for path <- records(folder), {:ok, intent} <- [Store.read_term(path)], do: intent
  end

  defp records(folder), do: Dir.files(Path.join(folder, "staged"), ".record")

  @doc "The digest of a file as it is now; nil if there is none."
  @spec digest(Path.t()) :: Blobs.digest() | nil
  defdelegate digest(path), to: Mark

  # Cut off while it was written: then nothing was staged yet.
  defp read(path) do
    with :error <- Store.read_term(path) do
      _ = File.rm(path)
      :error
    end
  end

  # A link stays one: the file that it leads to is replaced.
  defp plan(change, tag) do
    file = bare(change, tag)

    with {:ok, old} <- keep(read_old(file.target), file.target),
         {:ok, new} <- keep({:ok, elem(change, 1)}, file.target) do
      {:ok, %{file | old: old, new: new}}
    end
  end

  defp bare({target, nil, folders}, tag),
    do: %{bare({target, nil}, tag) | folders: folders}

  defp bare({target, _bytes}, tag) do
    target = real(target)
    folders = missing_folders(Path.dirname(target))
    %{target: target, staged: "#{target}.#{tag}", old: nil, new: nil, folders: folders}
  end

  defp real(target) do
    case File.read_link(target) do
      {:ok, link} -> link |> Path.expand(Path.dirname(target)) |> real()
      {:error, _no_link} -> target
    end
  end

  defp read_old(target) do
    with {:error, :enoent} <- File.read(target), do: {:ok, nil}
  end

  defp keep({:ok, nil}, _target), do: {:ok, nil}
  defp keep({:ok, bytes}, _target), do: Blobs.add(Store.blobs(), bytes)
  defp keep({:error, posix}, target), do: {:error, {target, posix}}

  defp missing_folders(folder) do
    if File.exists?(folder), do: [], else: [folder | missing_folders(Path.dirname(folder))]
  end

  defp stage_one({%{new: nil}, _removal}), do: {:ok, :nothing}

  defp stage_one({%{old: same, new: same}, _nothing_changes}), do: {:ok, :nothing}

  defp stage_one({file, {_target, bytes}}) do
    with :ok <- File.mkdir_p(Path.dirname(file.target)),
         :ok <- Store.write_flushed(file.staged, bytes),
         :ok <- same_mode(file) do
      {:ok, :staged}
    else
      {:error, posix} -> {:error, {file.target, posix}}
    end
  end

  defp same_mode(%{old: nil}), do: :ok

  defp same_mode(file) do
    with {:ok, %File.Stat{mode: mode}} <- File.stat(file.target),
         do: File.chmod(file.staged, mode)
  end

  # Goes on where one fails: the more of the set is in place the better.
  defp replace_all(files) do
    results =
      for {file, n} <- Enum.with_index(files, 1) do
        Fault.point({:file, n, length(files)})
        {file.target, replace_one(file)}
      end

    files |> Enum.map(&Path.dirname(&1.target)) |> Enum.uniq() |> Enum.each(&Store.flush_folder/1)

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
      true -> write_again(file)
    end
  end

  # What was staged is gone, with a fresh disk or by somebody's hand.
  defp write_again(file) do
    case Blobs.fetch(Store.blobs(), file.new) do
      {:ok, bytes} -> Store.write(file.target, bytes)
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

  # Beside what is shared: the release, or else the data of all nodes.
  defp lock, do: Path.join(Release.root() || Path.dirname(Store.directory()), "hot_patch.lock")
end
