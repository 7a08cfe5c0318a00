defmodule HotPatch.UpgradeTest do
  # How an archive is made that takes the system to the next version of its release.
  use ExUnit.Case, async: true

  alias HotPatch.Archive
  alias HotPatch.Build
  alias HotPatch.Support.Folder
  alias HotPatch.Test.NextRelease
  alias HotPatch.Upgrade

  doctest HotPatch.Upgrade

  setup_all do
    _ = Application.load(:sasl)
    made = NextRelease.make()
    {:ok, composition} = Archive.read(File.read!(made.zip), "upgrade")
    %{made: made, composition: composition, upgrade: composition.manifest.upgrade}
  end

  defp digests(folder) do
    for {path, %{type: :regular}} <- Folder.tree(folder),
        do: {Path.relative_to(path, folder), :crypto.hash(:sha256, File.read!(path))}
  end

  test "whole folders of what changes come, and of the rest a digest", context do
    %{made: made, composition: composition, upgrade: upgrade} = context
    assert {composition.manifest.release.version, upgrade.to} == NextRelease.versions()
    assert upgrade.erts == to_string(:erlang.system_info(:version))

    assert for(one <- upgrade.applications, do: {one.name, one.from, one.to, one.type}) == [
             {"rates", nil, "0.1.0", :permanent},
             {"shop", "1.0.0", "1.1.0", :permanent},
             {"legacy", "0.3.0", nil, nil}
           ]

    folders = ["lib/rates-0.1.0", "lib/shop-1.1.0", "releases/1.1.0"]

    expected =
      for folder <- folders,
          {path, digest} <- digests(Path.join(made.new, folder)),
          into: %{},
          do: {Path.join(folder, path), digest}

    assert Map.new(composition.files, &{&1.path, &1.sha256}) == expected

    assert Enum.sort(upgrade.files) ==
             for("releases/" <> _ = path <- Map.keys(expected), do: path)

    shared = Map.new(upgrade.shared, &{&1.path, &1.sha256})
    scales = Path.join(made.old, "lib/scales-1.0.0")
    assert shared["lib/scales-1.0.0"] == scales |> digests() |> Upgrade.folder_digest()
    assert is_map_key(shared, "lib/kernel-#{Application.spec(:kernel, :vsn)}")
    refute is_map_key(shared, "lib/shop-1.1.0")
  end

  test "modules say what they take the place of, and what goes leaves memory", context do
    manifest = context.composition.manifest

    assert Map.new(manifest.modules, fn {name, module} -> {name, module.change} end) == %{
             "rates_server" => :add,
             "rates_sup" => :add,
             "shop_same" => :replace,
             "shop_server" => :replace,
             "shop_sup" => :replace,
             "shop_till" => :add
           }

    assert Enum.sort(Enum.map(manifest.removed, & &1.path)) == [
             "lib/legacy-0.3.0/ebin/legacy_server.beam",
             "lib/legacy-0.3.0/ebin/legacy_sup.beam",
             "lib/shop-1.0.0/ebin/shop_old.beam",
             "lib/shop-1.0.0/ebin/shop_sign.beam"
           ]
  end

  test "a module whose code stays says nothing of how it goes", %{composition: composition} do
    assert HotPatch.Manifest.unchanged?(composition.manifest, "shop_same")
    refute HotPatch.Manifest.unchanged?(composition.manifest, "shop_server")
    text = composition |> HotPatch.Composition.to_table() |> IO.chardata_to_string()
    assert text =~ "and 1 file of modules whose code stays as it is"
    refute text =~ "shop_same"
  end

  test "supervisors follow their new init, and states are converted", context do
    assert context.composition.manifest.instructions == %{
             up: [
               "{add_module,rates_server}",
               "{add_module,rates_sup}",
               "{add_module,shop_till}",
               "{update,shop_server,{advanced,[]}}",
               "{update,shop_sup,{supervisor,children}}",
               "{delete_module,legacy_server}",
               "{delete_module,legacy_sup}",
               "{delete_module,shop_old}",
               "{delete_module,shop_sign}"
             ],
             down: [
               "{add_module,legacy_server}",
               "{add_module,legacy_sup}",
               "{add_module,shop_old}",
               "{add_module,shop_sign}",
               "{update,shop_server,{advanced,[]}}",
               "{update,shop_sup,{supervisor,children}}",
               "{delete_module,rates_server}",
               "{delete_module,rates_sup}",
               "{delete_module,shop_till}"
             ]
           }
  end

  test "it is shown, and what no node takes live is named", %{composition: composition} do
    text = composition |> HotPatch.Composition.to_table() |> IO.chardata_to_string()

    for line <- [
          "upgrade to 1.1.0 from 1.0.0, on ERTS #{:erlang.system_info(:version)}",
          "adds the application rates 0.1.0",
          "changes shop from 1.0.0 to 1.1.0",
          "removes the application legacy 0.3.0",
          "11 applications stay as they are, and are not carried"
        ],
        do: assert(text =~ line)

    assert HotPatch.Composition.refused(composition) == []
    assert {:ok, json} = HotPatch.to_json(composition)
    assert json =~ ~s({"from":"0.3.0","name":"legacy","to":null,"type":null})
    elixir = %Upgrade.Application{name: "elixir", from: "1.14.0", to: "1.15.0", type: :permanent}
    upgrade = %{composition.manifest.upgrade | applications: [elixir]}
    other = %{composition | manifest: %{composition.manifest | upgrade: upgrade}}

    assert [{"lib/elixir-1.15.0", "elixir is 1.14.0 where the release runs" <> _}] =
             HotPatch.Composition.refused(other)
  end

  test "configuration is told by its keys, and none is given beside it", %{made: made} do
    options = [from: made.old, to: made.new, dry_run: true]
    assert {:ok, built} = Build.run(options)
    assert "sys.config differs in shop: :limit, shop: :colour" in built.notes
    assert built.composition.manifest.config == []
    assert {:ok, same} = Build.run([config_differences: true] ++ options)
    assert same.composition.manifest.config == []
    assert {:error, error} = Build.run([config: ["shop.limit=3"]] ++ options)
    assert Exception.message(error) =~ "an upgrade brings the configuration of its release"
    assert {:ok, patch} = Build.run([in_place: true, config: ["shop.limit=3"]] ++ options)
    assert {patch.composition.manifest.upgrade, patch.composition.manifest.removed} != {nil, []}
    assert [%{key: "limit"}] = patch.composition.manifest.config
  end

  @tag :tmp_dir
  test "it is signed as a patch is", %{made: made, tmp_dir: folder} do
    key = Path.join(folder, "alice")
    {:ok, _public} = HotPatch.Host.Keys.generate(key, "alice")
    assert {:ok, built} = Build.run(from: made.old, to: made.new, dry_run: true, sign: key)
    assert built.composition.signature.name == "alice"
    assert built.composition.manifest.upgrade.to == "1.1.0"
  end

  @tag :tmp_dir
  test "a tarball needs a release that runs, and leaves nothing behind", %{tmp_dir: folder} do
    packed = :zlib.gzip("no tar")
    path = Path.join(folder, "shop.tar.gz")
    File.write!(path, packed)

    for given <- [path, String.to_charlist(path), packed] do
      assert {:error, %{reason: :build} = error} = HotPatch.upload(given)
      assert Exception.message(error) =~ "needs a node that runs from a release"
    end

    own = "hot_patch_#{System.pid()}_"
    assert Enum.filter(File.ls!(System.tmp_dir!()), &String.starts_with?(&1, own)) == []
  end

  # Where code is loaded on demand nothing else has made them when the tarball of a release is read.
  test "what was built is told in atoms that whoever reads archives has", %{made: made} do
    {:ok, json} = HotPatch.JSON.encode(%{"from" => made.old, "to" => made.new, "name" => "up"})
    listener = spawn(fn -> receive(do: (:done -> :ok)) end)
    answer = HotPatch.Native.build(json, Archive.significant_chunks(), listener)
    send(listener, :done)
    assert {:ok, built} = :erlang.binary_to_term(answer, [:safe])
    assert Map.keys(built) -- Archive.vocabulary() == []
  end

  test "the same releases give the same bytes", %{made: made} do
    assert {:ok, built} = Build.run(from: made.old, to: made.new, dry_run: true, name: "upgrade")
    assert built.zip == File.read!(made.zip)
  end
end
