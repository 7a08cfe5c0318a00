defmodule HotPatch.CancelTest do
  # Whatever is under way can be cancelled, from any node, with a known end.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Cancellation
  alias HotPatch.Error
  alias HotPatch.NodeAgent
  alias HotPatch.Report
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes
  @moduletag timeout: 120_000
  @ebin "exchange-1.0.0/ebin/"
  @calm [baseline: 0, run_queue: 100_000, mailboxes: 1_000_000, errors: 100_000]

  setup_all do
    nodes = Cluster.start(3)

    for node <- nodes do
      :ok = Cluster.call(node, Logger, :configure, [[level: :error]])

      for id <- Cluster.call(node, :logger, :get_handler_ids, []),
          do: Cluster.call(node, :logger, :remove_handler, [id])
    end

    %{nodes: nodes}
  end

  defp server(module, vsn) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{vsn}).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
    init(S) -> {ok, S}.
    handle_call(vsn, _, S) -> {reply, {#{vsn}, S}, S};
    handle_call(wait, {From, _}, S) -> From ! {waits, self()}, receive go -> ok end, {reply, ok, S}.
    handle_cast(_, S) -> {noreply, S}.
    code_change(_, S, _) -> {ok, S + 1}.
    """)
  end

  defp new_patch(node) do
    module = :"hot_patch_test_cancel_#{System.unique_integer([:positive])}"
    {module, upload!(node, [{@ebin <> "#{module}.beam", server(module, 2)}], "#{module}")}
  end

  defp later(node, call, patch, options) do
    Task.async(fn -> hot_patch(node, call, [patch.id, options]) end)
  end

  defp has?(node, module), do: Cluster.call(node, :erlang, :module_loaded, [module])
  defp have(nodes, module), do: Enum.map(nodes, &has?(&1, module))

  # Of an operation before it the last word may come later.
  defp under_way(node, phase, patch, kind \\ :apply) do
    until(
      fn ->
        Enum.find(
          hot_patch(node, :progress, []),
          &(&1.kind == kind and &1.phase == phase and &1.state == :running and
              &1.patch == patch.id)
        )
      end,
      "#{patch.id} is in #{phase}"
    )
  end

  # Nobody holds them, and they agree on what was done.
  defp settled(nodes) do
    until(
      fn ->
        infos = Enum.filter(hot_patch(hd(nodes), :nodes, []), &(&1.node in nodes))

        Enum.all?(infos, &(&1.operation == nil and &1.behind == nil)) and
          nodes |> Enum.uniq_by(&Cluster.call(&1, NodeAgent, :fingerprint, [])) |> length() == 1
      end,
      "the nodes are free and agree"
    )
  end

  defp silent(node, what) do
    holder = Cluster.hold(node, Cluster.call(node, Process, :whereis, [what]))
    fn -> send(holder, :resume) end
  end

  defp journal(node, patch) do
    {:ok, %{items: entries}} = hot_patch(node, :journal, [[patch: patch]])
    entries
  end

  describe "an apply whose canary is watched" do
    test "is rolled back, whoever cancels it and wherever", %{nodes: [a, b, c] = nodes} do
      {module, patch} = new_patch(a)
      watch = [duration: 60_000] ++ @calm
      task = later(a, :apply, patch, canary: [b], watch: watch, by: "alice")
      under_way(c, :watch, patch)
      assert have(nodes, module) == [false, true, false]

      options = [by: "bob", reason: "wrong file", from: "192.0.2.1"]
      assert {:ok, %Cancellation{} = cancelled} = hot_patch(c, :cancel, [patch.id, options])
      assert %{outcome: :rolled_back, kind: :apply, by: "bob"} = cancelled
      assert cancelled.message =~ "cancelled by bob (wrong file)"
      assert cancelled.message =~ "rolled back on #{b}"
      assert %Report{rollback: %Report{nodes: [%{node: ^b}]}} = cancelled.report

      assert {:error, %Error{reason: :cancelled} = error} = Task.await(task, 120_000)
      assert %{outcome: :rolled_back, by: "bob"} = error.details
      assert error.message == cancelled.message
      settled(nodes)
      assert have(nodes, module) == [false, false, false]

      entries = journal(c, patch.id)

      assert %{by: "bob", reason: "wrong file", from: "192.0.2.1", outcome: :rolled_back} =
               entry = Enum.find(entries, &(&1.what == :cancel))

      assert entry.operation == :apply
      assert to_string(entry) =~ "cancel apply of #{patch.id} by bob from 192.0.2.1: rolled back"
      assert Enum.find(entries, &(&1.what == :rollback)).reason =~ "cancelled by bob"
    end

    test "is kept where it has come to, if that is wanted", %{nodes: [a, b, c] = nodes} do
      {module, patch} = new_patch(a)
      task = later(a, :apply, patch, canary: [b], watch: [duration: 60_000] ++ @calm)
      %{operation: id} = under_way(c, :watch, patch)
      assert {:ok, cancelled} = hot_patch(b, :cancel, [id, [keep: true, by: "bob"]])
      assert %{outcome: :kept, operation: ^id} = cancelled
      assert cancelled.message =~ "it stays on #{b}"
      assert {:error, %Error{reason: :cancelled}} = Task.await(task, 120_000)

      # Not as one that is tried and whose coordinator is gone.
      settled(nodes)
      for node <- nodes, do: send({HotPatch.Cluster.Comparison.name(), node}, :compare)
      settled(nodes)
      assert have(nodes, module) == [false, true, false]
      assert %{outcome: :kept} = Enum.find(journal(a, patch.id), &(&1.what == :cancel))
      assert {:ok, _} = hot_patch(c, :rollback, [patch.id])
      assert have(nodes, module) == [false, false, false]
    end

    test "goes on when its caller dies", %{nodes: [a, b, c] = nodes} do
      {module, patch} = new_patch(a)
      watch = [duration: 60_000] ++ @calm
      caller = Node.spawn(a, HotPatch, :apply, [patch.id, [canary: [b], watch: watch]])
      under_way(c, :watch, patch)
      Process.exit(caller, :kill)
      until(fn -> not Cluster.call(a, Process, :alive?, [caller]) end, "the caller is dead")
      under_way(c, :watch, patch)
      assert {:ok, %{outcome: :rolled_back}} = hot_patch(a, :cancel, [patch.name])
      settled(nodes)
      assert have(nodes, module) == [false, false, false]
    end
  end

  test "an apply on all that is watched is rolled back on all", %{nodes: [a, b, _] = nodes} do
    {module, patch} = new_patch(a)
    task = later(a, :apply, patch, watch: [duration: 60_000] ++ @calm)
    under_way(b, :watch, patch)
    assert {:ok, %{outcome: :rolled_back} = cancelled} = hot_patch(b, :cancel, [patch.id])
    assert length(cancelled.report.rollback.nodes) == 3
    assert {:error, %Error{reason: :cancelled}} = Task.await(task, 120_000)
    settled(nodes)
    assert have(nodes, module) == [false, false, false]
  end

  describe "before it is decided" do
    test "nothing has changed where a node does not let itself be taken", %{nodes: nodes} do
      [a, b, c] = nodes
      {module, patch} = new_patch(a)
      # The nodes are looked at before: only then is it silent.
      :ok =
        Cluster.call(a, HotPatch.Support.FaultPoint, :arm, [
          :reserved,
          1,
          {:timer, :sleep, [:infinity]}
        ])

      task = later(c, :apply, patch, timeout: 60_000)
      under_way(b, :reserve, patch)
      assert {:ok, cancelled} = hot_patch(b, :cancel, [patch.id, [by: "bob"]])
      assert %{outcome: :nothing_changed} = cancelled
      assert cancelled.message =~ "nothing was changed on any node"
      assert {:error, %Error{reason: :cancelled}} = Task.await(task, 120_000)
      _ = Cluster.call(a, HotPatch.Support.FaultPoint, :disarm, [])
      settled(nodes)
      assert have(nodes, module) == [false, false, false]
      assert %{outcome: :nothing_changed} = Enum.find(journal(a, patch.id), &(&1.what == :cancel))
    end

    test "nothing has changed where all stand still and wait for one", %{nodes: nodes} do
      [a, b, c] = nodes
      {module, patch} = new_patch(a)
      one = upload!(a, [{@ebin <> "#{module}.beam", server(module, 1)}], "one")
      assert {:ok, _} = hot_patch(a, :apply, [one.id])

      pids =
        for node <- nodes do
          {:ok, pid} = Cluster.call(node, :gen_server, :start, [module, 0, []])
          pid
        end

      busy = Enum.find(pids, &(node(&1) == b))

      cancel_while_busy(:apply, patch, busy, {module, nodes, c})
      # Nobody's state was converted, and everybody goes on.
      assert vsns(pids) == [{1, 0}, {1, 0}, {1, 0}]

      assert {:ok, _} = hot_patch(a, :apply, [patch.id])
      assert vsns(pids) == [{2, 1}, {2, 1}, {2, 1}]
      cancel_while_busy(:rollback, patch, busy, {module, nodes, c})
      assert vsns(pids) == [{2, 1}, {2, 1}, {2, 1}]
      for info <- hot_patch(a, :nodes, []), do: assert(info.applied == [one.id, patch.id])

      for pid <- pids, do: Cluster.call(node(pid), Process, :exit, [pid, :kill])
      for patch <- [patch, one], do: assert({:ok, _} = hot_patch(a, :rollback, [patch.id]))
    end

    defp vsns(pids),
      do: for(pid <- pids, do: Cluster.call(node(pid), :gen_server, :call, [pid, :vsn]))

    defp cancel_while_busy(kind, patch, busy, {module, [a | _] = nodes, c}) do
      asker = Task.async(fn -> :gen_server.call(busy, :wait, :infinity) end)

      until(
        fn ->
          match?(
            {:current_function, {^module, _, _}},
            Cluster.call(node(busy), Process, :info, [busy, :current_function])
          )
        end,
        "it is busy"
      )

      task = later(a, kind, patch, pause_timeout: 3_000_000)
      # Those of the other nodes stand still already.
      under_way(c, :commit, patch, kind)
      assert {:ok, cancelled} = hot_patch(c, :cancel, [patch.id, [by: "bob"]])
      assert %{outcome: :nothing_changed, kind: ^kind} = cancelled
      assert {:error, %Error{reason: :cancelled}} = Task.await(task, 120_000)
      settled(nodes)
      send(busy, :go)
      assert Task.await(asker) == :ok
    end

    test "questions end", %{nodes: [a, b, c]} do
      {_module, patch} = new_patch(a)

      for call <- [:check, :plan] do
        resume = silent(b, HotPatch.NodeAgent.Inbox)
        task = later(a, call, patch, timeout: 600_000)
        assert {:ok, cancelled} = until(fn -> cancelled(c, patch) end, "#{call} is found")
        assert %{outcome: :nothing_changed, kind: ^call} = cancelled
        assert {:error, %Error{reason: :cancelled}} = Task.await(task, 120_000)
        resume.()
      end

      refute Enum.any?(journal(a, patch.id), &(&1.what == :cancel))
    end

    defp cancelled(node, patch) do
      with {:error, %Error{reason: :not_under_way}} <- hot_patch(node, :cancel, [patch.id]),
           do: nil
    end

    test "a restart has not begun", %{nodes: [a, b, c] = nodes} do
      :ok =
        Cluster.call(a, HotPatch.Support.FaultPoint, :arm, [
          :reserved,
          1,
          {:timer, :sleep, [:infinity]}
        ])

      task = Task.async(fn -> hot_patch(c, :restart, [b, [by: "alice"]]) end)
      holder = until(fn -> Cluster.call(a, NodeAgent, :holder, []) end, "#{a} is taken")
      assert holder.kind == :restart
      started = Cluster.call(b, :erlang, :whereis, [:application_controller])
      assert {:ok, %{outcome: :nothing_changed, kind: :restart}} = hot_patch(b, :cancel, [b])
      assert {:error, %Error{reason: :cancelled} = error} = Task.await(task, 120_000)
      assert error.message =~ "has not been told to restart"
      _ = Cluster.call(a, HotPatch.Support.FaultPoint, :disarm, [])
      settled(nodes)
      assert Cluster.call(b, :erlang, :whereis, [:application_controller]) == started
      assert %{outcome: :nothing_changed} = Enum.find(journal(a, "#{b}"), &(&1.what == :cancel))
    end
  end

  test "what is not under way is told with what is", %{nodes: [a, b, _]} do
    assert {:error, %Error{reason: :not_under_way} = error} = hot_patch(a, :cancel, ["fix"])
    assert error.message =~ "nothing is under way"
    {_module, patch} = new_patch(a)
    task = later(a, :apply, patch, canary: [b], watch: [duration: 60_000] ++ @calm, by: "alice")
    %{operation: id} = under_way(b, :watch, patch)
    assert {:error, %Error{reason: :not_under_way} = error} = hot_patch(b, :cancel, ["fix"])
    assert error.message =~ "apply of #{patch.id} by alice (#{id})"
    # As much of the patch's id as only this one has, as a shell of Erlang gives it.
    beginning = patch.id |> binary_part(0, byte_size(patch.id) - 2) |> String.to_charlist()
    assert {:ok, %{outcome: :rolled_back}} = hot_patch(b, :cancel, [beginning])
    assert {:error, _} = Task.await(task, 120_000)
  end
end
