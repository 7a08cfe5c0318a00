defmodule HotPatch.Cluster.Members do
  @moduledoc false
  # The nodes that a call works on, and those that it leaves out: `unmanaged` run no HotPatch, `failed`
  # are connected and did not answer, `missing` belong to the system and are away.

  alias HotPatch.NodeAgent.KnownNodes
  alias HotPatch.NodeInfo

  @type failure :: %{node: node(), problem: String.t()}
  @type t :: %__MODULE__{
          infos: [NodeInfo.t()],
          unmanaged: [node()],
          failed: [failure()],
          missing: [node()]
        }
  @enforce_keys [:infos]
  defstruct [:infos, unmanaged: [], failed: [], missing: []]

  @doc "The names of the nodes that answered."
  @spec nodes(t()) :: [node()]
  def nodes(%__MODULE__{infos: infos}), do: Enum.map(infos, & &1.node)

  @doc """
  The nodes that belong to the system, by what those that answered know and by what was attached from
  here, and are not among those that are connected; each with how it is known.
  """
  @spec missing([NodeInfo.t()], [node()], [node()]) :: [{node(), String.t()}]
  def missing(infos, attached, connected) do
    known = for %{managed?: true} = info <- infos, do: info.known
    dismissed = for %{managed?: true} = info <- infos, do: info.dismissed

    by_records =
      for node <- known |> Enum.flat_map(&Map.keys/1) |> Enum.uniq(),
          KnownNodes.awaited?(node, known, dismissed),
          do: {node, how(node, infos)}

    by_attaching = for node <- attached, do: {node, "it was attached from #{node()}"}

    (by_records ++ by_attaching)
    |> Enum.reject(fn {node, _how} -> node in connected end)
    |> Enum.uniq_by(&elem(&1, 0))
    |> Enum.sort()
  end

  @doc "The nodes whose configuration names a node as a peer."
  @spec namers([NodeInfo.t()], node()) :: [node()]
  def namers(infos, node),
    do: for(%{managed?: true, known: %{^node => :peers}} = info <- infos, do: info.node)

  defp how(node, infos) do
    case namers(infos, node) do
      [] ->
        "it took part in an operation before; see HotPatch.dismiss/2 if it has left for good"

      namers ->
        "the configuration of #{Enum.join(namers, ", ")} names it as a peer"
    end
  end
end
