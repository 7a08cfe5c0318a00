defmodule HotPatch.Store.PutBack do
  @moduledoc false
  # Puts the files of patches that have ended back to what was there before them, see
  # HotPatch.Store.Leftovers.

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.FileChange
  alias HotPatch.Store.FileMark
  alias HotPatch.Store.Leftovers
  alias HotPatch.Store.Recovery
  alias HotPatch.Store.SharedHost
  alias HotPatch.Store.Transaction
  alias HotPatch.Support.Hex

  @doc """
  Puts the files back that can be put back now, and lets go of those that are gone. Gives the state with
  those that are left, which is written, and those that went back.
  """
  @spec run(Applied.state()) ::
          {:ok, Applied.state(), [Leftovers.t()]} | {:error, Transaction.failure()}
  def run(%{ended: []} = state), do: {:ok, state, []}

  def run(state) do
    {open, done} = Enum.split_with(state.ended, &(&1.done == nil))
    held = if open == [], do: [], else: SharedHost.held()
    in_force = if open == [], do: [], else: in_force(state)
    groups = Enum.group_by(open, &Leftovers.judge(&1, facts(&1, state, {held, in_force})))
    {back, lost} = groups |> Map.get(:back, []) |> Enum.split_with(&kept?/1)
    # What is to run where a patch of today has the file, that says.
    gone =
      for file <- back ++ Map.get(groups, :forget, []),
          wanted(file, in_force) == :none,
          do: %{file | done: state.boot}

    # Those of earlier boots: nothing of them is in memory.
    done = Enum.filter(done, &(&1.done == state.boot))
    left = %{state | ended: Map.get(groups, :keep, []) ++ lost ++ gone ++ done}

    cond do
      back != [] -> replace(back, left)
      Enum.sort(left.ended) != Enum.sort(state.ended) -> write(left)
      true -> {:ok, state, []}
    end
  end

  defp facts(file, state, {held, in_force}) do
    %{
      digest: FileMark.digest(file.real),
      stamp: FileMark.stamp(file.real),
      folder?: file.real |> Path.dirname() |> File.dir?(),
      in_force: wanted(file, in_force),
      held?: {file.real, file.new} in held,
      release: Release.to_map(state.release)
    }
  end

  # Those of a patch that others have taken the place of are its own still.
  defp in_force(state), do: state.stack |> Applied.on_disk() |> Applied.net()

  defp wanted(file, in_force) do
    case find(in_force, file) do
      nil -> :none
      %{new: wanted} -> if wanted == file.old, do: :as_before, else: :other
    end
  end

  defp find(in_force, file), do: Enum.find(in_force, &(file.real in [&1.real, &1.target]))

  defp kept?(%{old: nil}), do: true
  defp kept?(%{old: digest}), do: match?({:ok, _bytes}, Blobs.fetch(Store.blobs(), digest))

  defp replace(files, state) do
    in_force = in_force(state)

    with {:ok, intent} <- files |> Enum.map(&change(&1, in_force)) |> Transaction.stage(tag()),
         {:ok, intent} <- Transaction.decide(intent, note(files, state)),
         :ok <- Recovery.finish(intent),
         do: {:ok, state, files}
  end

  defp change(%{old: nil} = file, _in_force),
    do: %FileChange{target: file.real, bytes: nil, folders: file.folders}

  defp change(file, in_force) do
    {:ok, bytes} = Blobs.fetch(Store.blobs(), file.old)
    rights = with %{} = patched <- find(in_force, file), do: patched.rights
    %FileChange{target: file.real, bytes: bytes, rights: rights}
  end

  defp tag, do: "hot_patch-ended-#{:erlang.phash2(node())}"

  defp note(files, state) do
    releases = files |> Enum.map(&Release.text(Release.from_map(&1.release))) |> Enum.uniq()

    entry = %{
      op: Hex.random(),
      patch: files |> Enum.map(& &1.patch) |> Enum.uniq() |> Enum.join(", "),
      by: "HotPatch",
      reason: "the files of #{Enum.join(releases, ", ")} are as they were before",
      release: state.release
    }

    Recovery.note(state, :put_back, entry)
  end

  defp write(state) do
    case Applied.put(state) do
      :ok -> {:ok, state, []}
      {:error, posix} -> {:error, {Store.directory(), posix}}
    end
  end
end
