defmodule HotPatch.Store.Leftovers do
  @moduledoc false
  # The files of patches that have ended, while they are still on disk: in the folder of a version
  # that does not run any more, or in one that two versions share. Somebody may start that version
  # again, so they go back to what was there before the patches; and where that cannot be done now,
  # what it takes is kept until it can, or until the files are gone.

  alias HotPatch.Release
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.FileMark

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
  What there is now. `folder?`: its folder is there. `in_force`: a patch of today has to do with the
  file, and wants it `:as_before` the one that has ended, or otherwise, `:other`. `held?`: another node of this host
  has the patch in force, and the same file.
  """
  @type facts :: %{
          digest: Blobs.digest() | nil,
          stamp: FileMark.stamp() | nil,
          folder?: boolean(),
          in_force: :none | :as_before | :other,
          held?: boolean(),
          release: %{name: String.t(), version: String.t()}
        }

  @doc """
  Those of all patches of a release that ends: of what they have made of the files (Applied.net/1), with
  those that are left from before.
  """
  @spec of([map()], Release.t(), [t()]) :: [t()]
  def of(files, release, ended) do
    files
    |> Enum.reject(&(&1.old == &1.new))
    |> Enum.map(&leftover(&1, release))
    |> Enum.reduce(ended, &add/2)
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

  @doc "What is to be done with one: `:back`, `:keep` it for later, or `:forget` it."
  @spec judge(t(), facts()) :: :back | :keep | :forget
  def judge(file, facts) do
    cond do
      facts.in_force == :other -> :keep
      # What a start boots has its files, whatever others run that were not started since.
      facts.in_force == :none and facts.held? -> :keep
      # Made by the patch for a file of its own. Where that comes again, it makes its folder.
      not facts.folder? and facts.in_force == :none -> :forget
      facts.digest == file.old or facts.digest != file.new -> :forget
      facts.in_force == :as_before or ours?(file, facts) -> :back
      true -> :keep
    end
  end

  # With the same content it may have been installed since, by a version that has it for its own. That
  # of the version which was patched has what was there before.
  defp ours?(%{stamp: stamp} = file, facts),
    do: stamp in [nil, facts.stamp] or file.release == facts.release
end
