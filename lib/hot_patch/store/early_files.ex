defmodule HotPatch.Store.EarlyFiles do
  @moduledoc false
  # Files that new code needs when it is loaded: NIF libraries, and whatever else lies below priv.
  # They are put in place before that, when nothing is decided yet, and go back if nothing comes of
  # it. The intent of the set says which they are and what was there before, so that a start
  # after `kill -9` takes them back as well.
  #
  # What was there stays beside the new file under another name until the set has ended: the way
  # back is then one rename, which needs no room on the disk and brings back the very file.

  alias HotPatch.Store.SharedHost
  alias HotPatch.Store.Transaction
  alias HotPatch.Support.FaultPoint

  @doc "Puts the early files of a staged set in place, all or none."
  @spec put(Transaction.intent()) :: :ok | {:error, Transaction.failure()}
  def put(intent) do
    case early(intent) do
      [] -> :ok
      files -> Transaction.locked(fn -> put_all(files) end)
    end
  end

  defp put_all(files) do
    with {:error, failure} <- each(files, &put_one/1) do
      _ = each(files, &take_back_one/1)
      {:error, failure}
    end
  end

  @doc "Takes back what `put/1` has put in place; as often as one likes."
  @spec take_back(Transaction.intent()) :: :ok | {:error, Transaction.failure()}
  def take_back(intent) do
    case Enum.filter(early(intent), &(placed?(&1) or File.exists?(Transaction.before(&1.staged)))) do
      [] -> :ok
      files -> Transaction.locked(fn -> each(files, &take_back_one/1) end)
    end
  end

  @doc """
  Takes back the early files of a set, runs `fun`, and gives its result: code that is loaded back then
  finds what it was made with. Until `fun` is over no other node of this host that shares the files
  puts any there.
  """
  @spec taken_back(Transaction.intent(), (() -> result)) :: result when result: term()
  def taken_back(intent, fun) do
    with [_ | _] = files <- early(intent),
         {:done, result} <- Transaction.locked(fn -> taken_back_all(files, fun) end) do
      result
    else
      # Nothing is there to be taken back, or the lock cannot be had: the code comes back all the same.
      _ -> fun.()
    end
  end

  defp taken_back_all(files, fun) do
    _ = each(files, &take_back_one/1)
    {:done, fun.()}
  end

  @doc "Whether any early file of a set that is not decided is in place."
  @spec begun?(Transaction.intent()) :: boolean()
  def begun?(%{state: :staged} = intent), do: Enum.any?(early(intent), &placed?/1)
  def begun?(_decided), do: false

  # What another node of this host has put there is there.
  defp early(intent) do
    for %{early?: true, disk?: true, new: new, old: old} = file <- intent.files,
        new != nil and new != old,
        do: file
  end

  defp placed?(file), do: Transaction.digest(file.target) == file.new

  # The first failure counts, and the rest is tried all the same.
  defp each(files, fun), do: Transaction.settled(for file <- files, do: {file.target, fun.(file)})

  defp put_one(file) do
    if placed?(file) do
      :ok
    else
      keep_before(file)
      FaultPoint.point(:early_kept)
      result = File.rename(file.staged, file.target)
      FaultPoint.point(:early_placed)
      result
    end
  end

  # Where a file cannot have two names its bytes are among the blobs.
  defp keep_before(%{old: nil}), do: :ok

  defp keep_before(file) do
    before = Transaction.before(file.staged)
    _ = File.rm(before)
    _ = :file.make_link(file.target, before)
    :ok
  end

  defp take_back_one(file) do
    before = Transaction.before(file.staged)

    cond do
      # Another node of the host may have removed the file, and left the folder to who has made it.
      not placed?(file) ->
        with :ok <- removed(before), do: unmake(file)

      # It is decided there: this node will come to it as well.
      SharedHost.have?(file.target, file.new) ->
        removed(before)

      Transaction.digest(before) == file.old and file.old != nil ->
        File.rename(before, file.target)

      file.old == nil ->
        remove(file)

      true ->
        Transaction.put(file, file.old)
    end
  end

  defp remove(file) do
    with :ok <- removed(file.target), do: unmake(file)
  end

  # Those that are empty.
  defp unmake(file) do
    for folder <- file.made, do: _ = File.rmdir(folder)
    :ok
  end

  defp removed(path) do
    with {:error, :enoent} <- File.rm(path), do: :ok
  end
end
