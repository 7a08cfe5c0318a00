defmodule HotPatch.LiveUpgradeTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.NextRelease, only: [ask: 2, ask: 3]

  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: 240_000

  # A system that an upgrade takes to the next version of its release, and back.

  setup do
    made = NextRelease.make()
    {node, peer} = NextRelease.boot(made.old)
    %{made: made, node: node, peer: peer}
  end

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  defp upload!(node, made) do
    {:ok, patch} = hot_patch(node, :upload, [made.zip])
    patch
  end

  # What it says of itself where it is not ok.
  defp ok!({:ok, %{status: :ok} = report}), do: report
  defp ok!({_ok_or_error, %{} = other}), do: flunk(said(other))

  defp said(error) when is_exception(error), do: Exception.message(error)

  defp said(report) do
    for(
      %{files: files, error: error} <- report.nodes,
      text <- [error | Enum.map(files, &"#{&1.path} #{&1.status}: #{&1.reason}")],
      do: text
    )
    |> Enum.join("\n")
  end

  defp running(node) do
    for {name, _, vsn} <- Cluster.call(node, :application, :which_applications, []),
        name in [:shop, :rates, :legacy, :scales],
        into: %{},
        do: {name, to_string(vsn)}
  end

  defp children(node) do
    for {id, pid, _, _} <- Cluster.call(node, :supervisor, :which_children, [:shop_sup]),
        is_pid(pid),
        into: MapSet.new(),
        do: id
  end

  test "it goes to the next release with its states, and back", %{made: made, node: node} do
    :ok = ask(node, :shop_server, :sell)
    sold = Cluster.call(node, Process, :whereis, [:shop_server])
    patch = upload!(node, made)
    ok!(hot_patch(node, :check, [patch.id]))

    assert {:ok, plan} = hot_patch(node, :plan, [patch.id])
    assert hd(plan.nodes).config == ["shop: :colour", "shop: :limit", "shop: :rounding"]

    ok!(hot_patch(node, :apply, [patch.id]))
    assert ask(node, :shop_server) == {2, %{sold: 1}}
    assert Cluster.call(node, Process, :whereis, [:shop_server]) == sold
    assert running(node) == %{shop: "1.1.0", rates: "0.1.0", scales: "1.0.0"}
    assert children(node) == MapSet.new([:shop_server, :shop_till])
    assert Cluster.call(node, :application, :get_env, [:shop, :limit]) == {:ok, 2}
    assert Cluster.call(node, :application, :get_env, [:shop, :colour]) == {:ok, :blue}
    assert Cluster.call(node, :application, :get_env, [:shop, :rounding]) == {:ok, :up}
    refute Cluster.call(node, :erlang, :module_loaded, [:shop_old])
    assert [%{release: release, applied: [_]}] = hot_patch(node, :nodes, [])
    assert to_string(release) == "shop 1.1.0"

    ok!(hot_patch(node, :rollback, [patch.id]))
    assert ask(node, :shop_server) == {1, {:v1, 1}}
    assert running(node) == %{shop: "1.0.0", legacy: "0.3.0", scales: "1.0.0"}
    assert children(node) == MapSet.new([:shop_server, :shop_sign])
    assert Cluster.call(node, :application, :get_env, [:shop, :limit]) == {:ok, 1}
    assert Cluster.call(node, :application, :get_env, [:shop, :colour]) == :undefined
    assert Cluster.call(node, :erlang, :module_loaded, [:shop_old])
    assert [%{release: release, applied: []}] = hot_patch(node, :nodes, [])
    assert to_string(release) == "shop 1.0.0"
  end
end
