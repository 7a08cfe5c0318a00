defmodule HotPatch.SupervisionTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Bridge.OSProcess
  alias HotPatch.Cluster.Comparison
  alias HotPatch.Cluster.Progress
  alias HotPatch.Console
  alias HotPatch.Event
  alias HotPatch.NodeAgent
  alias HotPatch.Support.BackoffSupervisor
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Hosts

  @children [
    Progress,
    OSProcess.Server,
    HotPatch.Archive.Cache,
    NodeAgent.Inbox,
    NodeAgent.Server,
    Comparison,
    Console
  ]
  @kills 8

  defp pids(node) do
    for name <- [HotPatch.Supervisor | @children],
        do: {name, Cluster.call(node, Process, :whereis, [name])}
  end

  defp kill(node, pid), do: Cluster.call(node, Process, :exit, [pid, :kill])

  defp started?(node) do
    List.keymember?(Cluster.call(node, Application, :started_applications, []), :hot_patch, 0)
  end

  # The name may be there a moment before its process has come up.
  defp up_again(node, name, before) do
    until(
      fn ->
        pid = Cluster.call(node, Process, :whereis, [name])
        pid not in [nil, before] and supervised(node, name) == pid
      end,
      "#{inspect(name)} is started again"
    )
  end

  defp supervised(node, name) do
    with pid when is_pid(pid) <- supervisor(node, name),
         [{^name, child, _, _}] <- Cluster.call(node, Supervisor, :which_children, [pid]),
         do: child
  catch
    :exit, _it_was_killed -> nil
  end

  defp supervisor(node, name) do
    children = Cluster.call(node, Supervisor, :which_children, [HotPatch.Supervisor])
    {^name, pid, :supervisor, _} = List.keyfind!(children, name, 0)
    pid
  end

  defp patched!(node) do
    patch = upload!(node, [Builds.changed("patched", "Billing")])
    assert {:ok, %{status: :ok}} = hot_patch(node, :apply, [patch.id])
    assert {:ok, %{status: :ok}} = hot_patch(node, :rollback, [patch.id])
  end

  describe "each child of the application" do
    @tag :starts_nodes
    test "may end again and again, and nothing else does" do
      [%{node: node}] = Hosts.start(1, [console: [port: 0]], 3)

      for name <- @children, _ <- 1..@kills do
        before = pids(node)
        kill(node, before[name])
        up_again(node, name, before[name])
        assert List.keydelete(pids(node), name, 0) == List.keydelete(before, name, 0)
      end

      assert started?(node)
      patched!(node)
    end

    @tag :starts_nodes
    test "may lose its supervisor again and again, and nothing else does" do
      [%{node: node}] = Hosts.start(1, [], 3)

      for {id, _, _, _} <- Cluster.call(node, Supervisor, :which_children, [HotPatch.Supervisor]),
          id != Console,
          _ <- 1..@kills do
        before = pids(node)
        kill(node, supervisor(node, id))
        up_again(node, id, before[id])
        assert List.keydelete(pids(node), id, 0) == List.keydelete(before, id, 0)
      end

      assert started?(node)
      patched!(node)
    end

    test "is found by whoever walks the supervision tree" do
      for {id, pid, :supervisor, _} <- Supervisor.which_children(HotPatch.Supervisor) do
        assert [{^id, child, _type, modules}] = Supervisor.which_children(pid)
        assert child == :restarting or is_pid(child)
        assert modules == :dynamic or is_list(modules)
        assert %{specs: 1} = Supervisor.count_children(pid)
      end
    end
  end

  # What another node may send: some of it from another version of HotPatch, some from nobody.
  defp malformed do
    event = %Event{
      operation: "x",
      kind: :apply,
      patch: "p-1",
      by: "alice",
      phase: :reserve,
      state: :running,
      at: DateTime.utc_now()
    }

    ref = make_ref()
    operation = %{ref: ref, id: "x", kind: :apply, patch: "p", by: "b", origin: :operator}

    events =
      for change <- [
            %{at: nil},
            %{at: %{event.at | month: :may}},
            %{phase: :sleep},
            %{state: nil},
            %{operation: 1},
            %{patch: <<255>>},
            %{node: "n"},
            %{done: "1"},
            %{total: -1},
            %{text: {}}
          ],
          do: Map.merge(event, change)

    events = [Map.delete(event, :node), Map.delete(event, :at), nil, %{} | events]

    for(e <- events, do: {:event, self(), e, [node()]}) ++
      [
        {:event, nil, event, []},
        {:event, self(), event, nil},
        {:event, self(), event, [:a | :b]},
        {:event, self(), event, ["node"]},
        {:events, nil},
        {:events, [1 | 2]},
        {:events, Enum.map(events, &{self(), &1})},
        {:events, [{nil, event}, event, {}]},
        {:gone, nil, nil},
        {:DOWN, ref, :process, self(), nil},
        {:EXIT, self(), :kill},
        {:reserve, nil},
        {:reserve, %{}},
        {:reserve, operation},
        {:reserve, Map.put(operation, :coordinator, :nobody)},
        {:lock, nil},
        {:lock, %{coordinator: nil}},
        {:unlock, nil},
        {:prepared, operation, nil},
        {:commit, nil},
        {:decide, nil, nil},
        {:decide, ref, {:take_back, nil}},
        {:abort, nil},
        {:note, nil},
        {:note, [nil]},
        {:note, [%{id: "x"}]},
        {:note, [%{id: "x"} | :y]},
        {:finishing?, nil},
        {:subscribe, nil},
        {:subscribe, self()},
        {:unsubscribe, nil},
        {:put, nil},
        {:put, [nil]},
        {:put, [{"short", 0, 1, "x"}]},
        {:put, [{:crypto.hash(:sha256, "x"), 0, -1, "x"}]},
        {:put, [{:crypto.hash(:sha256, "x"), nil, 1, "x"}]},
        {:request, nil, nil, nil, nil},
        {:request, "x", [1 | 2], "", "x"},
        {NodeAgent, :ended},
        {NodeAgent, {:in_doubt, nil, nil}},
        {NodeAgent.Commit, self(), {:held, nil}},
        {NodeAgent.Commit, self(), {:ended, nil}},
        {Comparison, nil},
        {:nodeup, nil},
        {:in_doubt, nil},
        :compare,
        :find_agent,
        :await_first,
        :begin,
        :pass_on,
        nil,
        [],
        {},
        %{},
        "text"
      ]
  end

  @tag :starts_nodes
  test "what another node sends ends nothing, whatever it is" do
    [a, b] = Cluster.start(2)
    before = pids(b)

    for name <- @children -- [Console], message <- malformed() do
      :erlang.send({name, b}, message)
      :gen_server.cast({name, b}, message)
      # No answer is an answer too: it is not waited for.
      :erlang.send({name, b}, {:"$gen_call", {self(), make_ref()}, message})
    end

    for name <- @children -- [Console], do: {:ok, _} = sys_state(b, name)
    assert pids(b) == before
    assert Cluster.call(b, HotPatch, :progress, []) |> is_list()
    patched!(a)
    assert pids(b) == before
  end

  # Answered when all that was sent before has been taken.
  defp sys_state(node, name), do: {:ok, :sys.get_state({name, node}, 30_000)}

  @tag :starts_nodes
  test "whoever listens goes on hearing when the process that tells has ended" do
    [a] = Cluster.start(1)
    test = self()
    listener = spawn_link(fn -> pass_on(test) end)
    :ok = Cluster.call(a, GenServer, :call, [Progress, {:subscribe, listener}])
    before = Cluster.call(a, Process, :whereis, [Progress])
    kill(a, before)
    up_again(a, Progress, before)
    patch = upload!(a, Builds.changed("patched"))
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id])
    assert_receive {:heard, %Event{phase: :ended, state: :done}}
  end

  defp pass_on(test) do
    receive do
      {HotPatch, event} -> send(test, {:heard, event})
    end

    pass_on(test)
  end

  describe "a supervisor with backoff" do
    defmodule Child do
      use GenServer

      def start_link({counter, fails, how}) do
        if :counters.get(counter, 1) < fails do
          :counters.add(counter, 1, 1)
          fail(how)
        else
          GenServer.start_link(__MODULE__, nil)
        end
      end

      defp fail(:raise), do: raise("it cannot")
      defp fail(:error), do: {:error, :cannot}
      defp fail(:exit), do: exit(:cannot)
      defp fail(:strange), do: :what

      @impl GenServer
      def init(nil), do: {:ok, nil}
    end

    for how <- [:raise, :error, :exit, :strange] do
      test "starts a child in the end that cannot be started at first (#{how})" do
        argument = {:counters.new(1, []), 6, unquote(how)}
        pid = start_supervised!({BackoffSupervisor, {{Child, argument}, [longest: 20]}})

        until(
          fn ->
            match?([{Child, p, :worker, [Child]}] when is_pid(p), Supervisor.which_children(pid))
          end,
          "it is there"
        )

        [{Child, child, _, _}] = Supervisor.which_children(pid)
        monitor = Process.monitor(child)
        :ok = stop_supervised(Child)
        assert_receive {:DOWN, ^monitor, :process, ^child, :shutdown}
      end
    end

    test "leaves one alone that does not want to run" do
      spec = %{id: :idle, start: {Function, :identity, [:ignore]}}
      pid = start_supervised!({BackoffSupervisor, {spec, []}})
      assert [{:idle, :restarting, :worker, [Function]}] = Supervisor.which_children(pid)
      refute Process.info(pid, :dictionary) == nil
    end

    test "waits longer the more often it ends, up to a limit" do
      assert for(n <- 1..14, do: BackoffSupervisor.pause(n, 5_000)) ==
               [0, 0, 0, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_000, 5_000, 5_000]

      assert BackoffSupervisor.pause(1_000_000, 5_000) == 5_000
    end
  end
end
