defmodule HotPatch.Store.Applied.Format do
  @moduledoc false
  # How the state of a node is kept on disk: a plain map that names its version. It holds no structs
  # of ours, so that a field more in one of them changes nothing that was written before.

  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Store.Applied

  @version 3

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

  # The same term in the version of today; nil if it is no state. That of an earlier version is to
  # become one of today here.
  defp migrate(%{v: @version} = map), do: map

  # There were no upgrades.
  defp migrate(%{v: 2} = map),
    do: migrate(%{map | v: 3, stack: Enum.map(map.stack, &with_upgrade/1)})

  # Settings took the place of what was there.
  defp migrate(%{v: 1} = map),
    do: migrate(%{map | v: 2, stack: Enum.map(map.stack, &with_given/1)})

  defp migrate(%{v: newer}) do
    raise "what is applied on this node was written by a newer HotPatch (format #{inspect(newer)}, this " <>
            "one knows #{@version}): install that again, or one newer still"
  end

  defp migrate(_no_state), do: nil

  defp with_upgrade(record) do
    replaced = Enum.map(record.replaced, &with_upgrade/1)
    record |> Map.put_new(:upgrade, nil) |> Map.put(:replaced, replaced)
  end

  defp with_given(record) do
    config = for setting <- record.config, do: Map.put_new(setting, :given, :replace)
    %{record | config: config, replaced: Enum.map(record.replaced, &with_given/1)}
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
