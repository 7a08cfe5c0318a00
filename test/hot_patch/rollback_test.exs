defmodule HotPatch.RollbackTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Report
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes

  @ebin "exchange-1.0.0/ebin/"

  # Disk without the mark that the first patch leaves in the folder of the applications.
  defp picture(nodes), do: Map.new(nodes, &{&1, {exchange_code(&1), Cluster.disk(&1)}})

  defp file(name, vsn), do: {@ebin <> "#{name}.beam", Builds.versioned(name, vsn)}

  describe "rollback" do
    test "brings back code, disk byte for byte, and the state of processes, on all nodes" do
      [a, b] = nodes = Cluster.start(2)
      calls = Enum.flat_map(nodes, &start_calls(&1, 50))

      for call <- calls,
          do: %{seconds: 70} = Cluster.call(node(call), Exchange, :talk, [call, 70])

      before = picture(nodes)

      patch =
        upload!(a, Builds.changed("patched") ++ [{"exchange-1.0.0/priv/new/note.txt", "hi"}])

      assert {:ok, %Report{}} = hot_patch(a, :apply, [patch.id])
      left_old_code(nodes)
      for call <- calls, do: Cluster.call(node(call), Exchange, :talk, [call, 5])
      assert picture(nodes) != before

      assert {:ok, check} = hot_patch(b, :check, [patch.id, [operation: :rollback]])
      # The text file goes too, as it should.
      assert check.status == :ok
      assert Enum.any?(hd(check.nodes).files, &(&1.status == :not_beam and &1.carried?))
      assert {:ok, plan} = hot_patch(b, :plan, [patch.id, [operation: :rollback]])

      for node <- plan.nodes do
        assert {:delete, "Exchange.Tariff"} in node.order

        assert %{count: 50, change_code?: true} =
                 Enum.find(node.processes, &(&1.module == "Exchange.Call"))
      end

      assert {:ok, report} =
               hot_patch(b, :rollback, [patch.id, [by: "bob", reason: "wrong rates"]])

      assert report.operation == :rollback
      for node <- report.nodes, do: assert(node.suspended >= 50 and node.error == nil)

      after_rollback = picture(nodes)

      for node <- nodes do
        {code, disk} = before[node]
        assert after_rollback[node] == {code, disk}
      end

      # What happened while the patch was in force is kept.
      for call <- calls,
          do: assert(%{seconds: 75} = Cluster.call(node(call), Exchange, :info, [call]))

      assert Enum.map(hot_patch(a, :nodes, []), & &1.applied) == [[], []]
      assert %{items: [%{state: :rolled_back}]} = hot_patch(a, :list, [])
      assert {:error, %Error{reason: :not_applied}} = hot_patch(a, :rollback, [patch.id])

      # And again, forth and back.
      left_old_code(nodes)
      assert {:ok, %Report{}} = hot_patch(b, :apply, [patch.id])
      assert %{items: [%{state: :applied}]} = hot_patch(a, :list, [])
      left_old_code(nodes)
      assert {:ok, %Report{}} = hot_patch(a, :rollback, [patch.id])
      assert picture(nodes) == before
    end

    test "leaves everything as it is where one process has no way back" do
      [node] = Cluster.start(1)
      calls = start_calls(node, 20)
      patch = upload!(node, Builds.changed("patched"))
      assert {:ok, _} = hot_patch(node, :apply, [patch.id])
      left_old_code([node])
      before = picture([node])

      # A state that the way back does not know.
      spoil(node, Enum.at(calls, 10), :talked_ms)

      assert {:error, %Error{reason: :failed} = error} = hot_patch(node, :rollback, [patch.id])
      assert error.message =~ "code_change of Exchange.Call failed"
      assert picture([node]) == before

      for call <- List.delete_at(calls, 10),
          do: assert(%{} = Cluster.call(node, Exchange, :info, [call]))

      assert [%{applied: [_]}] = hot_patch(node, :nodes, [])
    end

    test "takes back only what is on top" do
      [node] = Cluster.start(1)
      first = upload!(node, [file(:hot_patch_test_a, 1), file(:hot_patch_test_b, 1)], "first")
      second = upload!(node, [file(:hot_patch_test_a, 2)], "second")
      third = upload!(node, [file(:hot_patch_test_c, 1)], "third")

      for patch <- [first, second, third],
          do: assert({:ok, _} = hot_patch(node, :apply, [patch.id]))

      for call <- [:rollback, :apply] do
        assert {:error, %Error{reason: :refused} = error} = hot_patch(node, call, [first.id])
        assert error.message =~ second.id
        assert Cluster.call(node, :hot_patch_test_a, :vsn, []) == 2
      end

      # Not in the order in which they came, as long as they have nothing in common.
      assert {:ok, _} = hot_patch(node, :rollback, [second.id])
      assert Cluster.call(node, :hot_patch_test_a, :vsn, []) == 1
      assert {:ok, _} = hot_patch(node, :rollback, [first.id])
      assert running(node, :hot_patch_test_a) == nil
      assert running(node, :hot_patch_test_b) == nil
      assert Cluster.call(node, :hot_patch_test_c, :vsn, []) == 1
      refute File.exists?(Cluster.exchange(node) <> "/ebin/hot_patch_test_a.beam")
      assert [%{applied: [id]}] = hot_patch(node, :nodes, [])
      assert id == third.id
    end

    test "takes a module out that a call has loaded again before its file was gone" do
      [node] = Cluster.start(1)
      before = picture([node])
      patch = upload!(node, [file(:hot_patch_test_called, 1)])
      assert {:ok, _} = hot_patch(node, :apply, [patch.id])
      # The call comes between the deletion and the removal of the file.
      armed = [:loaded, 1, {:hot_patch_test_called, :vsn, []}]
      :ok = Cluster.call(node, HotPatch.Support.FaultPoint, :arm, armed)
      assert {:ok, report} = hot_patch(node, :rollback, [patch.id])
      assert :reached == Cluster.call(node, HotPatch.Support.FaultPoint, :disarm, [])
      assert report.status == :ok
      assert running(node, :hot_patch_test_called) == nil
      assert picture([node]) == before
    end

    test "works when the archive was deleted" do
      [node] = Cluster.start(1)
      before = picture([node])
      patch = upload!(node, Builds.changed("patched"))
      assert {:ok, _} = hot_patch(node, :apply, [patch.id])
      left_old_code([node])
      assert hot_patch(node, :delete, [patch.id, [by: "carol"]]) == :ok
      assert {:ok, _} = hot_patch(node, :rollback, [patch.id])
      assert picture([node]) == before
    end

    test "refuses where somebody else has changed a file or loaded a module since" do
      [node] = Cluster.start(1)
      patch = upload!(node, [file(:hot_patch_test_a, 1)])
      assert {:ok, _} = hot_patch(node, :apply, [patch.id])
      path = Cluster.exchange(node) <> "/ebin/hot_patch_test_a.beam"

      by_hand = Builds.versioned(:hot_patch_test_a, 9)

      {:module, _} =
        Cluster.call(node, :code, :load_binary, [:hot_patch_test_a, to_charlist(path), by_hand])

      assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :rollback, [patch.id])
      assert error.message =~ "loaded it by hand"

      assert {:ok, %{items: [%{module: "hot_patch_test_a", from: :disk} = drift]}} =
               hot_patch(node, :drift, [])

      assert drift.cause =~ patch.id

      File.write!(path, by_hand)
      assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :rollback, [patch.id])
      assert error.message =~ path
      assert File.read!(path) == by_hand
      assert Cluster.call(node, :hot_patch_test_a, :vsn, []) == 9
    end

    test "does not take out a module that processes work for" do
      [node] = Cluster.start(1)

      server =
        Builds.erlang("""
        -module(hot_patch_test_added).
        -export([init/1, handle_call/3, handle_cast/2]).
        init(S) -> {ok, S}.
        handle_call(_, _, S) -> {reply, S, S}.
        handle_cast(stop, S) -> {stop, normal, S}.
        """)

      patch = upload!(node, [{@ebin <> "hot_patch_test_added.beam", server}])
      assert {:ok, _} = hot_patch(node, :apply, [patch.id])
      {:ok, pid} = Cluster.call(node, :gen_server, :start, [:hot_patch_test_added, 1, []])

      assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :rollback, [patch.id])
      assert error.message =~ "processes work for it"
      assert Cluster.call(node, :gen_server, :call, [pid, :get]) == 1

      Cluster.call(node, :gen_server, :cast, [pid, :stop])
      until(fn -> not Cluster.call(node, Process, :alive?, [pid]) end, "it ends")
      assert {:ok, _} = hot_patch(node, :rollback, [patch.id])
      assert running(node, :hot_patch_test_added) == nil
    end
  end

  describe "a cumulative patch" do
    test "takes the place of all before it, and gives way to them again" do
      [node] = Cluster.start(1)

      first =
        upload!(node, [file(:hot_patch_test_a, 1), Builds.changed("patched", "Billing")], "first")

      second = upload!(node, [file(:hot_patch_test_b, 1)], "second")
      base = picture([node])
      assert {:ok, _} = hot_patch(node, :apply, [first.id])
      assert {:ok, _} = hot_patch(node, :apply, [second.id])
      before = picture([node])

      all = upload!(node, [file(:hot_patch_test_a, 2)], "all")
      assert {:ok, check} = hot_patch(node, :check, [all.id, [cumulative: true]])
      # Its own file, and the two that go back.
      assert [%{files: [_, _, _]}] = check.nodes
      assert {:ok, _} = hot_patch(node, :apply, [all.id, [cumulative: true]])
      assert Cluster.call(node, :hot_patch_test_a, :vsn, []) == 2
      assert running(node, :hot_patch_test_b) == nil
      [{_, {code, _}}] = Map.to_list(base)
      assert running(node, Exchange.Billing) == code[Exchange.Billing]
      assert [%{applied: applied}] = hot_patch(node, :nodes, [])
      assert applied == [all.id]
      under_it = picture([node])

      # Applied once more it changes nothing, and one rollback is enough.
      assert {:ok, again} = hot_patch(node, :apply, [all.id, [cumulative: true]])
      assert again.status == :not_changed
      assert picture([node]) == under_it

      # Another one finds the release's own, not what the first had taken the place of.
      other = upload!(node, [file(:hot_patch_test_a, 3)], "other")
      assert {:ok, _} = hot_patch(node, :apply, [other.id, [cumulative: true]])
      assert Cluster.call(node, :hot_patch_test_a, :vsn, []) == 3
      assert running(node, :hot_patch_test_b) == nil
      assert running(node, Exchange.Billing) == code[Exchange.Billing]
      assert {:ok, _} = hot_patch(node, :rollback, [other.id])
      assert picture([node]) == under_it

      assert {:ok, _} = hot_patch(node, :rollback, [all.id])
      assert picture([node]) == before
      assert [%{applied: applied}] = hot_patch(node, :nodes, [])
      assert applied == [first.id, second.id]

      for patch <- [second, first], do: assert({:ok, _} = hot_patch(node, :rollback, [patch.id]))
      assert picture([node]) == base
    end
  end

  for cumulative? <- [true, false] do
    test "a file that an earlier patch has brought too stays as it brought it (cumulative: #{cumulative?})" do
      [node] = Cluster.start(1)
      base = picture([node])
      billing = Builds.changed("patched", "Billing")
      first = upload!(node, [file(:hot_patch_test_a, 1), billing], "first")
      assert {:ok, _} = hot_patch(node, :apply, [first.id])
      before = picture([node])

      files = [file(:hot_patch_test_a, 1), file(:hot_patch_test_b, 1), billing]
      second = upload!(node, files, "second")
      options = [cumulative: unquote(cumulative?)]
      assert {:ok, _} = hot_patch(node, :apply, [second.id, options])
      assert {:ok, _} = hot_patch(node, :rollback, [second.id])
      assert picture([node]) == before

      assert {:ok, _} = hot_patch(node, :rollback, [first.id])
      assert picture([node]) == base
    end
  end

  describe "an older patch" do
    setup do
      [node] = Cluster.start(1)
      one = upload!(node, [file(:hot_patch_test_a, 1), file(:hot_patch_test_b, 1)], "one")
      two = upload!(node, [file(:hot_patch_test_a, 2)], "two")
      %{node: node, one: one, two: two}
    end

    defp refused(node, patch, newer) do
      assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :apply, [patch.id])
      assert error.message =~ "older than #{newer.id}, which has taken its place"
      assert error.message =~ "again: true"
      assert {:ok, %{status: :error}} = hot_patch(node, :check, [patch.id])
      assert {:ok, %{status: :error}} = hot_patch(node, :plan, [patch.id])
      assert {:ok, %{status: :ok}} = hot_patch(node, :check, [patch.id, [again: true]])
    end

    test "is refused where a newer one has taken its place, under whatever name", context do
      %{node: node, one: one, two: two} = context
      assert {:ok, _} = hot_patch(node, :apply, [one.id, [by: "alice"]])
      assert {:ok, _} = hot_patch(node, :rollback, [one.id])
      assert {:ok, _} = hot_patch(node, :apply, [two.id])
      refused(node, one, two)

      # The same files in another order, under another name.
      files = [file(:hot_patch_test_b, 1), file(:hot_patch_test_a, 1)]
      renamed = upload!(node, files, "brand-new")
      assert renamed.id != one.id
      refused(node, renamed, two)
      assert {:error, error} = hot_patch(node, :apply, [renamed.id])
      assert error.message =~ "by alice as #{one.id}"
      assert Cluster.call(node, :hot_patch_test_a, :vsn, []) == 2

      assert {:ok, _} = hot_patch(node, :apply, [one.id, [again: true, by: "bob"]])
      assert Cluster.call(node, :hot_patch_test_a, :vsn, []) == 1
      assert {:ok, %{items: [entry | _]}} = hot_patch(node, :journal, [[last: 1]])
      assert {entry.by, entry.again?} == {"bob", true}
      assert to_string(entry) =~ "again"
      # It is the latest now, and no older one any more.
      assert {:ok, %{status: :not_changed}} = hot_patch(node, :apply, [one.id])
    end

    test "is refused where a cumulative one has taken the place of all", context do
      %{node: node, one: one} = context
      all = upload!(node, [file(:hot_patch_test_c, 1)], "all")
      assert {:ok, _} = hot_patch(node, :apply, [one.id])
      assert {:ok, _} = hot_patch(node, :apply, [all.id, [cumulative: true]])
      refused(node, one, all)
      assert running(node, :hot_patch_test_a) == nil
    end

    test "is one that was applied first before, however often it has come since", %{
      node: node,
      one: one,
      two: two
    } do
      other = upload!(node, [file(:hot_patch_test_c, 1)], "other")

      for {patch, call} <- [
            {one, :apply},
            {one, :rollback},
            {one, :apply},
            {one, :rollback},
            {two, :apply},
            {two, :rollback},
            {one, :apply},
            {one, :rollback},
            {other, :apply},
            {one, :apply},
            {two, :apply}
          ] do
        assert {:ok, _} = hot_patch(node, call, [patch.id])
      end

      for patch <- [two, one], do: assert({:ok, _} = hot_patch(node, :rollback, [patch.id]))
      assert {:ok, _} = hot_patch(node, :apply, [two.id])
      refused(node, one, two)
    end

    test "comes to a node that has missed it, where it was meant", context do
      %{node: a, one: one, two: two} = context

      for {patch, options} <- [{one, []}, {two, [cumulative: true]}, {one, [again: true]}],
          do: assert({:ok, _} = hot_patch(a, :apply, [patch.id, options]))

      [b] = Cluster.start(1)
      Cluster.connect([a, b])

      Cluster.caught_up(b, [two.id, one.id])

      assert Cluster.call(b, :hot_patch_test_a, :vsn, []) == 1
    end
  end

  describe "export_antipatch" do
    test "gives a zip that brings the former code back when it is applied" do
      [node] = Cluster.start(1)
      before = running(node, Exchange.Billing)
      billing = Builds.changed("patched", "Billing")
      patch = upload!(node, [billing, file(:hot_patch_test_a, 1)])

      assert {:error, %Error{reason: :not_applied}} =
               hot_patch(node, :export_antipatch, [patch.id])

      assert {:ok, _} = hot_patch(node, :apply, [patch.id])

      path = Path.join(Cluster.home(node), "back.zip")
      assert {:ok, antipatch} = hot_patch(node, :export_antipatch, [patch.id, [to: path]])
      assert antipatch.files == [elem(billing, 0)]
      assert antipatch.left_out == [@ebin <> "hot_patch_test_a.beam"]
      assert File.read!(path) == antipatch.zip
      # It may hold a key that nobody else could read.
      assert Bitwise.band(File.stat!(path).mode, 0o777) == 0o600

      assert {:ok, back} = hot_patch(node, :upload, [path])
      # It is of the release itself, so nothing older is to be brought back.
      assert antipatch.apply_with == [transition: :suspend, on_load: :restart]

      assert {:ok, %Report{status: :ok}} =
               hot_patch(node, :apply, [back.id, antipatch.apply_with])

      assert running(node, Exchange.Billing) == before
    end
  end

  describe "drift" do
    test "names what runs otherwise than on the other nodes, and the patch that it comes from" do
      [a, b, c] = Cluster.start(3)
      assert {:ok, %{items: []}} = hot_patch(a, :drift, [])
      patch = upload!(a, [Builds.changed("patched", "Billing")])
      assert {:ok, %Report{status: :ok}} = hot_patch(a, :apply, [patch.id, [nodes: [b]]])

      # It was for that node, so the others do not miss it.
      assert {:ok, %{items: [drift]}} = hot_patch(c, :drift, [])
      assert %{module: "Elixir.Exchange.Billing", node: ^b, from: :nodes} = drift
      assert drift.cause == "#{patch.id} is applied here"
      assert to_string(drift) =~ "#{b}"
      assert Enum.map(hot_patch(a, :nodes, []), & &1.applied) == [[], [patch.id], []]

      assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
      assert {:ok, %{items: []}} = hot_patch(a, :drift, [])
    end
  end

  describe "journal" do
    test "says who did what, when, why, where, and how it ended" do
      [a, b] = nodes = Cluster.start(2)
      start_calls(a, 10)
      patch = upload!(a, Builds.changed("patched"))
      broken = upload!(a, [{"exchange-1.0.0/ebin/hot_patch_test_a.beam", "no module"}], "broken")
      assert {:ok, _} = hot_patch(a, :apply, [patch.id, [by: "alice", reason: "ticket 7"]])
      left_old_code(nodes)
      assert {:error, _} = hot_patch(a, :apply, [broken.id, [by: "alice"]])
      assert {:ok, _} = hot_patch(b, :rollback, [patch.id, [by: "bob"]])
      assert :ok = hot_patch(b, :delete, [patch.id, [by: "carol"]])

      assert {:ok, %{items: entries}} = hot_patch(b, :journal, [[patch: patch.id]])
      assert Enum.map(entries, & &1.what) == [:delete, :rollback, :apply, :upload]
      assert [%{by: "carol"}, %{by: "bob"} = rollback, %{by: "alice"} = apply, _upload] = entries
      assert apply.reason == "ticket 7"
      assert apply.coordinator == a
      assert rollback.coordinator == b
      refute apply.forced?
      assert Enum.sort(Enum.map(apply.nodes, & &1.node)) == nodes
      assert Enum.all?(apply.nodes, &(&1.status == :ok and is_integer(&1.pause_us)))

      assert {:ok, all} = hot_patch(a, :journal, [])
      assert Enum.any?(all, &(&1.what in [:refused, :failed] and &1.patch == broken.id))
      assert {:ok, %{items: [_]}} = hot_patch(a, :journal, [[last: 1]])
      assert {:ok, json} = hot_patch(a, :to_json, [all])
      assert json =~ ~s("by":"alice")
    end
  end
end
