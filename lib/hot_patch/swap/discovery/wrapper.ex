defmodule HotPatch.Swap.Discovery.Wrapper do
  @moduledoc false
  # Processes of a library that keep the user's callback module inside their state, and hand
  # code_change on to it: Phoenix's LiveViews and channels, and what the configuration adds:
  #
  #     config :hot_patch, wrappers: [{MyLib.Server, [:handler, :module]}]
  #
  # The path leads through maps and structs from the state to the module.

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
    inside = Enum.reduce(path, state, fn key, term -> if is_map(term), do: Map.get(term, key) end)
    SysMessage.tell(ref, ref, if(is_atom(inside), do: [inside], else: []))
    state
  end
end
