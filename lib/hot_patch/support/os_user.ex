defmodule HotPatch.Support.OSUser do
  @moduledoc false
  # Who does something, for the record, where the call does not say it.

  @doc "The user of the operating system under which this node runs."
  @spec name() :: String.t()
  def name do
    with name when name in [nil, ""] <- System.get_env("USER"),
         id when is_binary(id) <- System.find_executable("id"),
         {name, 0} <- System.cmd(id, ["-un"]) do
      String.trim(name)
    else
      name when is_binary(name) -> name
      _neither_told -> "unknown"
    end
  end
end
