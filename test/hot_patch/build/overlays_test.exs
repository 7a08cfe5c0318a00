defmodule HotPatch.Build.OverlaysTest do
  use ExUnit.Case, async: true

  alias HotPatch.Build.Overlays

  @moduletag :tmp_dir

  defp put(root, release, files) do
    for {path, text} <- files do
      path = Path.join([root, release, path])
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, text)
    end

    Path.join(root, release)
  end

  test "what an upgrade does not bring is named", %{tmp_dir: root} do
    same = [{"bin/shop", "1"}, {"etc/shop.json", "{}"}, {"lib/shop-1/priv/a", "1"}]
    from = put(root, "old", same ++ [{"erts-13/bin/erl", "1"}, {"tmp/pipe", "1"}])
    to = put(root, "new", same ++ [{"erts-14/bin/erl", "2"}, {"releases/2/shop.rel", "2"}])
    assert Overlays.told(from, to) == []
    put(root, "new", [{"bin/migrate", "2"}, {"etc/shop.json", "{1}"}])
    assert [text] = Overlays.told(from, to)
    assert text =~ "bin/migrate, etc/shop.json: new or other, and no part of an upgrade"
    assert Overlays.told(Path.join(root, "no.tar"), Path.join(root, "none.tar")) == []
  end

  test "a script that has the release's version in it comes with the release", %{tmp_dir: root} do
    from = put(root, "old", [{"bin/shop", "1"}, {"bin/shop-1.0.0", "1"}])
    to = put(root, "new", [{"bin/shop", "2"}, {"bin/shop-1.1.0", "2"}, {"bin/nodetool", "2"}])
    assert [text] = Overlays.told(from, to)
    assert String.starts_with?(text, "bin/nodetool: new")
  end
end
