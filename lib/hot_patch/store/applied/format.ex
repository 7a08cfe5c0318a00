defmodule HotPatch.Store.Applied.Format do
  @moduledoc false
  # How the state of a node is kept on disk: a plain map that names its version. It holds no structs
  # of ours, so that a field more in one of them changes nothing that was written before.

  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Store.Applied
  alias HotPatch.Strategy

  @version 1

  @record %{
    about: nil,
    forced?: false,
    memory_only?: false,
    boot: nil,
    payload: nil,
    config: [],
    down: [],
    applications: [],
    stopped: [],
    strategy: Strategy.default(),
    replaced: []
  }
  @file_defaults %{
    folders: [],
    convert?: true,
    gone?: false,
    returned?: false,
    move: nil,
    ran: nil,
    md5: nil,
    real: nil,
    stamp: nil,
    rights: nil
  }

  @doc "A state as it is written."
  @spec encode(Applied.state()) :: map()
  def encode(state) do
    state
    |> Map.put(:v, @version)
    |> Map.update!(:release, &Release.to_map/1)
    |> Map.update!(:stack, fn stack ->
      Enum.map(stack, &about(&1, fn r -> Release.to_map(r) end))
    end)
  end

  @doc """
  The state that a term from the disk holds, in whichever version it was written; nil if it is none.

  Raises for one of a later version: to take it for nothing would lose the way back of what is applied.
  """
  @spec decode(term()) :: Applied.state() | nil
  def decode(term) do
    with %{v: @version} = map <- migrate(term) do
      map
      |> Map.delete(:v)
      |> Map.update!(:release, &Release.from_map/1)
      |> Map.update!(:ops, fn ops -> Enum.map(ops, &Operation.from_record/1) end)
      |> Map.update!(:stack, fn stack ->
        Enum.map(stack, &about(&1, fn r -> Release.from_map(r) end))
      end)
    end
  end

  # The same term in the version of today; nil if it is no state.
  defp migrate(%{v: @version} = map), do: map

  defp migrate(%{v: newer}) do
    raise "what is applied on this node was written by a newer HotPatch (format #{inspect(newer)}, this " <>
            "one knows #{@version}): install that again, or one newer still"
  end

  # Before versions were named: the release was a struct, an operation's end was told by time, and
  # why memory was not what the disk is stood in the record of the patch.
  defp migrate(%{release: release, stack: stack, ops: ops} = map) do
    %{
      v: @version,
      release: Map.take(release, [:name, :version]),
      boot: nil,
      install: Map.get(map, :install),
      retired: Map.new(Map.get(map, :retired, %{}), &retired(&1, ops)),
      stack: Enum.map(stack, &record/1),
      ops: ops,
      pending: for(%{restart: text} = record when text != nil <- stack, do: pending(record)),
      ended: []
    }
  end

  defp migrate(_no_state), do: nil

  defp retired({id, at}, ops) do
    before = for %{patch: ^id} = op <- ops, DateTime.compare(op.at, at) == :lt, do: op.seq
    {id, %{at: at, seq: Enum.max(before, fn -> 0 end)}}
  end

  defp record(record) do
    @record
    |> Map.merge(Map.drop(record, [:restart, :boot]))
    |> Map.update!(:files, fn files -> Enum.map(files, &Map.merge(@file_defaults, &1)) end)
    |> Map.update!(:replaced, fn replaced -> Enum.map(replaced, &record/1) end)
    |> about(&Map.take(&1, [:name, :version]))
  end

  defp pending(record) do
    %{
      patch: record.id,
      target: nil,
      module: nil,
      md5: nil,
      boot: record.boot,
      text: record.restart
    }
  end

  defp about(record, change) do
    record =
      case record do
        %{about: %{release: release} = about} ->
          %{record | about: %{about | release: change.(release)}}

        _nothing_is_known_of_it ->
          record
      end

    %{record | replaced: Enum.map(record.replaced, &about(&1, change))}
  end
end
