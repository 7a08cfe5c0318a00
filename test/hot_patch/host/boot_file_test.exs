defmodule HotPatch.Host.BootFileTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Host.BootFile
  alias HotPatch.Support.Folder
  alias HotPatch.Test.BootedRelease
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Hosts

  @moduletag :starts_nodes

  # Paths in an archive: of what every release boots by, and of what it does not.
  @boots_by ~w(
    releases/1.0.0/start.boot releases/1.0.0/start_clean.boot releases/1.0.0/exchange.script
    releases/1.0.0/exchange.rel releases/1.0.0/START.BOOT releases/1.0.0/vm.args releases/1.0.0/remote.vm.args
    releases/1.0.0/vm.args.src releases/1.0.0/env.sh releases/1.0.0/env.bat releases/1.0.0/sys.config
    releases/1.0.0/runtime.exs releases/1.0.0/elixir releases/1.0.0/iex releases/1.0.0/provider.toml
    releases/1.0.0/deeper/custom.boot releases/1.0.0/deeper/vm.args
    releases/start_erl.data releases/RELEASES releases/COOKIE
    rel/exchange/releases/1.0.0/start.boot
    bin/exchange bin/deeper/exchange erts-13.1/bin/erl erts-13.1/bin/beam.smp
  )
  @others ~w(
    releases/1.0.0/consolidated/Elixir.Proto.beam releases/1.0.0/consolidated/notes.txt
    exchange-1.0.0/priv/start.boot exchange-1.0.0/priv/bin/tool exchange-1.0.0/bin/tool
    exchange-1.0.0/priv/vm.args exchange-1.0.0/priv/erts-13.1/x bin erts-13.1 releases
    exchange-1.0.0/ebin/Elixir.Exchange.beam
  )

  test "is told by its path, where that is enough" do
    for path <- @boots_by, do: assert(BootFile.kind(path), path)
    for path <- @others, do: refute(BootFile.kind(path), path)
    assert BootFile.in_application("exchange", "ebin/exchange.app")
    refute BootFile.in_application("exchange", "ebin/other.app")
  end

  test "the composition names it, as it names system libraries, by the rule" do
    lists = :code.lib_dir(:stdlib) |> Path.join("ebin/lists.beam") |> File.read!()
    files = for path <- @boots_by, not (path =~ ~r/[A-Z]/), do: {path, "x"}
    node = hd(Cluster.start(1, exchange: false))

    patch =
      upload!(node, [
        {"stdlib-4.2/ebin/lists.beam", lists},
        {"exchange-1.0.0/priv/x", "x"} | files
      ])

    {:ok, composition} = hot_patch(node, :composition, [patch.id])
    refused = HotPatch.Composition.refused(composition)
    assert length(refused) == length(files) + 1
    assert {_, reason} = List.keyfind!(refused, "releases/1.0.0/start.boot", 0)
    assert reason =~ "boot files are never patched, they change with an upgrade; leave it out"
    assert {_, reason} = List.keyfind!(refused, "releases/1.0.0/sys.config", 0)
    assert reason =~ "config:"
    assert {_, reason} = List.keyfind!(refused, "stdlib-4.2/ebin/lists.beam", 0)
    assert reason =~ "system libraries are never patched"

    assert to_string(composition) =~
             "refused by every node: releases/1.0.0/vm.args is what the release boots by"
  end

  # Files of a system with their bytes, to see that nothing has changed.
  defp all(root),
    do: for({path, _stat} <- Folder.tree(root), into: %{}, do: {path, File.read(path)})

  # Refused in check, plan and apply alike, and with it everything beside it.
  defp assert_refused(node, path, text) do
    files = [Builds.changed("patched", "Billing"), {path, "damaged"}]
    {:ok, patch} = hot_patch(node, :upload, [zip(files), [name: "boot"]])
    assert {:ok, %{status: :error, nodes: [report]}} = hot_patch(node, :check, [patch.id])
    file = Enum.find(report.files, &(&1.path == path))
    assert {path, file.status} == {path, :error}
    assert file.reason =~ text
    assert {:ok, %{status: :error, nodes: [plan]}} = hot_patch(node, :plan, [patch.id])
    assert risk?(plan, text)
    assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :apply, [patch.id])
    assert Exception.message(error) =~ text
    assert :ok = hot_patch(node, :delete, [patch.id])
  end

  describe "a node that runs from a release" do
    setup do
      root = BootedRelease.make()
      on_exit(fn -> BootedRelease.remove(root) end)
      %{root: root, node: BootedRelease.start(root)}
    end

    test "refuses all of them, and boots again", %{root: root, node: node} do
      assert Cluster.call(node, HotPatch.Release, :root, []) == root
      before = Map.reject(all(root), fn {path, _} -> path =~ "/hot_patch/" end)

      for path <- @boots_by,
          not (path =~ "START.BOOT"),
          do: assert_refused(node, path, "are never patched, they change with an upgrade")

      assert before == Map.reject(all(root), fn {path, _} -> path =~ "/hot_patch/" end)
      BootedRelease.start(root)
    end

    test "refuses them behind links too, and the system's own files there", %{
      root: root,
      node: node
    } do
      priv = Path.join(root, "lib/exchange-1.0.0/priv")
      File.mkdir_p!(priv)
      File.ln_s!("../../../releases/1.0.0/start.boot", Path.join(priv, "data"))
      File.ln_s!(Path.join(root, "releases/1.0.0"), Path.join(priv, "release"))
      File.ln_s!(:code.lib_dir(:stdlib), Path.join(priv, "stdlib"))
      File.ln_s!(Cluster.call(node, HotPatch.Store, :directory, []), Path.join(priv, "store"))

      for {path, text} <- [
            {"data", "what this VM was booted by"},
            {"release/vm.args", "what the release boots by"},
            {"stdlib/ebin/lists.beam.txt", "system libraries are never patched"},
            {"store/applied.record", "HotPatch's own data"}
          ],
          do: assert_refused(node, "exchange-1.0.0/priv/" <> path, text)
    end

    test "takes everything else, and an application's resource file as it is", %{
      root: root,
      node: node
    } do
      app = File.read!(Path.join(root, "lib/exchange-1.0.0/ebin/exchange.app"))
      path = "exchange-1.0.0/ebin/exchange.app"
      assert_refused(node, path, "the application's resource file, by which it starts")

      patch =
        upload!(node, [
          Builds.changed("patched", "Billing"),
          {path, app},
          {"exchange-1.0.0/priv/start.boot", "no boot file"},
          {"releases/1.0.0/consolidated/notes.txt", "notes"}
        ])

      assert {:ok, %{nodes: [report]}} = hot_patch(node, :apply, [patch.id])
      assert %{reason: reason} = Enum.find(report.files, &(&1.path == path))
      assert reason =~ "is the same already"
      assert File.read!(Path.join(root, "lib/exchange-1.0.0/priv/start.boot")) == "no boot file"
      assert File.read!(Path.join(root, "releases/1.0.0/consolidated/notes.txt")) == "notes"
      assert {:ok, _} = hot_patch(node, :rollback, [patch.id])
      refute File.exists?(Path.join(root, "releases/1.0.0/consolidated"))
      assert File.read!(Path.join(root, "lib/exchange-1.0.0/ebin/exchange.app")) == app
      BootedRelease.start(root)
    end
  end

  @tag :tmp_dir
  test "whatever a VM was given to boot by is known", %{tmp_dir: dir} do
    dir = Path.expand(dir)

    [main, included, beside, inetrc, arguments] =
      for {name, text} <- [
            {"sys.config", ~s(["#{dir}/included", "beside.config", {kernel, []}].)},
            {"included.config", "[]."},
            {"beside.config", "[]."},
            {"inetrc", "{lookup, [file]}."},
            {"more.args", "-hot_patch_nothing 1"}
          ] do
        path = Path.join(dir, name)
        File.write!(path, text)
        path
      end

    [node] =
      Cluster.start(1,
        exchange: false,
        args: [
          ~c"-config",
          ~c"#{main}",
          ~c"-kernel",
          ~c"inetrc",
          ~c"\"#{inetrc}\""
        ]
      )

    # Of a file of arguments nothing is left but its name in the environment.
    :ok = Cluster.call(node, System, :put_env, ["ERL_ZFLAGS", "-args_file #{arguments}"])

    known = Cluster.call(node, BootFile, :of_this_vm, [])
    assert [main, included, beside, inetrc, arguments] -- known == []
    refute dir in known
  end

  test "a node without a release refuses what it was started with, wherever that is" do
    [host] = Hosts.start(1, [], 0)
    priv = Path.join(host.home, "lib/exchange-1.0.0/priv")
    File.mkdir_p!(priv)
    File.ln_s!(Path.join(host.home, "sys.config"), Path.join(priv, "settings"))
    assert_refused(host.node, "exchange-1.0.0/priv/settings", "what this VM was booted by")
    assert_refused(host.node, "releases/9.9.9/start.boot", "boot files are never patched")
  end
end
