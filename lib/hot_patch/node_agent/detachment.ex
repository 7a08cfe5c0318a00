defmodule HotPatch.NodeAgent.Detachment do
  @moduledoc false
  # What has to be so before HotPatch leaves a node that was attached, and what it takes along.

  alias HotPatch.Host.Attachment
  alias HotPatch.NodeAgent
  alias HotPatch.Operation
  alias HotPatch.Store

  @type options :: %{by: String.t(), leave_patches: boolean()}

  @typedoc "`journal` is what this node had noted, where its data directory is gone."
  @type left :: %{journal: [Store.Journal.entry()], data: Path.t() | nil, elixir?: boolean()}

  @doc "Stops HotPatch here; gives the modules that can go now."
  @spec run(options()) ::
          {:ok, [module()], left()}
          | {:error, :released | {:busy, Operation.holder()} | {:unfinished, String.t()}}
          | {:error, {:in_force, [String.t()]}}
  def run(options) do
    with %{modules: modules} <- Attachment.here() || {:error, :released},
         :ok <- reserve(options),
         :ok <- nothing_lost(options) do
      _ = Application.stop(:hot_patch)
      stay = elixir_in_use(modules)
      {:ok, modules -- stay, left(Store.DataDir.leave(), stay)}
    end
  end

  # As an operation does: none can begin any more.
  defp reserve(options) do
    # It may have died.
    case if(Process.whereis(NodeAgent.Server),
           do: NodeAgent.reserve(operation(options)),
           else: {:ok, nil}
         ) do
      {:ok, _seq_and_clock} -> :ok
      {:busy, holder} -> {:error, {:busy, Map.take(holder, [:kind, :patch, :by])}}
      {:unfinished, text} -> {:error, {:unfinished, text}}
    end
  end

  defp operation(options) do
    Operation.new(
      id: "detach",
      kind: :detach,
      patch: "HotPatch",
      by: options.by,
      scope: [node()],
      members: [node()]
    )
  end

  defp nothing_lost(%{leave_patches: true}), do: :ok

  defp nothing_lost(_options) do
    case Store.Applied.list() do
      [] -> :ok
      records -> let_go({:error, {:in_force, Enum.map(records, & &1.id)}})
    end
  end

  # The agent takes its holder's end for a coordinator's, and that is what it is; but the one
  # who asks next shall not come too early.
  defp let_go(error) do
    with %{ref: ref} <- NodeAgent.holder(), do: NodeAgent.abort(ref)
    error
  end

  # Modules of Elixir that were carried here, if somebody else has come to use them since.
  defp elixir_in_use(modules) do
    carried = MapSet.new(modules)

    if Enum.any?(:code.all_loaded(), fn {m, _file} -> elixir?(m) and m not in carried end),
      do: Enum.reject(modules, &ours?/1),
      else: []
  end

  defp elixir?(module), do: String.starts_with?(Atom.to_string(module), "Elixir.")

  defp ours?(module), do: module in Application.spec(:hot_patch, :modules)

  defp left({:removed, journal}, stay), do: %{journal: journal, data: nil, elixir?: stay != []}
  defp left(:kept, stay), do: %{journal: [], data: Store.directory(), elixir?: stay != []}
end
