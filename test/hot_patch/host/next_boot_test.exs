defmodule HotPatch.Host.NextBootTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Folders

  alias HotPatch.Host.NextBoot
  alias HotPatch.Store.ReleaseFiles
  alias HotPatch.Test.Builds

  # What a start goes by: start_erl.data, or where relx has made the release the script itself.

  setup do
    root = Path.join([Builds.tmp(), "next_boot", "r#{System.unique_integer([:positive])}"])
    for vsn <- ["1.0.0", "1.1.0"], do: File.mkdir_p!(Path.join([root, "releases", vsn]))
    remove_on_exit(root)
    %{root: root, data: Path.join(root, "releases/start_erl.data")}
  end

  defp script(root, name, bytes) do
    path = Path.join(root, name)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, bytes)
    File.chmod!(path, 0o755)
    path
  end

  test "start_erl.data names a release that is there, or it is torn", %{root: root, data: data} do
    assert NextBoot.version(root) == nil
    refute ReleaseFiles.torn?(root)
    File.write!(data, "13.1 1.0.0")
    assert NextBoot.version(root) == "1.0.0"
    refute ReleaseFiles.torn?(root)

    for torn <- ["", "13.", "13.1 1.0.", "13.1 9.9.9", "13.1 ..", "13.1 ../x", <<0, 32, 255>>] do
      File.write!(data, torn)
      assert {torn, NextBoot.version(root)} == {torn, nil}
      assert ReleaseFiles.torn?(root)
      assert ReleaseFiles.permanent(root) == nil
    end

    # Then what RELEASES has as permanent is meant.
    release = &{:release, ~c"shop", &1, ~c"13.1", [], &2}
    :ok = ReleaseFiles.put(root, [release.(~c"1.0.0", :old), release.(~c"1.1.0", :permanent)])
    assert ReleaseFiles.permanent(root) == "1.1.0"
    assert ReleaseFiles.boot(root, "13.1", "1.0.0") == :ok
    assert File.read!(data) == "13.1 1.0.0"
    assert ReleaseFiles.permanent(root) == "1.0.0"
  end

  test "the script of relx counts, whatever start_erl.data says", %{root: root, data: data} do
    File.write!(data, "13.1 1.1.0")
    main = script(root, "bin/shop", "one")
    # A script of a version alone, and one beside it, are none of it.
    script(root, "bin/nodetool", "tool")
    assert NextBoot.scripts(root) == []
    assert NextBoot.version(root) == "1.1.0"

    script(root, "bin/shop-1.0.0", "one")
    assert NextBoot.version(root) == "1.0.0"
    assert NextBoot.lacking(root, "1.1.0") == main <> "-1.1.0"
    assert ReleaseFiles.boot(root, "13.1", "1.1.0") == {:error, {main <> "-1.1.0", :enoent}}
    assert NextBoot.version(root) == "1.0.0"

    # As an upgrade brings it; it stays beside the other, as relx has them.
    script(root, "releases/1.1.0/bin/shop", "two")
    assert NextBoot.lacking(root, "1.1.0") == nil
    assert NextBoot.version(root) == "1.0.0"
    assert ReleaseFiles.boot(root, "13.1", "1.1.0") == :ok
    assert NextBoot.version(root) == "1.1.0"
    for one <- [main, main <> "-1.1.0"], do: assert(File.read!(one) == "two")
    assert Bitwise.band(File.stat!(main).mode, 0o777) == 0o755
    assert ReleaseFiles.boot(root, "13.1", "1.0.0") == :ok
    assert NextBoot.version(root) == "1.0.0"

    # Changed by hand it is a copy of none, and nobody knows.
    File.write!(main, "mine")
    assert NextBoot.version(root) == nil
  end
end
