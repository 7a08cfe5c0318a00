defmodule HotPatch.Store.Decisions do
  @moduledoc false
  # What coordinators of this node have decided, written before any node is told. Whatever dies
  # then, an operation that is written down here is carried out by all, and one that is not by
  # nobody. It is forgotten when this node itself has the operation among those it knows; and with the
  # boot, where it was for memory only: what it would have come to is gone then, too.

  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Support.Folder

  @version 1

  @doc "Writes a decision down."
  @spec put(Applied.op()) :: :ok | {:error, {Path.t(), File.posix()}}
  def put(op) do
    path = path(op.id)
    decision = on_disk(%{op: op}, Applied.state().release)
    with {:error, posix} <- Store.write_term(path, decision), do: {:error, {path, posix}}
  end

  @doc "The operations decided under a release."
  @spec list(Release.t()) :: [Applied.op()]
  def list(release) do
    for path <- paths(), %{op: op, release: ^release} <- [read(path)], do: op
  end

  # What was decided for memory in an earlier life of the VM is nothing that anybody has missed. That
  # such a patch is to go is: others may have it still.
  defp outlived?(%{op: %{kind: :apply, disk: :memory_only}, boot: boot}),
    do: boot != Applied.boot()

  defp outlived?(_counts), do: false

  @doc "Forgets those that the state has, and those of other releases."
  @spec tidy(Applied.state()) :: :ok
  def tidy(state) do
    release = state.release
    known = Map.new(state.ops, &{&1.id, &1})

    for path <- paths() do
      needed? =
        match?(%{op: %{id: id}, release: ^release} when not is_map_key(known, id), read(path))

      _ = needed? || File.rm(path)
    end

    :ok
  end

  @doc "Forgets those of a release."
  @spec forget(Release.t()) :: :ok
  def forget(release) do
    for path <- paths(), match?(%{release: ^release}, read(path)), do: _ = File.rm(path)
    :ok
  end

  @doc "Has those of one release count under another: the same system has got another name."
  @spec rebind(Release.t(), Release.t()) :: :ok | {:error, File.posix()}
  def rebind(before, now) do
    Enum.reduce(paths(), :ok, fn path, result ->
      case read(path) do
        %{release: ^before} = decision ->
          first(result, Store.write_term(path, on_disk(decision, now)))

        _of_another ->
          result
      end
    end)
  end

  defp first(:ok, result), do: result
  defp first(error, _result), do: error

  defp on_disk(decision, release),
    do: %{
      v: @version,
      op: decision.op,
      release: Release.to_map(release),
      boot: decision[:boot] || Applied.boot()
    }

  # One that has no version yet has the release as a struct.
  defp read(path) do
    case Store.read_term(path) do
      {:ok, %{op: op, release: release} = term} ->
        decision = %{
          op: Operation.from_record(op),
          release: Release.from_map(release),
          boot: term[:boot]
        }

        if outlived?(decision), do: nil, else: decision

      _damaged_or_gone ->
        nil
    end
  end

  defp paths, do: Folder.files(folder(), ".record")

  defp path(id), do: Path.join(folder(), id <> ".record")
  defp folder, do: Path.join(Store.directory(), "decisions")
end
