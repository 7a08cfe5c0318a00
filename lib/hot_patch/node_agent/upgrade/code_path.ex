defmodule HotPatch.NodeAgent.Upgrade.CodePath do
  @moduledoc false
  # The code path of a node whose release changes: each folder of an application that has another version
  # gives its place to that one's, what is new comes last, as in a boot script, and what is gone goes.

  alias HotPatch.Support.FileName

  @typedoc "Folders of modules, before and after; nil where there is none."
  @type move :: {former :: Path.t() | nil, new :: Path.t() | nil}

  @doc "Makes the change in one step, as often as one likes."
  @spec change([move()]) :: :ok
  def change(moves) do
    path = changed(:code.get_path(), moves)

    # The code server takes no path with a folder that is not there, though a VM may have been started with one.
    with {:error, _bad} <- :code.set_path(path), do: :code.set_path(Enum.filter(path, &there?/1))
    :ok
  end

  @doc """
  A code path after the change.

      iex> HotPatch.NodeAgent.Upgrade.CodePath.changed([~c"/r/lib/a-1/ebin", ~c"/r/lib/b-1/ebin"],
      ...>   [{"/r/lib/a-1/ebin", "/r/lib/a-2/ebin"}, {nil, "/r/lib/c-1/ebin"}, {"/r/lib/b-1/ebin", nil}])
      [~c"/r/lib/a-2/ebin", ~c"/r/lib/c-1/ebin"]
  """
  @spec changed([charlist()], [move()]) :: [charlist()]
  def changed(path, moves) do
    places = for {former, new} <- moves, former != nil, into: %{}, do: {former, new}
    kept = Enum.flat_map(path, &moved(&1, places))
    there = MapSet.new(kept, &expanded/1)
    kept ++ for({_former, new} <- moves, new != nil, new not in there, do: chars(new))
  end

  # Boot scripts of `mix release` name folders by way of others: lib/../releases/1.0.0/consolidated.
  defp moved(folder, places) do
    case Map.fetch(places, expanded(folder)) do
      {:ok, nil} -> []
      {:ok, new} -> [chars(new)]
      :error -> [folder]
    end
  end

  defp expanded(~c"."), do: "."
  defp expanded(folder), do: folder |> FileName.to_binary() |> Path.expand()
  defp chars(path), do: FileName.to_charlist(path)
  defp there?(folder), do: folder == ~c"." or File.dir?(FileName.to_binary(folder))
end
