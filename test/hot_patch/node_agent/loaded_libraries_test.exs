defmodule HotPatch.NodeAgent.LoadedLibrariesTest do
  use ExUnit.Case, async: true

  alias HotPatch.NodeAgent.LoadedLibraries

  test "what the system says of mapped files is read as it is written" do
    maps = """
    55d-55e r--p 00000000 fe:00 123                        /usr/bin/x
    7f0-7f1 r-xp 00001000 fe:00 99  /opt/a b/lib (x).so
    7f0-7f1 r-xp 00001000 fe:00 99  /opt/c/lib.so (deleted)
    7f0-7f1 r-xp 00001000 fe:00 99  /opt/new\\012line/lib.so
    7ff-7ff rw-p 00000000 00:00 0                          [stack]
    7ff-7ff rw-p 00000000 00:00 0
    """

    assert MapSet.new([
             "/usr/bin/x",
             "/opt/a b/lib (x).so",
             "/opt/c/lib.so",
             "/opt/new\nline/lib.so"
           ]) ==
             LoadedLibraries.paths(maps)
  end
end
