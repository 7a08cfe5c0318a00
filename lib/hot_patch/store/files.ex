defmodule HotPatch.Store.Files do
  @moduledoc false
  # Replaces a set of files of the running version: staged beside their targets first,
  # where a full or read-only disk shows before anything has changed, then renamed. What is
  # going to be done is written down first, so that whatever dies in the middle, the next
  # start puts the targets back as they were.

  alias HotPatch.Store

  @type change :: {target :: Path.t(), bytes :: binary()}
  @typep file :: %{
           target: Path.t(),
           new: Path.t(),
           old: Path.t(),
           had_old?: boolean(),
           made_folders: [Path.t()]
         }
  @type staged :: %{tag: String.t(), files: [file()]}
  @type failure :: {Path.t(), File.posix()}

  @doc "Writes all new files beside their targets and keeps the old ones at hand."
  @spec stage([change()], String.t()) :: {:ok, staged()} | {:error, failure()}
  def stage(changes, tag) do
    staged = %{tag: tag, files: for({target, _bytes} <- changes, do: plan(target, tag))}

    with :ok <- write_down(staged),
         :ok <- stage_all(staged.files, changes) do
      {:ok, staged}
    else
      {:error, failure} ->
        unstage(staged)
        {:error, failure}
    end
  end

  @doc "Removes all that staging has made; the targets are as they were."
  @spec unstage(staged()) :: :ok
  def unstage(staged) do
    tidy(staged)
    # Deepest first; a folder that somebody else uses by now stays.
    for file <- staged.files, folder <- file.made_folders, do: _ = File.rmdir(folder)
    :ok
  end

  @doc "Puts all staged files in place, or, if one cannot be, none of them."
  @spec replace(staged()) :: :ok | {:error, failure()}
  def replace(staged) do
    result = first_error(staged.files, & &1.target, &File.rename(&1.new, &1.target))
    sync_folders(staged)
    if result == :ok, do: tidy(staged), else: undo(staged)
    result
  end

  @doc "Undoes what a run of this node that has ended left half done."
  @spec recover() :: :ok
  def recover do
    Enum.each(Path.wildcard(Path.join(folder(), "*.record")), fn path ->
      case Store.read_term(path) do
        {:ok, staged} -> undo(staged)
        # Cut off while it was written: then nothing was staged yet.
        :error -> File.rm(path)
      end
    end)

    :ok
  end

  # A target whose new file is gone was renamed.
  defp undo(staged) do
    for file <- staged.files, not File.exists?(file.new), do: _ = put_back(file)
    sync_folders(staged)
    unstage(staged)
  end

  defp put_back(%{had_old?: true} = file) do
    if File.exists?(file.old), do: File.rename(file.old, file.target)
  end

  defp put_back(%{had_old?: false} = file), do: File.rm(file.target)

  defp write_down(%{files: []}), do: :ok

  defp write_down(staged) do
    with {:error, posix} <- Store.write_term(record(staged), staged) do
      {:error, {record(staged), posix}}
    end
  end

  defp record(staged), do: Path.join(folder(), staged.tag <> ".record")
  defp folder, do: Path.join(Store.directory(), "staged")

  defp plan(target, tag) do
    %{
      target: target,
      new: "#{target}.#{tag}.new",
      old: "#{target}.#{tag}.old",
      had_old?: File.exists?(target),
      made_folders: missing_folders(Path.dirname(target))
    }
  end

  defp missing_folders(folder) do
    if File.exists?(folder), do: [], else: [folder | missing_folders(Path.dirname(folder))]
  end

  defp stage_all(files, changes) do
    files
    |> Enum.zip(changes)
    |> first_error(fn {file, _} -> file.target end, fn {file, {_target, bytes}} ->
      stage_one(file, bytes)
    end)
  end

  # Goes on until one fails.
  defp first_error(items, target, fun) do
    Enum.find_value(items, :ok, fn item ->
      case fun.(item) do
        :ok -> nil
        {:error, posix} -> {:error, {target.(item), posix}}
      end
    end)
  end

  defp stage_one(file, bytes) do
    with :ok <- File.mkdir_p(Path.dirname(file.target)),
         :ok <- keep_old(file),
         :ok <- Store.write_flushed(file.new, bytes) do
      same_mode(file)
    end
  end

  defp keep_old(%{had_old?: true} = file), do: File.cp(file.target, file.old)
  defp keep_old(%{had_old?: false}), do: :ok

  defp same_mode(%{had_old?: false}), do: :ok

  defp same_mode(file) do
    with {:ok, %File.Stat{mode: mode}} <- File.stat(file.target), do: File.chmod(file.new, mode)
  end

  # The record goes last: until then a start would find what is left to do.
  defp tidy(staged) do
    for file <- staged.files, path <- [file.new, file.old], do: _ = File.rm(path)
    _ = File.rm(record(staged))
    :ok
  end

  defp sync_folders(staged) do
    staged.files
    |> Enum.map(&Path.dirname(&1.target))
    |> Enum.uniq()
    |> Enum.each(&Store.flush_folder/1)
  end
end
