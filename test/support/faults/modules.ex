defmodule HotPatch.Test.Faults.Modules do
  @moduledoc false
  # Small patches of one module that they all have, and of one that each has alone, for nodes
  # that cannot see each other.

  alias HotPatch.Cluster.Ledger
  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Rig

  @ebin "exchange-1.0.0/ebin/"
  @common "hot_patch_test_common"

  @doc "Applies a new patch on a node, or takes one back."
  @spec apply_or_roll_back(node(), pos_integer()) :: :ok
  def apply_or_roll_back(node, n) do
    case applied(node) do
      [_ | _] = stack when n > 1 ->
        if :rand.uniform(2) == 1,
          do: {:ok, _} = Rig.hot_patch(node, :rollback, [List.last(stack)]),
          else: apply_new(node)

      _ ->
        apply_new(node)
    end

    :ok
  end

  @doc """
  Waits until all have the same patches, those to which all operations lead, and run what
  these bring. The same alone is not enough: on the way there patches make room for others.
  """
  @spec agree([node()], [String.t()] | nil) :: :ok
  def agree([first | _] = nodes, expected \\ nil) do
    Rig.look_until(fn ->
      stack = expected || applied(first)
      said = for node <- nodes, do: {node, known(node), applied(node), running(node)}
      wanted = stack |> Enum.map(&vsn/1) |> List.last()

      if Enum.all?(said, &match?({_, {_, ^stack}, ^stack, ^wanted}, &1)) and
           said |> Enum.uniq_by(&elem(&1, 1)) |> length() == 1,
         do: :ok,
         else: {:not_yet, "no agreement: #{inspect(said)}"}
    end)
  end

  @doc "Where all operations that these nodes know of lead, put together."
  @spec expected([node()]) :: [String.t()]
  def expected(nodes) do
    for(node <- nodes, op <- history(node).ops, do: op)
    |> Enum.uniq_by(& &1.id)
    |> stack(%{})
  end

  @doc "Takes all back, the newest first."
  @spec roll_all_back([node()]) :: :ok
  def roll_all_back([first | _] = nodes) do
    case applied(first) do
      [] ->
        agree(nodes)

      [_ | _] ->
        Rig.look_until(fn ->
          case Rig.hot_patch(first, :rollback, [List.last(applied(first))]) do
            {:ok, _report} -> :ok
            error -> {:not_yet, inspect(error, limit: 20)}
          end
        end)

        agree(nodes)
        roll_all_back(nodes)
    end
  end

  defp apply_new(node) do
    vsn = System.unique_integer([:positive])
    names = [@common, "hot_patch_test_#{vsn}"]

    zip =
      Archives.zip(for name <- names, do: {@ebin <> name <> ".beam", Builds.versioned(name, vsn)})

    {:ok, patch} = Rig.hot_patch(node, :upload, [zip, [name: "v#{vsn}"]])
    {:ok, _report} = Rig.hot_patch(node, :apply, [patch.id])
  end

  defp vsn(id), do: id |> String.split(["v", "-"]) |> Enum.at(1) |> String.to_integer()

  defp applied(node) do
    %{applied: applied} = Enum.find(Rig.hot_patch(node, :nodes, []), &(&1.node == node))
    applied
  end

  # The operations that a node knows of, and where they lead.
  defp known(node) do
    %{ops: ops, retired: retired} = history(node)
    {ops |> Enum.map(& &1.id) |> Enum.sort(), stack(ops, retired)}
  end

  defp history(node), do: Cluster.call(node, HotPatch.NodeAgent, :history, [])
  defp stack(ops, retired), do: ops |> Enum.sort_by(&{&1.seq, &1.id}) |> Ledger.stack(retired)

  defp running(node) do
    module = String.to_atom(@common)

    if Cluster.call(node, :erlang, :module_loaded, [module]),
      do: Cluster.call(node, module, :vsn, [])
  end
end
