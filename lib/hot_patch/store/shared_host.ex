defmodule HotPatch.Store.SharedHost do
  @moduledoc false
  # Other nodes of this host that keep their data in the same place. They may share the
  # release's folder too: then what one has put there is there for all, and while one was
  # away another may have changed the files under it.

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Applied.Format
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.FileMark
  alias HotPatch.Store.Leftovers
  alias HotPatch.Store.Transaction
  alias HotPatch.Support.Folder

  @doc "What the nodes, this one among them, have noted of a patch of this release, with the node's folder."
  @spec records(String.t()) :: [{Path.t(), Applied.t()}]
  def records(id) do
    %{release: release} = Applied.state()

    for {folder, %{release: ^release, stack: stack}} <- states(),
        %{id: ^id} = record <- stack,
        do: {folder, record}
  end

  @doc "The versions of the releases that other nodes are known to run."
  @spec versions() :: [String.t()]
  def versions do
    for {folder, %{release: release}} <- states(),
        folder != Store.directory(),
        uniq: true,
        do: release.version
  end

  @doc "Rollbacks in the same installation of what a state has in force, that it does not know."
  @spec rollbacks(Applied.state()) :: [Applied.op()]
  def rollbacks(%{install: nil}), do: []

  def rollbacks(%{install: install, release: release} = state) do
    known = MapSet.new(state.ops, & &1.id)
    in_force = MapSet.new(state.stack, & &1.id)

    for(
      {_folder, %{install: ^install, release: ^release, ops: ops}} <- states(),
      op <- ops,
      do: op
    )
    |> Enum.filter(&(&1.kind == :rollback and &1.patch in in_force and &1.id not in known))
    |> Enum.uniq_by(& &1.id)
    |> Enum.sort_by(& &1.seq)
  end

  @doc "Whether another node has decided to change one of these files, and has not ended."
  @spec busy_with?([Applied.file()]) :: boolean()
  def busy_with?(files) do
    targets = MapSet.new(files, & &1.target)

    Enum.any?(decided(), &(&1.target in targets))
  end

  @doc """
  Whether another node has put what was there before the patches of a release in the place of these files, with an upgrade
  from that release: it has it in force, is about to, or has started the former release and not come to the files.
  """
  @spec left?([Applied.file()], Release.t()) :: boolean()
  def left?(files, release) do
    put = MapSet.new(Enum.flat_map(folders() -- [Store.directory()], &put_back(&1, release)))
    Enum.all?(files, &({&1.target, &1.new, &1.old} in put))
  end

  defp put_back(folder, release) do
    state = Applied.read(folder)
    stack = if state, do: state.stack, else: []
    upgraded = for %{upgrade: %{}, files: files} <- Applied.all(stack), file <- files, do: file

    decided =
      for %{state: :decided, note: %{what: :apply, state: state}, files: files} <-
            Transaction.pending(folder),
          Format.decode(state).release != release,
          file <- files,
          do: file

    ended =
      for file <- Leftovers.open((state && state.ended) || []),
          do: Map.put(file, :target, file.real)

    for file <- upgraded ++ decided ++ ended, do: {file.target, file.old, file.new}
  end

  @doc """
  Files that other nodes have made what they are, by a patch that is in force there or that is about to
  be: where they really are, and the digests.
  """
  @spec held() :: [{Path.t(), Blobs.digest() | nil}]
  def held do
    in_force =
      for {folder, %{stack: stack}} <- states(),
          folder != Store.directory(),
          file <- stack |> Applied.on_disk() |> Applied.net(),
          do: file

    for file <- in_force ++ decided(), do: {file[:real] || FileMark.real(file.target), file.new}
  end

  defp decided do
    for folder <- folders() -- [Store.directory()],
        %{state: :decided, files: files} <- Transaction.pending(folder),
        file <- files,
        do: file
  end

  @doc """
  Whether another node has put a file with this digest in place for good: it has decided to, or has
  it in force.
  """
  @spec have?(Path.t(), Blobs.digest()) :: boolean()
  def have?(target, digest) do
    Enum.any?(folders() -- [Store.directory()], fn folder ->
      decided = for %{state: :decided, files: files} <- Transaction.pending(folder), do: files
      Enum.any?(decided ++ [in_force(folder)], &(last(&1, target) == digest))
    end)
  end

  defp in_force(folder) do
    case Applied.read(folder) do
      %{stack: stack} -> stack |> Applied.on_disk() |> Applied.all() |> Enum.flat_map(&files/1)
      nil -> []
    end
  end

  defp files(%{upgrade: nil, files: files}), do: files
  defp files(%{upgrade: upgrade, files: files}), do: upgrade.files ++ files

  # The last of them counts, also where it has taken the file away.
  defp last(files, target) do
    with %{new: new} <- files |> Enum.reverse() |> Enum.find(&(&1.target == target)), do: new
  end

  defp states do
    for folder <- folders(), state = Applied.read(folder), do: {folder, state}
  end

  defp folders, do: Store.directory() |> Path.dirname() |> Folder.folders()
end
