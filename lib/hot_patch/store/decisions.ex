defmodule HotPatch.Store.Decisions do
  @moduledoc false
  # What coordinators of this node have decided, written before any node is told. Whatever dies
  # then, an operation that is written down here is carried out by all, and one that is not by
  # nobody. It is forgotten when this node itself has the operation among those it knows.

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Dir

  @doc "Writes a decision down."
  @spec put(Applied.op()) :: :ok | {:error, {Path.t(), File.posix()}}
  def put(op) do
    path = path(op.id)
    decision = %{op: op, release: Release.current()}
    with {:error, posix} <- Store.write_term(path, decision), do: {:error, {path, posix}}
  end

  @doc "The operations decided under a release."
  @spec list(Release.t()) :: [Applied.op()]
  def list(release) do
    for path <- Dir.files(folder(), ".record"),
        {:ok, %{op: op, release: ^release}} <- [Store.read_term(path)],
        do: op
  end

  @doc "Forgets those that the state has, and those of other releases."
  @spec tidy(Applied.state()) :: :ok
  def tidy(state) do
    release = state.release
    known = Map.new(state.ops, &{&1.id, &1})

    for path <- Dir.files(folder(), ".record") do
      needed? =
        match?(
          {:ok, %{op: %{id: id}, release: ^release}} when not is_map_key(known, id),
          Store.read_term(path)
        )

      _ = needed? || File.rm(path)
    end

    :ok
  end

  defp path(id), do: Path.join(folder(), id <> ".record")
  defp folder, do: Path.join(Store.directory(), "decisions")
end
