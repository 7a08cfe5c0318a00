defmodule HotPatch.Store.Files do
  @moduledoc false
  # Replaces a set of files of the running version: staged beside their targets first,
  # where a full or read-only disk shows before anything has changed, then renamed.

  alias HotPatch.Store

  @type change :: {target :: Path.t(), bytes :: binary()}
  @type staged :: [{target :: Path.t(), new :: Path.t(), old :: Path.t() | nil}]
  @type failure :: {Path.t(), File.posix()}

  @doc "Writes all new files beside their targets and keeps the old ones at hand."
  @spec stage([change()], String.t()) :: {:ok, staged()} | {:error, failure()}
  def stage(changes, tag) do
    Enum.reduce_while(changes, {:ok, []}, fn {target, bytes}, {:ok, staged} ->
      case stage_one(target, bytes, tag) do
        {:ok, one} ->
          {:cont, {:ok, [one | staged]}}

        {:error, reason} ->
          unstage([{target, new(target, tag), old(target, tag)} | staged])
          {:halt, {:error, {target, reason}}}
      end
    end)
  end

  @doc "Removes what staging has left; the targets are as they were."
  @spec unstage(staged()) :: :ok
  def unstage(staged) do
    for {_target, new, old} <- staged, path <- [new, old], path != nil do
      _ = File.rm(path)
    end

    :ok
  end

  @doc "Puts all staged files in place, or, if one cannot be, none of them."
  @spec replace(staged()) :: :ok | {:error, failure()}
  def replace(staged) do
    result =
      Enum.reduce_while(staged, {:ok, []}, fn {target, new, _old} = one, {:ok, done} ->
        case File.rename(new, target) do
          :ok -> {:cont, {:ok, [one | done]}}
          {:error, reason} -> {:halt, {:error, {target, reason}, done}}
        end
      end)

    case result do
      {:ok, _done} ->
        sync_folders(staged)
        unstage(staged)

      {:error, failure, done} ->
        Enum.each(done, &put_back/1)
        unstage(staged)
        {:error, failure}
    end
  end

  defp stage_one(target, bytes, tag) do
    with :ok <- File.mkdir_p(Path.dirname(target)),
         {:ok, old} <- keep_old(target, old(target, tag)),
         :ok <- Store.write_flushed(new(target, tag), bytes),
         :ok <- same_mode(target, new(target, tag)) do
      {:ok, {target, new(target, tag), old}}
    end
  end

  defp keep_old(target, old) do
    if File.exists?(target) do
      with :ok <- File.cp(target, old), do: {:ok, old}
    else
      {:ok, nil}
    end
  end

  defp same_mode(target, new) do
    case File.stat(target) do
      {:ok, %File.Stat{mode: mode}} -> File.chmod(new, mode)
      {:error, :enoent} -> :ok
      error -> error
    end
  end

  defp put_back({target, _new, nil}), do: File.rm(target)
  defp put_back({target, _new, old}), do: File.rename(old, target)

  # A rename is on disk when its folder is.
  defp sync_folders(staged) do
    for folder <- staged |> Enum.map(&Path.dirname(elem(&1, 0))) |> Enum.uniq() do
      with {:ok, device} <- :file.open(folder, [:read, :raw, :directory]) do
        _ = :file.sync(device)
        :file.close(device)
      end
    end
  end

  defp new(target, tag), do: "#{target}.#{tag}.new"
  defp old(target, tag), do: "#{target}.#{tag}.old"
end
