defmodule HotPatch.InstructionsTest do
  # What the instructions of a manifest have done on the nodes, and that it comes back.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Declared

  @moduletag :starts_nodes

  @ebin "exchange-1.0.0/ebin/"

  defp path(module), do: @ebin <> "#{module}.beam"

  # Its state says by what it was converted.
  defp server(module, vsn) do
    {path(module),
     Builds.erlang(
       """
       -module(#{module}).
       -vsn(#{vsn}).
       -export([start/0, start_link/1, init/1, handle_call/3, handle_cast/2, code_change/3]).
       start() -> gen_server:start(?MODULE, [], []).
       start_link(Name) -> gen_server:start_link({local, Name}, ?MODULE, [], []).
       init(_) -> {ok, [#{vsn}]}.
       handle_call(_, _, State) -> {reply, State, State}.
       handle_cast(_, State) -> {noreply, State}.
       code_change({down, _}, [_ | State], Extra) -> {ok, [{down, Extra} | State]};
       code_change(_, State, Extra) -> {ok, [{up, Extra} | State]}.
       """
       |> String.replace("?MODULE", "#{module}")
     )}
  end

  defp supervisor(vsn, children) do
    {path(:hot_patch_test_sup),
     Builds.erlang("""
     -module(hot_patch_test_sup).
     -behaviour(supervisor).
     -vsn(#{vsn}).
     -export([start/0, init/1]).
     start() ->
         {ok, Pid} = supervisor:start_link({local, hot_patch_test_sup}, hot_patch_test_sup, []),
         unlink(Pid),
         Pid.
     init(_) ->
         {ok, {{one_for_one, 1, 5}, [#{Enum.map_join(children, ", ", &child/1)}]}}.
     """)}
  end

  defp child({id, module}),
    do: "{#{id}, {#{module}, start_link, [#{id}]}, permanent, 1000, worker, []}"

  defp child(id), do: child({id, :hot_patch_test_one})

  # Fails where the node is told to.
  defp checking(vsn) do
    {path(:hot_patch_test_check),
     Builds.erlang("""
     -module(hot_patch_test_check).
     -vsn(#{vsn}).
     -export([check/1]).
     check(What) ->
         undefined = application:get_env(kernel, broken),
         persistent_term:put(told, What).
     """)}
  end

  defp told(node), do: Cluster.call(node, :persistent_term, :get, [:told, nil])

  defp apply!(node, files, name) do
    patch = upload!(node, files, name)
    {:ok, %{status: :ok}} = hot_patch(node, :apply, [patch.id, []])
    patch
  end

  defp declare(node, files, up, down, options \\ []) do
    more = %{"instructions" => %{"up" => up, "down" => down}, "name" => "declared"}
    hot_patch(node, :upload, [Declared.zip(files, more, options), []])
  end

  defp declare!(node, files, up, down, options \\ []) do
    {:ok, patch} = declare(node, files, up, down, options)
    patch
  end

  defp plan_of(node, id, options \\ []) do
    {:ok, plan} = hot_patch(node, :plan, [id, options])
    Enum.find(plan.nodes, &(&1.node == node))
  end

  defp start(node, module) do
    {:ok, pid} = Cluster.call(node, module, :start, [])
    pid
  end

  defp state(pid), do: GenServer.call(pid, :state)

  defp runs?(node, application) do
    started = Cluster.call(node, :application, :info, [])[:started]
    List.keymember?(started, application, 0)
  end

  test "say for each module whether its states are converted and what code_change is given" do
    [a] = Cluster.start(1)

    modules =
      [one, two, three, four] = for n <- ~w(one two three four)a, do: :"hot_patch_test_#{n}"

    apply!(a, for(m <- modules, do: server(m, 1)), "first")
    pids = for m <- [one, two, three], into: %{}, do: {m, start(a, m)}
    {gone, bytes} = server(four, 1)
    five = {path(:hot_patch_test_five), Builds.versioned(:hot_patch_test_five, 1)}

    patch =
      declare!(
        a,
        [five | for(m <- [one, two, three], do: server(m, 2))],
        [
          "{update, #{one}, infinity, {advanced, #{"\#{rate => 7, note => <<\"x\">>}"}}, soft_purge, soft_purge, []}",
          "{update,#{two}}",
          "{add_module, hot_patch_test_five}",
          "{delete_module, #{four}}"
        ],
        ["{update,#{one},{advanced,back}}", "{load_module,#{two},soft_purge,soft_purge,[]}"],
        removed: [{gone, bytes}],
        add: ["hot_patch_test_five"]
      )

    plan = plan_of(a, patch.id)
    assert [first, second] = plan.instructions
    assert second == "#{two}: states are not converted"
    refute risk?(plan, "exports no code_change")
    assert first =~ "#{one}: code_change is given" and first =~ "infinity, does not count"
    assert risk?(plan, "brutal purge of #{two} is a soft one")

    assert risk?(
             plan_of(a, patch.id, purge: :force),
             "cannot be undone: the brutal purge of #{two}"
           )

    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id, []])
    assert state(pids[one]) == [{:up, %{rate: 7, note: "x"}}, 1]
    assert state(pids[two]) == [1]
    # Of one that is not named nothing is otherwise than without instructions.
    assert state(pids[three]) == [{:up, []}, 1]
    assert running(a, four) == nil and running(a, :hot_patch_test_five) != nil

    assert {:ok, %{status: :ok}} = hot_patch(a, :rollback, [patch.id, []])
    assert state(pids[one]) == [{:down, :back}, 1]
    assert state(pids[two]) == [1]
    assert state(pids[three]) == [{:down, []}, 1]
    assert running(a, four) != nil and running(a, :hot_patch_test_five) == nil
  end

  test "have a supervisor start its new children and stop those that are gone" do
    [a] = Cluster.start(1)
    apply!(a, [server(:hot_patch_test_one, 1), supervisor(1, [:kid_a, :kid_b])], "first")
    sup = Cluster.call(a, :hot_patch_test_sup, :start, [])

    children = fn ->
      for {id, pid, _, _} <- Supervisor.which_children(sup), into: %{}, do: {id, pid}
    end

    %{kid_a: _, kid_b: kept} = children.()
    step = "{update, hot_patch_test_sup, {supervisor, children}}"

    patch = declare!(a, [supervisor(2, [:kid_b, :kid_c])], [step], [step])
    assert [line] = plan_of(a, patch.id).instructions
    assert line =~ "the supervisors of hot_patch_test_sup start their new children"
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id, []])
    assert %{kid_b: ^kept, kid_c: new} = now = children.()
    assert is_pid(new) and map_size(now) == 2
    assert Cluster.call(a, Process, :whereis, [:kid_a]) == nil

    assert {:ok, %{status: :ok}} = hot_patch(a, :rollback, [patch.id, []])
    assert %{kid_b: ^kept, kid_a: again} = now = children.()
    assert is_pid(again) and map_size(now) == 2

    # As OTP has it: the specs alone.
    plain = "{update, hot_patch_test_sup, supervisor}"
    patch = declare!(a, [supervisor(3, [:kid_b, :kid_c])], [plain], [plain])
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id, []])
    assert %{kid_a: ^again, kid_b: ^kept, kid_c: :undefined} = children.()
  end

  test "have a supervisor stop a child whose module goes, and start one whose module is new" do
    [a] = Cluster.start(1)
    gone = server(:hot_patch_test_gone, 1)
    apply!(a, [server(:hot_patch_test_one, 1), gone], "first")
    apply!(a, [supervisor(1, [:kid_a, {:kid_b, :hot_patch_test_gone}])], "second")
    sup = Cluster.call(a, :hot_patch_test_sup, :start, [])

    children = fn ->
      for {id, pid, _, _} <- Supervisor.which_children(sup), into: %{}, do: {id, pid}
    end

    before = children.()
    step = "{update, hot_patch_test_sup, {supervisor, children}}"
    up = [step, "{delete_module, hot_patch_test_gone}", "{add_module, hot_patch_test_five}"]
    down = [step, "{add_module, hot_patch_test_gone}", "{delete_module, hot_patch_test_five}"]

    later = fn vsn, children ->
      files = [supervisor(vsn, children), server(:hot_patch_test_five, 1)]
      declare!(a, files, up, down, removed: [gone], add: ["hot_patch_test_five"])
    end

    # One whose module is to go all the same cannot be started by the supervisor.
    wrong = later.(2, [:kid_a, {:kid_b, :hot_patch_test_gone}, {:kid_c, :hot_patch_test_five}])
    assert {:error, error} = hot_patch(a, :apply, [wrong.id, []])
    assert error.message =~ "it names a child of :hot_patch_test_gone"
    # Taken back, it has been started again: nobody else can know its state.
    assert %{kid_a: kept, kid_b: again} = children.()
    assert kept == before.kid_a and is_pid(again)
    refute Cluster.call(a, :erlang, :module_loaded, [:hot_patch_test_five])

    patch = later.(3, [:kid_a, {:kid_c, :hot_patch_test_five}])
    assert %{status: :ok} = plan = plan_of(a, patch.id)
    refute risk?(plan, "would die")
    assert {:ok, %{status: :ok, nodes: [node]}} = hot_patch(a, :apply, [patch.id, []])
    assert node.killed == []
    assert %{kid_a: ^kept, kid_c: new} = now = children.()
    assert is_pid(new) and map_size(now) == 2
    assert running(a, :hot_patch_test_gone) == nil

    assert {:ok, %{status: :ok}} = hot_patch(a, :rollback, [patch.id, []])
    assert %{kid_a: ^kept, kid_b: back} = now = children.()
    assert is_pid(back) and map_size(now) == 2
    assert running(a, :hot_patch_test_five) == nil
  end

  test "start, stop and restart applications, call functions, and do it again on who was away" do
    [a, b] = nodes = Cluster.start(2)
    check = checking(1)
    call = fn what -> "{apply,{hot_patch_test_check,check,[#{what}]}}" end

    patch =
      declare!(
        a,
        [check],
        [
          "{apply,{persistent_term,put,[before_pause,1]}}",
          "{add_module,hot_patch_test_check}",
          "{restart_application,exchange}",
          "{add_application,runtime_tools,temporary}",
          call.("up")
        ],
        [
          call.("down"),
          "{remove_application,runtime_tools}",
          "{delete_module,hot_patch_test_check}"
        ],
        add: ["hot_patch_test_check"]
      )

    plan = plan_of(b, patch.id)

    assert plan.instructions == [
             "before the pause: calls persistent_term:put/2 with [before_pause,1]",
             "before the pause: stops the application exchange, if it runs",
             "after the resume: starts the application exchange again, if it ran",
             "after the resume: starts the application runtime_tools (temporary)",
             "after the resume: calls hot_patch_test_check:check/1 with [up]"
           ]

    assert risk?(plan, "cannot be undone: the call of persistent_term:put/2")
    refute risk?(plan, "cannot be undone: the call of hot_patch_test_check")
    assert risk?(plan, "what the processes of exchange know is lost")
    {:ok, plan} = hot_patch(a, :plan, [patch.id, []])
    assert to_string(plan) =~ "after the resume: starts the application runtime_tools"

    before = for n <- nodes, do: Cluster.call(n, Process, :whereis, [Exchange.Supervisor])
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id, [pause_timeout: 5_000]])

    for {node, pid} <- Enum.zip(nodes, before) do
      assert told(node) == :up
      assert runs?(node, :runtime_tools)
      assert is_pid(now = Cluster.call(node, Process, :whereis, [Exchange.Supervisor]))
      assert now != pid
    end

    other = upload!(a, [checking(2)], "other")
    assert risk?(plan_of(a, other.id, cumulative: true), patch.id)

    # Applied once more, nothing of it is done once more.
    for node <- nodes, do: Cluster.call(node, :persistent_term, :erase, [:told])
    assert {:ok, _report} = hot_patch(b, :apply, [patch.id, []])
    assert told(a) == nil

    # Who comes later does it too.
    [c] = Cluster.start(1)
    Cluster.connect([a, b, c])
    until(fn -> told(c) == :up and runs?(c, :runtime_tools) end, "the third node does it too")

    # The boot script knows nothing of it.
    for app <- [:hot_patch, :runtime_tools], do: :ok = Cluster.call(c, Application, :stop, [app])
    :ok = Cluster.call(c, Application, :start, [:hot_patch])
    until(fn -> runs?(c, :runtime_tools) end, "what was added is started after a start")

    # Called before the pause, while the module is still there.
    assert {:ok, %{status: :ok}} = hot_patch(a, :rollback, [patch.id, []])

    for node <- [a, b, c] do
      assert told(node) == :down
      refute runs?(node, :runtime_tools)
      assert runs?(node, :exchange)
      assert running(node, :hot_patch_test_check) == nil
    end
  end

  # Two nodes with the first version, on the second of which every check of the next one fails.
  defp second_broken do
    [a, b] = nodes = Cluster.start(2)
    apply!(a, [checking(1)], "first")
    before = picture(nodes)
    :ok = Cluster.call(b, Application, :put_env, [:kernel, :broken, true])
    {nodes, before}
  end

  defp picture(nodes), do: for(n <- nodes, do: {exchange_code(n), Cluster.disk(n)})

  test "whose call fails after the load are taken back on all nodes, and what they stopped runs" do
    {[a, b] = nodes, before} = second_broken()

    patch =
      declare!(
        a,
        [checking(2)],
        [
          "{remove_application,exchange}",
          "{update,hot_patch_test_check}",
          "{apply,{hot_patch_test_check,check,[up]}}"
        ],
        ["{apply,{persistent_term,put,[told,down]}}"]
      )

    assert {:error, %{reason: :failed} = error} =
             hot_patch(a, :apply, [patch.id, [pause_timeout: 5_000]])

    assert error.message =~ "failed after the resume" and error.message =~ "#{b}"
    assert error.report.rollback.status == :ok
    assert picture(nodes) == before

    for node <- nodes do
      assert told(node) == :down
      # Without an instruction for it: nothing that ran before a patch is left stopped by it.
      assert runs?(node, :exchange)
    end

    assert {:ok, entries} = hot_patch(b, :journal, [[patch: patch.id]])
    assert Enum.any?(entries, &match?(%{what: :failed, status: :error, nodes: [%{node: ^b}]}, &1))
  end

  test "that fail before the pause leave all as it was" do
    {[a, b] = nodes, before} = second_broken()

    patch =
      declare!(
        a,
        [checking(2)],
        [
          "{restart_application,exchange}",
          "{apply,{hot_patch_test_check,check,[early]}}",
          "{update,hot_patch_test_check}"
        ],
        []
      )

    assert {:error, %{reason: :failed} = error} =
             hot_patch(a, :apply, [patch.id, [pause_timeout: 5_000]])

    assert error.message =~ "failed before the pause"
    assert error.message =~ "nothing was changed on any node"
    assert picture(nodes) == before
    for node <- nodes, do: assert(runs?(node, :exchange))
    assert told(a) == :early and told(b) == nil
  end

  test "whose commit dies leave no application stopped" do
    [a] = Cluster.start(1)

    patch =
      declare!(
        a,
        [checking(1)],
        [
          "{restart_application,exchange}",
          "{apply,{timer,sleep,[50000]}}",
          "{add_module,hot_patch_test_check}"
        ],
        []
      )

    caller = Task.async(fn -> hot_patch(a, :apply, [patch.id, [pause_timeout: 50_000]]) end)

    until(fn -> not runs?(a, :exchange) end, "the exchange is stopped")
    Process.exit(Cluster.call(a, Process, :whereis, [HotPatch.NodeAgent.Commit]), :kill)
    assert {:error, %{reason: :failed}} = Task.await(caller, 120_000)
    until(fn -> runs?(a, :exchange) end, "the exchange runs again")
    assert running(a, :hot_patch_test_check) == nil
  end

  test "that are none, or do not agree with the files, are refused with the upload" do
    [a] = Cluster.start(1)

    for {text, says} <- [
          {"{updaet,hot_patch_test_check}", "{updaet,hot_patch_test_check} is no instruction"},
          {"{update,hot_patch_test_check", "is expected at byte"},
          {"{add_module,hot_patch_test_other}",
           "hot_patch_test_other is no module that the patch adds"},
          {"{delete_module,hot_patch_test_check}",
           "hot_patch_test_check is no module that the patch removes"},
          {"{update,hot_patch_test_other}", "hot_patch_test_other is no module"},
          {"{remove_application,kernel}", "cannot go on without it"},
          {"restart_new_emulator", "HotPatch never restarts a node"},
          {"restart_emulator", "HotPatch never restarts a node"}
        ] do
      assert {:error, %HotPatch.Refusal{rule: :manifest_instruction} = refusal} =
               declare(a, [checking(1)], [text], [])

      assert refusal.entry == "hot_patch.json"
      assert refusal.message =~ says
    end

    assert {:error, %HotPatch.Refusal{message: message}} =
             declare(a, [checking(1)], [], ["{add_module,hot_patch_test_check}"])

    assert message =~ "instructions down"
    assert Cluster.call(a, HotPatch.Store.Archives, :list, []) == []

    # What only a node can know is found by it, before anything is changed.
    for text <- ["{add_application,no_such_app}", "{apply,{no_such_module,f,[]}}"] do
      {:ok, patch} = declare(a, [checking(1)], [text], [])
      assert {:ok, %{status: :error} = report} = hot_patch(a, :check, [patch.id, []])
      assert to_string(report) =~ "no_such_"
      assert {:error, %{reason: :refused}} = hot_patch(a, :apply, [patch.id, []])
      assert running(a, :hot_patch_test_check) == nil
    end
  end
end
