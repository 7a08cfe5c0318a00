defmodule HotPatch.Store.RolledTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Folders
  import HotPatch.Test.Settings

  alias HotPatch.Release
  alias HotPatch.Store.Rolled
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Upgrade

  # What a node that was away has missed, of the restarts that have led the others from release to release.

  defp one(seq, from, to, more \\ %{}), do: Upgrade.rolled(seq, from, to, more)

  defp missed(entries, version, node \\ :a@host, arrived \\ nil) do
    with %{to: to} <- Rolled.missed(entries, shop(version), node, arrived), do: to
  end

  defp shop(version), do: %Release{name: "shop", version: version}

  test "it is the last that leads away from what runs" do
    there = [one(1, "1.0.0", "1.1.0")]
    assert missed(there, "1.0.0") == "1.1.0"
    assert missed(there, "1.1.0") == nil
    assert missed(there, "0.9.0") == nil

    # In steps, each from a release that is started.
    further = there ++ [one(2, "1.1.0", "1.2.0")]
    assert {missed(further, "1.0.0"), missed(further, "1.1.0")} == {"1.1.0", "1.2.0"}

    back = there ++ [one(2, "1.1.0", "1.0.0", %{kind: :rollback})]
    assert {missed(back, "1.0.0"), missed(back, "1.1.0")} == {nil, "1.0.0"}
    # In whichever order they were heard of.
    assert missed(Enum.reverse(back), "1.1.0") == "1.0.0"

    again = back ++ [one(3, "1.0.0", "1.1.0")]
    assert {missed(again, "1.0.0"), missed(again, "1.1.0")} == {"1.1.0", nil}
  end

  test "who has come to what it runs since then has missed nothing of that" do
    back = [one(1, "1.0.0", "1.1.0"), one(2, "1.1.0", "1.0.0", %{kind: :rollback})]
    since = fn version, seq -> %{name: "shop", version: version, seq: seq} end
    at = fn version, arrived -> missed(back, version, :a@host, arrived) end

    # By one that went no further, or while it ran: the others stay, and so does it.
    assert at.("1.1.0", since.("1.1.0", 3)) == nil
    assert at.("1.1.0", since.("1.1.0", 2)) == nil
    # By the first; or to another, whatever it was since.
    assert at.("1.1.0", since.("1.1.0", 1)) == "1.0.0"
    assert at.("1.1.0", since.("1.2.0", 3)) == "1.0.0"
  end

  test "of a way that was partly gone while they ran there is none" do
    far = [one(1, "1.1.0", "1.2.0", %{past: ["1.0.0", "0.9.0"]})]
    left = fn entries, version -> Rolled.left_behind(entries, shop(version), :a@host) end
    assert %{to: "1.2.0"} = left.(far, "1.0.0")
    assert {left.(far, "1.1.0"), left.(far, "1.2.0"), left.(far, "2.0.0")} == {nil, nil, nil}
    assert left.([], "1.0.0") == nil
    # Where there is one it is gone, and what was done since then may have led anywhere.
    assert left.(far ++ [one(2, "1.0.0", "1.2.0", %{past: ["1.0.0"]})], "1.0.0") == nil
    assert left.(far ++ [one(2, "1.2.0", "1.3.0")], "1.0.0") == nil
  end

  test "of another system, or for other nodes, it is none" do
    named = [one(1, "1.0.0", "1.1.0", %{scope: [:b@host]})]
    assert {missed(named, "1.0.0"), missed(named, "1.0.0", :b@host)} == {nil, "1.1.0"}
    assert missed([one(1, "1.0.0", "1.1.0", %{name: "till"})], "1.0.0") == nil
  end

  test "it outlasts what a start forgets, and is kept once" do
    folder = Path.join(Builds.tmp(), "rolled")
    remove_on_exit(folder)
    uncompared()
    configure(:data_dir, folder)
    [first, second] = entries = [one(1, "1.0.0", "1.1.0"), one(2, "1.1.0", "1.0.0")]
    assert Rolled.list() == []
    assert Rolled.add([second]) == :ok
    assert Rolled.add([first, second]) == :ok
    assert Rolled.list() == entries
    assert Rolled.seq() == 2

    # Whatever else a node of the cluster sends.
    assert Rolled.add([%{id: 1}, :junk, %{first | id: "x", v: 99}]) == :ok
    assert Rolled.list() == entries

    # Where this node has come to is kept beside them.
    assert %{id: "op2", to: "1.0.0"} = Rolled.missed(shop("1.1.0"))
    assert Rolled.add([%{first | id: "third", seq: 3, from: "1.1.0", to: "1.2.0"}]) == :ok
    assert %{id: "third"} = Rolled.missed(shop("1.1.0"))
    assert Rolled.arrived(shop("1.1.0"), :latest) == :ok
    assert {Rolled.missed(shop("1.1.0")), Rolled.seq()} == {nil, 3}
    assert Rolled.arrived(shop("1.1.0"), 7) == :ok
    assert {Rolled.seq(), length(Rolled.list())} == {7, 3}
  end
end
