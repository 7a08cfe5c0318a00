defmodule HotPatch.Host.Attachment do
  @moduledoc false
  # Whether this node was attached (HotPatch.attach/2), and with what.

  @typedoc "`modules` were carried here; `folders` were made for the data, the deepest first."
  @type t :: %{
          required(:modules) => [module()],
          required(:from) => node(),
          required(:by) => String.t(),
          required(:at) => integer(),
          optional(:folders) => [Path.t()]
        }

  @doc "How this node was attached; `nil` if HotPatch is part of what it runs."
  @spec here() :: t() | nil
  def here, do: Application.get_env(:hot_patch, :attached)

  @doc "Notes where the data went."
  @spec note_folders([Path.t()]) :: :ok
  def note_folders(folders) do
    Application.put_env(:hot_patch, :attached, Map.put(here(), :folders, folders))
  end

  @doc "Whether a module came here with HotPatch."
  @spec carried?(module()) :: boolean()
  def carried?(module) do
    case here() do
      nil -> false
      %{modules: modules} -> module in modules
    end
  end
end
