defmodule HotPatch.Store.AppliedTest do
  use ExUnit.Case, async: true

  alias HotPatch.NodeAgent.RestartNeed
  alias HotPatch.Release
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Applied.Format
  alias HotPatch.Store.Leftovers
  alias HotPatch.Store.Succession

  @one %Release{name: "shop", version: "1"}
  @two %Release{name: "shop", version: "2"}
  @here %Release{name: "unreleased", version: "shop-1"}
  @there %Release{name: "unreleased", version: "cart-1+shop-1"}

  defp digest(nil), do: nil
  defp digest(text), do: :crypto.hash(:sha256, text)

  defp file(target, old, new, more \\ []) do
    Map.merge(
      %{
        path: target,
        target: target,
        module: "Elixir.#{target}",
        alone?: false,
        convert?: true,
        gone?: false,
        returned?: false,
        move: nil,
        rights: nil,
        old: digest(old),
        new: digest(new),
        ran: nil,
        md5: new && "md5 of #{new}",
        folders: [],
        real: target,
        stamp: {1, 1}
      },
      Map.new(more)
    )
  end

  defp record(id, files, more \\ []) do
    Map.merge(
      %{
        id: id,
        op: "op of #{id}",
        at: ~U[2026-01-01 00:00:00Z],
        by: "alice",
        about: %{id: id, release: @one},
        forced?: false,
        memory_only?: false,
        boot: :now,
        strategy: HotPatch.Strategy.default(),
        files: files,
        payload: nil,
        config: [],
        down: [],
        applications: [],
        stopped: [],
        replaced: []
      },
      Map.new(more)
    )
  end

  defp state(stack, more \\ []) do
    Map.merge(
      %{
        release: @one,
        boot: :now,
        install: nil,
        retired: %{},
        stack: stack,
        ops: [],
        pending: [],
        ended: []
      },
      Map.new(more)
    )
  end

  defp op(id, seq, more \\ []),
    do:
      Map.merge(
        %{id: "#{id}#{seq}", seq: seq, patch: id, kind: :apply, cumulative?: false},
        Map.new(more)
      )

  describe "on disk" do
    test "a state is a plain map with its version, and comes back as it was" do
      state = state([record("p", [file("A", "a", "b")], replaced: [record("q", [])])])
      term = Format.encode(state)
      assert term.v == 3
      refute inspect(term, structs: false, limit: :infinity) =~ "HotPatch.Release"
      assert Format.decode(term) == state
    end

    test "an operation that was tried by a process is one that its node tried, and whole" do
      told = [by: "alice", scope: :all, at: ~U[2026-01-01 00:00:00Z], tried_by: self()]
      state = state([], ops: [op("p", 1, told)])

      assert [op] = Format.decode(Format.encode(state)).ops
      assert %{v: 1, tried_by: {node, nil}, roster: [], undoes: nil, disk: :replace} = op
      assert node == node()
      assert Format.decode(Format.encode(%{state | ops: [op]})).ops == [op]
    end

    test "settings of a time when nothing was merged take the place of what is there" do
      setting = %{application: :a, key: :k, old: :none, new: {:ok, 1}}
      about = %{config: [setting], replaced: [], about: nil}
      old = %{Format.encode(state([])) | v: 1, stack: [%{about | replaced: [about]}]}
      assert [%{config: [new], replaced: [%{config: [new]}]}] = Format.decode(old).stack
      assert new == Map.put(setting, :given, :replace)
    end

    test "what a newer version has written is not taken for nothing" do
      assert_raise RuntimeError, ~r/newer HotPatch/, fn -> Format.decode(%{v: 4}) end
      assert Format.decode(:something_else) == nil
    end
  end

  describe "a stack" do
    test "has of every file what was before the first patch, and what the last has brought" do
      p = record("p", [file("A", "a", "a1"), file("B", "b", "b1")])
      # One that replaces others brings back what it does not touch.
      q = record("q", [file("A", "a1", "a2"), file("B", "b1", "b")], replaced: [p])
      r = record("r", [file("C", nil, "c1")])

      assert [a, b, c] = Applied.net([q, r])
      assert {a.old, a.new, a.id} == {digest("a"), digest("a2"), "q"}
      assert {b.old, b.new, b.id} == {digest("b"), digest("b"), "q"}
      assert {c.old, c.new, c.id} == {nil, digest("c1"), "r"}
    end

    test "is the same where one that has replaced all comes again, and gives way once" do
      p = record("p", [file("A", "a", "a1")])
      q = record("q", [file("A", "a1", "a2")])
      cumulative = [kind: :apply, cumulative?: true]
      once = Applied.applied(state([p]), op("q", 1, cumulative), q)
      again = record("q", [file("A", "a2", "a2")])
      twice = Applied.applied(once, op("q", 2, cumulative), again)
      assert [%{id: "q", replaced: [%{id: "p"}], files: [%{old: old}]}] = twice.stack
      assert old == digest("a1")
      assert %{stack: [%{id: "p"}]} = Applied.rolled_back(twice, op("q", 3, kind: :rollback))
    end
  end

  describe "under another release" do
    defp facts(more) do
      Map.merge(
        %{
          release: @two,
          boot: :now,
          installed?: fn -> false end,
          as_left?: fn -> flunk("nobody needs to know") end
        },
        Map.new(more)
      )
    end

    defp recorded(release, more \\ []),
      do: state([record("p", [])], [release: release, boot: :before] ++ more)

    test "patches" do
      left = fn -> true end
      changed = fn -> false end

      for {what, recorded, facts, judged} <- [
            {"stay where nothing changed", recorded(@two), [], :same},
            {"end with another version that was booted", recorded(@one), [], :ended},
            {"end with one that the release handler has installed", recorded(@one, boot: :now),
             [installed?: left], :ended},
            {"stay where only the name changed while the VM runs", recorded(@one, boot: :now), [],
             :carried},
            {"stay where an application was added to the path", recorded(@here),
             [release: @there, as_left?: left], :carried},
            {"end where a system without a release has other files", recorded(@here),
             [release: @there, as_left?: changed], :ended},
            {"stay where a system got a name", recorded(@here), [release: @one, as_left?: left],
             :carried},
            {"stay where nothing is loaded yet", recorded(@here), [release: Release.none()],
             :same},
            {"are none that could stay", state([], release: @here, boot: :before),
             [release: @there], :ended}
          ] do
        assert {what, Succession.judge(recorded, facts(facts))} == {what, judged}
      end
    end

    test "leave behind what takes their files back, also of one that came over an earlier one" do
      p = record("p", [file("A", "a", "a1"), file("B", "b", "b")])
      assert [first] = Applied.leftovers(state([p]))
      assert %{real: "A", patch: "p", release: %{name: "shop", version: "1"}, done: nil} = first

      q = record("q", [file("A", "a1", "a2")])
      assert [second] = Applied.leftovers(state([q], release: @two, ended: [first]))
      assert {second.old, second.new, second.patch} == {digest("a"), digest("a2"), "q"}

      # The file was another one in between.
      r = record("r", [file("A", "x", "x1")])
      assert [third] = Applied.leftovers(state([r], ended: [first]))
      assert third.old == digest("x")
    end

    test "that ended under the same one keep others from bringing them back by number" do
      ops = [op("p", 3), op("p", 7)]

      state =
        Applied.retired(state([record("p", [])], ops: ops, install: "x"), DateTime.utc_now())

      assert %{stack: [], install: nil, ops: ^ops, retired: %{"p" => %{seq: 7}}} = state
    end
  end

  describe "a file of a patch that has ended" do
    test "goes back, stays for now, or is none of ours any more" do
      [file] = Applied.leftovers(state([record("p", [file("A", "a", "a1")])]))

      there = %{
        digest: digest("a1"),
        stamp: {1, 1},
        folder?: true,
        in_force: :none,
        held?: false,
        release: %{name: "shop", version: "2"}
      }

      back = %{name: "shop", version: "1"}

      for {what, facts, judged} <- [
            {"is as the patch left it", %{}, :back},
            {"is back already", %{digest: digest("a")}, :forget},
            {"is another one", %{digest: digest("b")}, :forget},
            {"is gone with its folder", %{digest: nil, folder?: false}, :forget},
            {"is gone", %{digest: nil}, :forget},
            {"is another node's, too", %{held?: true}, :keep},
            {"has a patch of today over it", %{digest: digest("c"), in_force: :other}, :keep},
            {"is to be again what a patch of today has put there, whoever else has it otherwise",
             %{in_force: :as_before, held?: true, stamp: {1, 2}, folder?: false}, :back},
            {"was installed with the same content", %{stamp: {1, 2}}, :keep},
            {"was written again in the version that had another", %{stamp: {1, 2}, release: back},
             :back}
          ] do
        assert {what, Leftovers.judge(file, Map.merge(there, facts))} == {what, judged}
      end
    end
  end

  describe "a restart is needed" do
    defp vm(running, more \\ []) do
      Map.merge(
        %{
          md5: &running["#{&1}"],
          path: fn "Elixir." <> name -> name end,
          stamp: fn _file -> {1, 1} end,
          embedded?: true,
          boot: :now
        },
        Map.new(more)
      )
    end

    defp pending(name, md5, more \\ []) do
      Map.merge(
        %{patch: "p", target: name, module: "Elixir.#{name}", md5: md5, boot: :now, text: nil},
        Map.new(more)
      )
    end

    test "for what runs otherwise than it should, and only as long as it does" do
      p = record("p", [file("A", "a", "a1")])
      removed = record("p", [file("A", "a", nil)])
      ended = Applied.leftovers(state([p]))

      for {what, state, running, reasons} <- [
            {"nothing", state([p]), %{"Elixir.A" => "md5 of a1"}, []},
            {"not loaded", state([p]), %{}, []},
            {"put off", state([p], pending: [pending("A", "md5 of a1")]), %{"Elixir.A" => "0"},
             ["on disk but not in memory: Elixir.A"]},
            {"put off, and then loaded", state([p], pending: [pending("A", "md5 of a1")]),
             %{"Elixir.A" => "md5 of a1"}, []},
            {"new, and put off", state([], pending: [pending("A", "1")]), %{},
             ["on disk but not in memory: Elixir.A"]},
            {"taken back on disk alone",
             state([], pending: [pending("A", "0"), pending("B", nil)]),
             %{"Elixir.A" => "1", "Elixir.B" => "1"},
             ["in memory but no longer on disk: Elixir.B", "on disk but not in memory: Elixir.A"]},
            {"mended by a restart", state([], pending: [pending("A", "0", boot: :before)]),
             %{"Elixir.A" => "1"}, []},
            {"loaded by hand", state([p]), %{"Elixir.A" => "9"},
             ["in memory otherwise than p has brought it: Elixir.A"]},
            {"not taken out", state([removed]), %{"Elixir.A" => "0"},
             ["in memory but no longer on disk: Elixir.A"]},
            {"in words",
             state([], pending: [pending("A", nil, text: "the library is the old one")]), %{},
             ["the library is the old one"]},
            {"of an ended patch", state([], ended: ended), %{"Elixir.A" => "md5 of a1"},
             ["code of p, which has ended, is in memory: Elixir.A"]},
            {"of the next version", state([], ended: ended), %{"Elixir.A" => "md5 of a2"}, []}
          ] do
        assert {what, RestartNeed.of(state, vm(running))} == {what, reasons}
      end
    end

    test "by what code is loaded from, and what is loaded when it is used" do
      ended = Applied.leftovers(state([record("p", [file("A", "a", "a1")])]))
      elsewhere = vm(%{"Elixir.A" => "md5 of a1"}, path: fn _name -> "/next/A" end)
      assert RestartNeed.of(state([], ended: ended), elsewhere) == []

      written = vm(%{"Elixir.A" => "md5 of a1"}, stamp: fn _file -> {1, 2} end)
      assert RestartNeed.of(state([], ended: ended), written) == []
      # Whoever has put the right file there, the code was loaded before.
      gone = for file <- ended, do: %{file | done: :now}
      assert [_reason] = RestartNeed.of(state([], ended: gone), written)

      on_demand = vm(%{}, embedded?: false)
      assert RestartNeed.of(state([], pending: [pending("A", "1")]), on_demand) == []
    end

    test "until another operation on the files has made it good" do
      before =
        state([],
          pending: [pending("A", "0"), pending("B", "0"), pending("C", "0", boot: :before)]
        )

      after_it = Applied.pending(before, "q", ["A"], [pending("D", "1")])
      assert for(one <- after_it.pending, do: one.target) == ["B", "D"]

      failed =
        state([], pending: [pending(nil, nil, module: nil, target: nil, text: "it failed")])

      assert %{pending: []} = Applied.pending(failed, "p", ["A"], [])
      assert %{pending: [_]} = Applied.pending(failed, "q", ["A"], [])
    end
  end
end
