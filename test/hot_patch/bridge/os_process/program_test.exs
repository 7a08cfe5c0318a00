defmodule HotPatch.Bridge.OSProcess.ProgramTest do
  use ExUnit.Case, async: true

  alias HotPatch.Bridge.OSProcess.Program

  test "another program is told by what it says" do
    for said <- [
          {:hello, 2, "0.2.0"},
          {:hello, 2, {1, 2}},
          {:hello, 2, [{}]},
          {:broken, :text},
          {:request, 1, "echo", "", []},
          :nonsense
        ] do
      assert {:stranger, text} = Program.said(:erlang.term_to_binary(said))
      assert text =~ Program.executable()
    end

    assert {:stranger, _} = Program.said("no term")
    assert {:stranger, _} = Program.said("")
  end
end
