defmodule HotPatch.Store.DataDir do
  @moduledoc false
  # The data directory of a node that HotPatch comes to and leaves again.

  alias HotPatch.Host.Attachment
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Archives
  alias HotPatch.Store.InstallMark
  alias HotPatch.Store.Journal
  alias HotPatch.Store.Leftovers
  alias HotPatch.Store.Transaction

  @doc "Makes the data directory, and makes sure that it can be written."
  @spec take() :: :ok | {:error, {:data_dir, String.t()}}
  def take do
    folder = Store.directory()
    made = missing(folder)
    probe = Path.join(folder, "attached")
    Attachment.note_folders(made)

    with :ok <- Store.make_folder(folder),
         :ok <- Store.write(probe, ""),
         :ok <- File.rm(probe) do
      :ok
    else
      {:error, posix} -> {:error, {:data_dir, "#{folder}: #{:file.format_error(posix)}"}}
    end
  rescue
    # The user's data directory is not known where there is no HOME.
    error -> {:error, {:data_dir, Exception.message(error)}}
  end

  defp missing(folder) do
    if File.exists?(folder), do: [], else: [folder | missing(Path.dirname(folder))]
  end

  @doc "Whether there is anything that a rollback, or what is not ended yet, would need."
  @spec needed?() :: boolean()
  def needed? do
    kept? =
      case Applied.read() do
        nil -> false
        state -> state.stack != [] or Leftovers.open(state.ended) != []
      end

    kept? or Transaction.pending() != []
  end

  @doc """
  Removes the data directory where nothing of it is needed any more, and gives what its
  journal had; `:kept` where it stays. HotPatch must not run.
  """
  @spec leave() :: {:removed, [Journal.entry()]} | :kept
  def leave do
    if needed?() or Archives.list() != [] do
      :kept
    else
      journal = Journal.list()
      remove(Store.directory(), Applied.read())
      {:removed, journal}
    end
  rescue
    # No directory could be taken, see above.
    _error -> :kept
  end

  defp remove(folder, state) do
    if state, do: InstallMark.remove(state.install)
    _ = File.rm_rf(folder)
    Enum.each(Map.get(Attachment.here(), :folders, []), &File.rmdir/1)
    # Where it was ours, and no other node of this host has its data there.
    above = Path.dirname(folder)
    _ = if Path.basename(above) == "hot_patch", do: File.rmdir(above)
    :ok
  end
end
