defmodule HotPatch.Swap.Discovery.Wrapper do
  @moduledoc false
  # Processes of a library that keep the user's callback module inside their state, and hand
  # code_change on to it: Phoenix's LiveViews and channels, and what the configuration adds:
  #
  #     config :hot_patch, wrappers: [{MyLib.Server, [:handler, :module]}]
  #
  # The path leads from the state to the module: through maps and structs by their keys, through tuples and
  # records by the place of an element, as `elem/2` counts them (in a record the first field is 1), through
  # keyword lists by their keys. A node that HotPatch is attached to has those of the node that has attached it.

  alias HotPatch.Host.Config
  alias HotPatch.Swap.SysMessage

  @known [
    {Phoenix.LiveView.Channel, [:socket, :view]},
    {Phoenix.Channel.Server, [:channel]}
  ]

  @doc "The way from the state of such a process to the module inside; nil if it is no wrapper."
  @spec path(module()) :: [term()] | nil
  def path(module) do
    case List.keyfind(@known ++ Config.current().wrappers, module, 0) do
      {^module, path} when is_list(path) -> path
      _ -> nil
    end
  end

  @doc "Answers with what the state of the calling process has at the end of a path. Runs inside."
  @spec tell(state, [term()], reference()) :: state when state: term()
  def tell(state, path, ref) do
    inside = Enum.reduce(path, state, &inside/2)
    SysMessage.tell(ref, ref, if(is_atom(inside), do: [inside], else: []))
    state
  end

  defp inside(key, map) when is_map(map), do: Map.get(map, key)

  defp inside(n, tuple)
       when is_tuple(tuple) and is_integer(n) and n in 0..(tuple_size(tuple) - 1)//1,
       do: elem(tuple, n)

  defp inside(key, [_ | _] = list) do
    if is_atom(key) and not List.improper?(list), do: find(list, key)
  end

  defp inside(_key, _other), do: nil

  defp find(list, key) do
    case List.keyfind(list, key, 0) do
      {^key, value} -> value
      _ -> nil
    end
  end
end
