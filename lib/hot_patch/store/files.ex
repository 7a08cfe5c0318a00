defmodule HotPatch.Store.Files do
  @moduledoc false
  # Replaces a set of files of the running version: staged beside their targets first,
  # where a full or read-only disk shows before anything has changed, then renamed.

  alias HotPatch.Store

  @type change :: {target :: Path.t(), bytes :: binary()}
  @type one :: %{
          target: Path.t(),
          new: Path.t(),
          old: Path.t(),
          had_old?: boolean(),
          made_folders: [Path.t()]
        }
  @type staged :: [one()]
  @type failure :: {Path.t(), File.posix()}

  @doc "Writes all new files beside their targets and keeps the old ones at hand."
  @spec stage([change()], String.t()) :: {:ok, staged()} | {:error, failure()}
  def stage(changes, tag) do
    Enum.reduce_while(changes, {:ok, []}, fn {target, bytes}, {:ok, staged} ->
      one = plan(target, tag)

      case stage_one(one, bytes) do
        :ok ->
          {:cont, {:ok, [one | staged]}}

        {:error, reason} ->
          unstage([one | staged])
          {:halt, {:error, {target, reason}}}
      end
    end)
  end

  @doc "Removes all that staging has made; the targets are as they were."
  @spec unstage(staged()) :: :ok
  def unstage(staged) do
    tidy(staged)
    # Deepest first; a folder that somebody else uses by now stays.
    for one <- staged, folder <- one.made_folders, do: _ = File.rmdir(folder)
    :ok
  end

  @doc "Puts all staged files in place, or, if one cannot be, none of them."
  @spec replace(staged()) :: :ok | {:error, failure()}
  def replace(staged) do
    result =
      Enum.reduce_while(staged, {:ok, []}, fn one, {:ok, done} ->
        case File.rename(one.new, one.target) do
          :ok -> {:cont, {:ok, [one | done]}}
          {:error, reason} -> {:halt, {:error, {one.target, reason}, done}}
        end
      end)

    case result do
      {:ok, _done} ->
        sync_folders(staged)
        tidy(staged)

      {:error, failure, done} ->
        Enum.each(done, &put_back/1)
        unstage(staged)
        {:error, failure}
    end
  end

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

  defp stage_one(one, bytes) do
    with :ok <- File.mkdir_p(Path.dirname(one.target)),
         :ok <- keep_old(one),
         :ok <- Store.write_flushed(one.new, bytes) do
      same_mode(one)
    end
  end

  defp keep_old(%{had_old?: true} = one), do: File.cp(one.target, one.old)
  defp keep_old(%{had_old?: false}), do: :ok

  defp same_mode(%{had_old?: false}), do: :ok

  defp same_mode(one) do
    with {:ok, %File.Stat{mode: mode}} <- File.stat(one.target), do: File.chmod(one.new, mode)
  end

  defp put_back(%{had_old?: true} = one), do: File.rename(one.old, one.target)
  defp put_back(%{had_old?: false} = one), do: File.rm(one.target)

  defp tidy(staged) do
    for one <- staged, path <- [one.new, one.old], do: _ = File.rm(path)
    :ok
  end

  # A rename is on disk when its folder is. Where folders cannot be flushed there is
  # nothing better to do.
  defp sync_folders(staged) do
    staged |> Enum.map(&Path.dirname(&1.target)) |> Enum.uniq() |> Enum.each(&sync_folder/1)
  end

  defp sync_folder(folder) do
    with {:ok, device} <- :file.open(folder, [:read, :raw, :directory]) do
      _ = :file.sync(device)
      _ = :file.close(device)
    end

    :ok
  end
end
