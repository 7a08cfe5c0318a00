defmodule HotPatch.NodeAgent.Upgrade.NextStartTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Folders

  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.NextStart
  alias HotPatch.Test.Builds
  alias HotPatch.Upgrade

  # What of an upgrade a VM that runs does not come to is named, by flags and without values.

  setup do
    root = Path.join([Builds.tmp(), "next_start", "n#{System.unique_integer([:positive])}"])
    File.mkdir_p!(Path.join(root, "releases/1.0.0"))
    remove_on_exit(root)

    course = %Course{
      from: {"shop", "1.0.0"},
      to: {"shop", "1.1.0"},
      erts: "13.1",
      root: root,
      applications: []
    }

    former = fn file, text -> File.write!(Path.join([root, "releases/1.0.0", file]), text) end
    %{course: course, former: former}
  end

  defp lines(course, files, relup \\ nil) do
    entries = for {name, bytes} <- files, do: %{path: "releases/1.1.0/#{name}", bytes: bytes}

    upgrade = %Upgrade{
      to: "1.1.0",
      erts: "13.1",
      applications: [],
      shared: [],
      files: [],
      relup: relup
    }

    NextStart.lines(course, upgrade, entries)
  end

  test "flags of vm.args that differ, come or go", %{course: course, former: former} do
    former.(
      "vm.args",
      "## one\n-sname shop\n+P 1000\n-setcookie old # secret\n-env A 1\n-env B 1\n"
    )

    new = "-sname shop\n# another comment\n+P 2000\n-setcookie new\n+S 2\n-env A 1\n-env B 2\n"
    assert [line] = lines(course, [{"vm.args", new}])

    assert line =~
             "vm.args differs in +P, +S, -env B, -setcookie: that counts from the next start in 1.1.0"

    refute line =~ ~r/old|new|2000/
  end

  test "nothing where both are the same, and what has no flags by its name", context do
    %{course: course, former: former} = context
    former.("vm.args", "-sname shop\n")
    former.("env.sh", "export A=1\n")
    same = [{"vm.args", "-sname shop\n"}, {"env.sh", "export A=1\n"}]
    assert lines(course, same) == []
    assert [line] = lines(course, [{"vm.args", "-sname shop\n"}, {"env.sh", "export A=2\n"}])
    assert line =~ "env.sh differs: "
    assert [gone] = lines(course, [{"vm.args", "-sname shop\n"}])
    assert gone =~ "env.sh differs"
  end

  test "a relup that whoever has built the upgrade did not look at", %{course: course} do
    relup = [{"relup", "{\"1.1.0\",[],[]}."}]
    assert [line] = lines(course, relup)
    assert line =~ "the relup of 1.1.0 is carried and not used"
    assert lines(course, relup, %{up: true, down: true}) == []
    # What became of it is a remark of the upgrade.
    assert lines(course, relup, %{up: false, down: false}) == []
    assert lines(course, []) == []
  end
end
