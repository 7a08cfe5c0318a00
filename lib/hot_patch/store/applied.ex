defmodule HotPatch.Store.Applied do
  @moduledoc false
  # Which patches were applied on this node, and what they left for a restart to do. Bound
  # to the release: under another version the record counts for nothing.

  alias HotPatch.Release
  alias HotPatch.Store

  @boot {__MODULE__, :boot}

  @typedoc """
  `restart` names why memory is not what the disk is, until the node restarts. `added` are
  the files of modules that the release did not have: its boot script does not load them.
  `forced?`: processes were killed for it.
  """
  @type record :: %{
          id: String.t(),
          at: DateTime.t(),
          by: String.t(),
          release: Release.t(),
          restart: String.t() | nil,
          added: [Path.t()],
          forced?: boolean(),
          boot: term()
        }

  @doc "Records of this release, oldest first; what a restart has mended is left out."
  @spec list() :: [record()]
  def list do
    release = Release.current()
    boot = boot()

    for %{release: ^release} = record <- read() do
      if record.boot == boot, do: record, else: %{record | restart: nil}
    end
  end

  @doc """
  Records of this release of every node that keeps its data in the same place: they may
  share the release's folder too, and then what one added is there for all.
  """
  @spec list_of_all_nodes() :: [record()]
  def list_of_all_nodes do
    release = Release.current()

    for path <- Path.wildcard(Path.join(Path.dirname(Store.directory()), "*/applied.record")),
        {:ok, records} <- [Store.read_term(path)],
        %{release: ^release} = record <- records,
        do: record
  end

  @doc "Adds a record; an earlier one of the same patch gives way."
  @spec add(
          %{:patch => String.t(), :by => String.t(), optional(atom()) => term()},
          String.t() | nil,
          [Path.t()],
          boolean()
        ) ::
          :ok | {:error, File.posix()}
  def add(%{patch: id, by: by}, restart, added, forced?) do
    {earlier, others} = Enum.split_with(list(), &(&1.id == id))

    record = %{
      id: id,
      # What this patch added once is not new when it is applied again.
      added: Enum.uniq(Enum.flat_map(earlier, & &1.added) ++ added),
      at: DateTime.utc_now(),
      by: by,
      release: Release.current(),
      restart: restart,
      forced?: forced?,
      boot: boot()
    }

    Store.write_term(path(), others ++ [record])
  end

  defp read do
    case Store.read_term(path()) do
      {:ok, records} -> records
      :error -> []
    end
  end

  # Tells one run of the VM from the next.
  defp boot do
    case :persistent_term.get(@boot, nil) do
      nil ->
        :persistent_term.put(@boot, :crypto.strong_rand_bytes(16))
        boot()

      boot ->
        boot
    end
  end

  defp path, do: Path.join(Store.directory(), "applied.record")
end
