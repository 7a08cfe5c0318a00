defmodule HotPatch.Support.FolderTest do
  use ExUnit.Case, async: true

  alias HotPatch.Support.Folder

  doctest Folder

  test "a path is absolute as Path.expand/1 makes it, whatever is in it" do
    for path <- [
          "/a/b",
          "/a/./b",
          "/a/../b",
          "/a//b",
          "/a/b/",
          "/.a/b",
          "/a/..b",
          "/",
          "/~/a",
          "a/b",
          "/a/b/.."
        ],
        do: assert(Folder.absolute(path) == Path.expand(path))
  end
end
