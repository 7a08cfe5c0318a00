defmodule HotPatch.OwnOptionsTest do
  use ExUnit.Case, async: false

  alias HotPatch.Build
  alias HotPatch.Host.Config
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: 120_000

  # Options of HotPatch itself that an upgrade configures otherwise.

  @peer :"other@127.0.0.1"

  defp start(options) do
    made = NextRelease.make()
    config = Path.join(made.new, "releases/1.1.0/sys.config")
    {:ok, [list]} = :file.consult(config)
    File.write!(config, :io_lib.format("~tp.~n", [[{:hot_patch, options} | list]]))
    {:ok, _built} = Build.run(from: made.old, to: made.new, out: made.zip)
    {node, peer} = NextRelease.boot(made.old)
    {:ok, patch} = hot_patch(node, :upload, [made.zip])
    %{made: made, node: node, peer: peer, id: patch.id}
  end

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)
  defp config(node), do: Cluster.call(node, Config, :current, [])

  test "count from the load on, and those of before after the way back and after a start" do
    %{node: node, id: id} = run = start(peers: [@peer], journal_entries: 77, kept_releases: 5)
    before = config(node)
    assert {:ok, plan} = hot_patch(node, :plan, [id])
    keys = ["hot_patch: :journal_entries", "hot_patch: :kept_releases", "hot_patch: :peers"]
    assert keys -- hd(plan.nodes).config == []

    assert {:ok, %{status: :ok}} = hot_patch(node, :apply, [id])
    assert %{peers: [@peer], journal_entries: 77, kept_releases: 5} = config(node)
    assert config(node).data_dir == before.data_dir
    assert {:ok, %{status: :ok}} = hot_patch(node, :rollback, [id])
    assert config(node) == before

    assert {:ok, %{status: :ok}} = hot_patch(node, :apply, [id])
    NextRelease.stop(run.peer)
    [name, _host] = node |> Atom.to_string() |> String.split("@")
    {^node, _peer} = NextRelease.boot(run.made.old, String.to_atom(name))
    assert config(node) == before
  end

  test "that a start of the new release could not go by are named, live and by restarts" do
    %{node: node, id: id} = start(release: {"shop", "7"})
    Cluster.call(node, Application, :put_env, [:hot_patch, :comes_back, true])
    :ok = Cluster.call(node, Config, :reload, [])

    for options <- [[], [restart: :rolling]] do
      assert {:ok, report} = hot_patch(node, :check, [id, options])
      assert report.status == :error
      reasons = for one <- report.nodes, file <- one.files, uniq: true, do: file.reason
      assert [reason] = reasons
      assert reason =~ ~s(config :hot_patch, release: {"shop", "7"})
      assert {:error, _refused} = hot_patch(node, :apply, [id, options])
      assert to_string(Cluster.call(node, HotPatch.Release, :current, [])) == "shop 1.0.0"
    end
  end
end
