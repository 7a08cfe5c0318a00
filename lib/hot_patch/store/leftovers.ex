defmodule HotPatch.Store.Leftovers do
  @moduledoc false
  # The files of patches that have ended, while they are still on disk: in the folder of a version
  # that does not run any more, or in one that two versions share. Somebody may start that version
  # again, so they go back to what was there before the patches; and where that cannot be done now,
  # what it takes is kept until it can, or until the files are gone.

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.FileChange
  alias HotPatch.Store.FileMark
  alias HotPatch.Store.Recovery
  alias HotPatch.Store.SharedHost
  alias HotPatch.Store.Transaction
  alias HotPatch.Support.Hex

  @typedoc """
  `patch` is the last that has changed the file, under `release`; `old` is what was there before the
  first. `md5` is the digest of the patched code, nil for what is no module. `done` is the boot in which
  the file went back, or was found gone: until the next one the patched code may be in memory still.
  """
  @type t :: %{
          real: Path.t(),
          module: String.t() | nil,
          old: Blobs.digest() | nil,
          new: Blobs.digest() | nil,
          md5: binary() | nil,
          folders: [Path.t()],
          stamp: FileMark.stamp() | nil,
          patch: String.t(),
          release: %{name: String.t(), version: String.t()},
          done: term()
        }

  @typedoc """
  What there is now. `folder?`: its folder is there. `in_force?`: a patch of today has to do with the
  file. `held?`: another node of this host has the patch in force, and the same file.
  """
  @type facts :: %{
          digest: Blobs.digest() | nil,
          stamp: FileMark.stamp() | nil,
          folder?: boolean(),
          in_force?: boolean(),
          held?: boolean(),
          release: %{name: String.t(), version: String.t()}
        }

  @doc "Those of a state when all its patches end, with those that are left from before."
  @spec of(Applied.state()) :: [t()]
  def of(state) do
    state.stack
    |> Applied.on_disk()
    |> Applied.net()
    |> Enum.reject(&(&1.old == &1.new))
    |> Enum.map(&leftover(&1, state.release))
    |> Enum.reduce(state.ended, &add/2)
  end

  defp leftover(file, release) do
    file
    |> Map.take([:module, :old, :new, :md5, :folders, :stamp])
    |> Map.merge(%{
      real: file.real || FileMark.real(file.target),
      patch: file.id,
      release: Release.to_map(release),
      done: nil
    })
  end

  # A patch that was applied over such a file knows only that as what was there before.
  defp add(file, ended) do
    {before, others} = Enum.split_with(ended, &(&1.real == file.real))

    case before do
      [%{new: new, done: nil} = first] when new == file.old ->
        [%{file | old: first.old, folders: first.folders} | others]

      _none_or_another_file_since ->
        [file | others]
    end
  end

  @doc "Those whose files are still as a patch has left them, as far as it is known."
  @spec open([t()]) :: [t()]
  def open(ended), do: Enum.filter(ended, &(&1.done == nil))

  @doc """
  Puts the files back that can be put back now, and lets go of those that are gone. Gives the state with
  those that are left, which is written, and those that went back.
  """
  @spec put_back(Applied.state()) ::
          {:ok, Applied.state(), [t()]} | {:error, Transaction.failure()}
  def put_back(%{ended: []} = state), do: {:ok, state, []}

  def put_back(state) do
    {open, done} = Enum.split_with(state.ended, &(&1.done == nil))
    held = if open == [], do: [], else: SharedHost.held()
    groups = Enum.group_by(open, &judge(&1, facts(&1, state, held)))
    {back, lost} = groups |> Map.get(:back, []) |> Enum.split_with(&kept?/1)
    gone = for file <- back ++ Map.get(groups, :forget, []), do: %{file | done: state.boot}
    # Those of earlier boots: nothing of them is in memory.
    done = Enum.filter(done, &(&1.done == state.boot))
    left = %{state | ended: Map.get(groups, :keep, []) ++ lost ++ gone ++ done}

    cond do
      back != [] -> replace(back, left)
      Enum.sort(left.ended) != Enum.sort(state.ended) -> write(left)
      true -> {:ok, state, []}
    end
  end

  defp facts(file, state, held) do
    %{
      digest: FileMark.digest(file.real),
      stamp: FileMark.stamp(file.real),
      folder?: file.real |> Path.dirname() |> File.dir?(),
      in_force?: Enum.any?(state.stack, &touches?(&1, file)),
      held?: {file.real, file.new} in held,
      release: Release.to_map(state.release)
    }
  end

  defp touches?(record, file), do: Enum.any?(record.files, &(file.real in [&1.real, &1.target]))

  @doc "What is to be done with one: `:back`, `:keep` it for later, or `:forget` it."
  @spec judge(t(), facts()) :: :back | :keep | :forget
  def judge(file, facts) do
    cond do
      facts.in_force? or facts.held? -> :keep
      # Made by the patch for a file of its own.
      not facts.folder? -> :forget
      facts.digest == file.old or facts.digest != file.new -> :forget
      ours?(file, facts) -> :back
      true -> :keep
    end
  end

  # With the same content it may have been installed since, by a version that has it for its own. That
  # of the version which was patched has what was there before.
  defp ours?(%{stamp: stamp} = file, facts),
    do: stamp in [nil, facts.stamp] or file.release == facts.release

  defp kept?(%{old: nil}), do: true
  defp kept?(%{old: digest}), do: match?({:ok, _bytes}, Blobs.fetch(Store.blobs(), digest))

  defp replace(files, state) do
    with {:ok, intent} <- files |> Enum.map(&change/1) |> Transaction.stage(tag()),
         {:ok, intent} <- Transaction.decide(intent, note(files, state)),
         :ok <- Recovery.finish(intent),
         do: {:ok, state, files}
  end

  defp change(%{old: nil} = file),
    do: %FileChange{target: file.real, bytes: nil, folders: file.folders}

  defp change(file) do
    {:ok, bytes} = Blobs.fetch(Store.blobs(), file.old)
    %FileChange{target: file.real, bytes: bytes}
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
