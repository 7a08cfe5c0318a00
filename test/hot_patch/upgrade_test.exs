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

  test "the same releases give the same bytes", %{made: made} do
    assert {:ok, built} = Build.run(from: made.old, to: made.new, dry_run: true, name: "upgrade")
    assert built.zip == File.read!(made.zip)
  end
end
