defmodule HotPatch.AttachTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Cluster.Attach.Bootstrap
  alias HotPatch.Error
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.PlainErlang

  @moduletag :starts_nodes

  @server :hot_patch_test_switch

  # The operator's: a hidden node that runs no system of its own.
  setup_all do
    [node] =
      Cluster.start(1, exchange: false, release: {"unreleased", "none"}, args: [~c"-hidden"])

    %{operator: node}
  end

  # Everything that HotPatch could leave in a VM. OTP's own modules are loaded when they are
  # first used, by whomever, and stay.
  defp picture(node) do
    otp = Cluster.call(node, :code, :lib_dir, []) |> List.to_string()

    %{
      modules:
        for(
          module <- Cluster.call(node, :erlang, :loaded, []),
          not otp?(Cluster.call(node, :code, :which, [module]), otp),
          do: module
        )
        |> Enum.sort(),
      old_code:
        for(
          module <- Cluster.call(node, :erlang, :loaded, []),
          Cluster.call(node, :erlang, :check_old_code, [module]),
          do: module
        ),
      loaded: loaded(node),
      started: Cluster.call(node, :application, :which_applications, []) |> Enum.sort(),
      registered: Cluster.call(node, :erlang, :registered, []) |> Enum.sort(),
      processes: processes(node),
      tables: tables(node),
      terms:
        for({key, _} <- Cluster.call(node, :persistent_term, :get, []), do: key) |> Enum.sort(),
      env: Cluster.call(node, :application, :get_all_env, [:hot_patch]),
      code_path: Cluster.call(node, :code, :get_path, []),
      handlers: Cluster.call(node, :logger, :get_handler_ids, []),
      logger: Cluster.call(node, :logger, :get_primary_config, []),
      io: Cluster.call(node, :io, :getopts, [:standard_error]),
      flags: Cluster.call(node, :erlang, :system_info, [:outstanding_system_requests_limit]),
      disk: disk(node)
    }
  end

  # By what they are; not those of a single connection or call.
  defp processes(node) do
    for pid <- Cluster.call(node, :erlang, :processes, []),
        {:dictionary, dictionary} <- [
          Cluster.call(node, :erlang, :process_info, [pid, :dictionary])
        ],
        call = dictionary[:"$initial_call"],
        do: call
  end

  # What is there and was not, and what was and is not, by kind.
  defp differences(before, now) do
    for {kind, was} <- before, is = now[kind], is != was, into: %{} do
      {kind, if(is_list(was), do: {is -- was, was -- is}, else: {is, was})}
    end
  end

  # From OTP 29 on the module of crypto loads the application's description; what OTP loads of
  # itself, as its modules, stays.
  defp loaded(node) do
    applications = Cluster.call(node, :application, :loaded_applications, [])
    applications |> List.keydelete(:crypto, 0) |> Enum.sort()
  end

  defp otp?(:preloaded, _otp), do: true
  defp otp?(file, otp), do: List.starts_with?(file, String.to_charlist(otp))

  defp tables(node) do
    for(
      table <- Cluster.call(node, :ets, :all, []),
      do: Cluster.call(node, :ets, :info, [table, :name])
    )
    |> Enum.sort()
  end

  defp disk(node) do
    for {path, _stat} <- HotPatch.Support.Folder.tree(Cluster.home(node)),
        into: %{},
        do: {path, File.read(path)}
  end

  defp foothold, do: [Bootstrap, [], Bootstrap |> :code.which() |> File.read!()]
  defp count(node), do: Cluster.call(node, :gen_server, :call, [@server, :add])
  defp state(node), do: Cluster.call(node, :gen_server, :call, [@server, :get])

  defp info(node, on), do: Enum.find(hot_patch(node, :nodes, []), &(&1.node == on))
  defp applied(node, on), do: info(node, on).applied

  describe "a node with Elixir" do
    test "is attached, patched and rolled back like any other", %{operator: operator} do
      [node] = Cluster.start(1, hot_patch: false)
      consolidate(node)
      calls = start_calls(node, 20)
      for call <- calls, do: %{} = Cluster.call(node, Exchange, :talk, [call, 40])
      before = exchange_code(node)

      assert {:error, %Error{reason: :unmanaged} = error} =
               hot_patch(operator, :drift, [[nodes: [node]]])

      assert Exception.message(error) =~ "HotPatch.attach/1"
      assert hot_patch(operator, :attach, [node, [by: "alice", reason: "ticket 1"]]) == :ok

      assert %{managed?: true, attached?: true, archives?: false} =
               info = Enum.find(hot_patch(operator, :nodes, []), &(&1.node == node))

      assert to_string(info.release) == "exchange 1.0.0"

      # The operator's own node runs nothing: the patch is for what the others run.
      patch = upload!(operator, Builds.changed("patched"))
      assert to_string(patch.release) == "exchange 1.0.0"
      assert {:ok, %{status: :ok}} = hot_patch(operator, :check, [patch.id])
      assert {:ok, plan} = hot_patch(operator, :plan, [patch.id])
      assert %{order: [_ | _]} = Enum.find(plan.nodes, &(&1.node == node))

      assert {:ok, %{status: :ok}} = hot_patch(operator, :apply, [patch.id])
      assert applied(operator, node) == [patch.id]
      for call <- calls, do: assert(Cluster.call(node, Exchange, :charge, [call]) > 0)
      assert {:ok, %{items: []}} = hot_patch(operator, :drift, [])
      # The exchange's meter is a loop of its own, which gets to the new code at its next round.
      until(
        fn -> match?({:ok, %{items: []}}, hot_patch(operator, :stragglers, [])) end,
        "nobody runs old code"
      )

      assert {:ok, %{status: :ok}} = hot_patch(operator, :rollback, [patch.id])
      assert exchange_code(node) == before
      for call <- calls, do: assert(%{} = Cluster.call(node, Exchange, :info, [call]))

      assert {:ok, %{items: entries}} = hot_patch(operator, :journal, [[last: 4]])
      assert Enum.map(entries, & &1.what) == [:rollback, :apply, :upload, :attach]
      first = List.last(entries)

      assert %{by: "alice", reason: "ticket 1", coordinator: ^operator, nodes: [%{node: ^node}]} =
               first
    end

    # As in a release: its protocols know what was there when it was built.
    defp consolidate(node) do
      ebin = Application.app_dir(:elixir, "ebin") |> String.to_charlist()

      for protocol <- [String.Chars, Inspect, Enumerable, Collectable] do
        implementations = Protocol.extract_impls(protocol, [ebin])
        {:ok, bytes} = Protocol.consolidate(protocol, implementations)
        {:module, _} = Cluster.call(node, :code, :load_binary, [protocol, [], bytes])
      end
    end

    test "is as it was when it is detached, but for what Elixir has loaded by itself", %{
      operator: operator
    } do
      [node] = Cluster.start(1, hot_patch: false)

      elixir = fn picture ->
        %{picture | modules: Enum.reject(picture.modules, &elixir?(node, &1))}
      end

      # What an answer takes to be given is there already.
      _ = picture(node)
      before = elixir.(picture(node))

      assert hot_patch(operator, :attach, [node]) == :ok
      assert hot_patch(operator, :detach, [node]) == :ok
      assert differences(before, elixir.(picture(node))) == %{}
    end

    defp elixir?(node, module),
      do: to_string(Cluster.call(node, :code, :which, [module])) =~ ~r"/(elixir|logger)/ebin/"

    test "does what it has missed, if it was done on all nodes of its release" do
      [a] = Cluster.start(1)
      [b] = Cluster.start(1, hot_patch: false)
      Cluster.connect(Enum.sort([a, b]))
      calls = start_calls(b, 10)
      everywhere = upload!(a, Builds.changed("patched"), "everywhere")

      named =
        upload!(a, [{"exchange-1.0.0/ebin/extra.beam", Builds.versioned("extra", 1)}], "named")

      assert {:ok, %{unmanaged: [^b]}} = hot_patch(a, :apply, [everywhere.id])
      assert {:ok, _report} = hot_patch(a, :apply, [named.id, [nodes: [a]]])
      assert running(a, Exchange.Call) != running(b, Exchange.Call)

      assert hot_patch(a, :attach, [b]) == :ok
      assert applied(a, b) == [everywhere.id]
      assert running(a, Exchange.Call) == running(b, Exchange.Call)
      for call <- calls, do: assert(%{} = Cluster.call(b, Exchange, :info, [call]))
    end
  end

  describe "a node without Elixir" do
    test "is attached, patched and rolled back, and then as it was", %{operator: operator} do
      node = PlainErlang.start()
      server = PlainErlang.run(node)
      1 = count(node)
      assert {:error, :nofile} = Cluster.call(node, :code, :ensure_loaded, [Enum])
      _ = picture(node)
      before = picture(node)

      assert hot_patch(operator, :attach, [node]) == :ok

      started =
        for {app, _, _} <- Cluster.call(node, :application, :which_applications, []), do: app

      assert :hot_patch in started
      refute :elixir in started or :logger in started
      # Nothing that was carried says that it came from a file.
      assert Cluster.call(node, :code, :which, [HotPatch.NodeAgent]) == []
      assert Cluster.call(node, :code, :which, [Enum]) == []

      assert %{release: release} = Enum.find(hot_patch(operator, :nodes, []), &(&1.node == node))
      assert to_string(release) == "unreleased switch-1.0.0"

      {_path, bytes} = file = PlainErlang.repaired()
      patch = upload!(operator, [file])
      assert patch.release == release
      assert {:ok, %{status: :ok}} = hot_patch(operator, :check, [patch.id])
      assert {:ok, report} = hot_patch(operator, :apply, [patch.id])
      assert %{suspended: 1} = Enum.find(report.nodes, &(&1.node == node))
      assert state(node) == {2, 1}
      assert count(node) == 2
      assert File.read!(PlainErlang.beam(node)) == bytes

      assert {:error, %Error{reason: :in_force} = error} = hot_patch(operator, :detach, [node])
      assert Exception.message(error) =~ patch.id
      assert %{operation: nil} = Enum.find(hot_patch(operator, :nodes, []), &(&1.node == node))

      assert {:ok, %{status: :ok}} = hot_patch(operator, :rollback, [patch.id])
      assert state(node) == {1, 2}
      assert Cluster.call(node, :erlang, :whereis, [@server]) == server

      assert hot_patch(operator, :detach, [node, [by: "bob"]]) == :ok
      # The old code of what was patched is the host's own.
      assert differences(before, %{picture(node) | old_code: []}) == %{}
      refute node in for(info <- hot_patch(operator, :nodes, []), do: info.node)

      # What it had noted is not lost with its data.
      assert {:ok, %{items: [%{what: :detach, by: "bob"}, %{what: :rollback} = rollback | _]}} =
               hot_patch(operator, :journal, [])

      assert Enum.sort(for on <- rollback.nodes, do: on.node) == Enum.sort([operator, node])
    end

    test "keeps its patches when it is detached so, and can be rolled back when attached again",
         %{operator: operator} do
      node = PlainErlang.start()
      PlainErlang.run(node)
      assert hot_patch(operator, :attach, [node]) == :ok
      patch = upload!(operator, [PlainErlang.repaired()])
      assert {:ok, _report} = hot_patch(operator, :apply, [patch.id])

      assert hot_patch(operator, :detach, [node, [leave_patches: true]]) == :ok
      assert state(node) == {2, 0}
      assert Cluster.call(node, :erlang, :module_loaded, [HotPatch.NodeAgent]) == false

      assert hot_patch(operator, :attach, [node]) == :ok
      assert applied(operator, node) == [patch.id]
      assert state(node) == {2, 0}
      assert {:ok, _report} = hot_patch(operator, :rollback, [patch.id])
      assert state(node) == {1, 0}
      assert hot_patch(operator, :detach, [node]) == :ok
      refute File.exists?(Path.join(Cluster.home(node), ".local/share/hot_patch"))
    end

    test "takes no patch for what was carried there", %{operator: operator} do
      node = PlainErlang.start()
      PlainErlang.run(node)
      assert hot_patch(operator, :attach, [node]) == :ok

      patch =
        upload!(operator, [
          {"switch-1.0.0/ebin/Elixir.Enum.beam", Builds.versioned("'Elixir.Enum'", 1)}
        ])

      assert {:ok, report} = hot_patch(operator, :check, [patch.id, [nodes: [node]]])
      assert [%{files: [%{status: :error, reason: reason}]}] = report.nodes
      assert reason =~ "HotPatch itself"
    end
  end

  describe "who cancels it" do
    # Nothing of the node runs, so that whoever asks it something waits.
    defp still(node) do
      pid = node |> Cluster.call(:os, :getpid, []) |> List.to_string()
      {_output, 0} = System.cmd("kill", ["-STOP", pid])
      on_exit(fn -> System.cmd("kill", ["-CONT", pid], stderr_to_stdout: true) end)
      fn -> {_output, 0} = System.cmd("kill", ["-CONT", pid]) end
    end

    # Who is told to end has a moment for it: here nobody waits for that.
    defp told(operator, node) do
      options = [by: "bob", reason: "not this one", timeout: 1]

      until(
        fn ->
          with {:error, %Error{reason: :not_under_way}} <-
                 hot_patch(operator, :cancel, [node, options]),
               do: nil
        end,
        "it is found"
      )
    end

    for what <- [:attach, :detach] do
      test "before #{what} has begun: the node is as it was", %{operator: operator} do
        node = PlainErlang.start()
        PlainErlang.run(node)
        if unquote(what) == :detach, do: :ok = hot_patch(operator, :attach, [node])
        has = Cluster.call(node, :erlang, :module_loaded, [HotPatch.NodeAgent])
        go_on = still(node)
        task = Task.async(fn -> hot_patch(operator, unquote(what), [node]) end)
        assert {:ok, %{kind: unquote(what), outcome: :ending}} = told(operator, node)
        go_on.()

        assert {:error, %Error{reason: :cancelled} = error} = Task.await(task, 120_000)
        assert Exception.message(error) =~ "cancelled by bob (not this one)"
        assert Exception.message(error) =~ "nothing was changed there"
        assert error.details.outcome == :nothing_changed
        assert Cluster.call(node, :erlang, :module_loaded, [HotPatch.NodeAgent]) == has
        assert Cluster.call(node, :erlang, :module_loaded, [Bootstrap]) == has

        assert {:ok, %{items: items}} = hot_patch(operator, :journal, [[patch: "#{node}"]])
        assert %{by: "bob", outcome: :nothing_changed} = Enum.find(items, &(&1.what == :cancel))

        # And nothing stands in its way the next time.
        assert hot_patch(operator, unquote(what), [node]) == :ok
        if unquote(what) == :attach, do: assert(hot_patch(operator, :detach, [node]) == :ok)
      end
    end

    test "when the modules come already: it is too late, which is said", %{operator: operator} do
      node = PlainErlang.start()
      PlainErlang.run(node)

      # It may be over before it is found: then again.
      cancelled = until(fn -> cancelled_late(operator, node) end, "it is found too late")
      assert %{kind: :attach, outcome: :too_late} = cancelled
      assert cancelled.message =~ "it was decided already, and is done"
      assert info(operator, node).managed?
      assert hot_patch(operator, :detach, [node]) == :ok
    end

    defp cancelled_late(operator, node) do
      task = Task.async(fn -> hot_patch(operator, :attach, [node]) end)

      until(fn -> Cluster.call(node, :erlang, :module_loaded, [Bootstrap]) end, "it has begun")
      answer = hot_patch(operator, :cancel, [node, [by: "bob"]])
      assert Task.await(task, 120_000) == :ok

      case answer do
        {:ok, cancellation} ->
          cancellation

        {:error, %Error{reason: :not_under_way}} ->
          :ok = hot_patch(operator, :detach, [node])
          nil
      end
    end
  end

  describe "what a node runs" do
    test "is not changed by applications that are started, and its patches stay its", context do
      %{operator: operator} = context
      node = PlainErlang.start()
      PlainErlang.run(node)
      assert hot_patch(operator, :attach, [node]) == :ok
      patch = upload!(operator, [PlainErlang.repaired()])
      assert {:ok, _report} = hot_patch(operator, :apply, [patch.id])

      extra = {:application, :hot_patch_test_extra, [vsn: ~c"1", modules: []]}
      :ok = Cluster.call(node, :application, :load, [extra])
      :ok = Cluster.call(node, :application, :start, [:hot_patch_test_extra])
      :ok = Cluster.call(node, :application, :stop, [:switch])
      :ok = Cluster.call(node, :application, :start, [:switch])

      assert %{applied: [id], release: release} = info(operator, node)
      assert {id, to_string(release)} == {patch.id, "unreleased switch-1.0.0"}
      assert {:error, %Error{reason: :in_force}} = hot_patch(operator, :detach, [node])
      assert {:ok, _report} = hot_patch(operator, :rollback, [patch.id])
      assert state(node) == {1, 0}
      assert hot_patch(operator, :detach, [node]) == :ok
    end

    test "may get another name, and the way back is not lost", %{operator: operator} do
      node = PlainErlang.start()
      PlainErlang.run(node)
      assert hot_patch(operator, :attach, [node]) == :ok
      patch = upload!(operator, [PlainErlang.repaired()])
      assert {:ok, _report} = hot_patch(operator, :apply, [patch.id])

      for release <- [{"switch", "7"}, {"switch", "8"}] do
        assert hot_patch(operator, :detach, [node, [leave_patches: true]]) == :ok
        assert hot_patch(operator, :attach, [node, [release: release]]) == :ok
        assert %{applied: [id], restart_needed: []} = info(operator, node)
        assert id == patch.id
      end

      assert to_string(info(operator, node).release) == "switch 8"
      assert hot_patch(operator, :attach, [node, [release: {"switch", "8"}]]) == :ok

      # It is there already: nothing is passed over.
      for option <- [release: {"switch", "9"}, data_dir: "/nowhere", peers: [operator]] do
        assert {:error, %Error{reason: :invalid_option} = error} =
                 hot_patch(operator, :attach, [node, [option]])

        assert error.message =~ "detach it first"
        assert error.details.option == elem(option, 0)
      end

      assert {:ok, _report} = hot_patch(operator, :rollback, [patch.id])
      assert state(node) == {1, 0}
      assert hot_patch(operator, :detach, [node]) == :ok
    end

    test "may differ: an operator's node patches both, and says for which", context do
      %{operator: operator} = context
      [one, two] = for vsn <- ["1.0.0", "2.0.0"], do: PlainErlang.start([], vsn)
      # Not known yet for what it is.
      early = upload!(operator, [PlainErlang.repaired("2.0.0")], "early")
      for node <- [one, two], do: PlainErlang.run(node)
      for node <- [one, two], do: assert(hot_patch(operator, :attach, [node]) == :ok)

      for {node, vsn} <- [{one, "1.0.0"}, {two, "2.0.0"}] do
        file = PlainErlang.repaired(vsn)
        archive = HotPatch.Test.Archives.zip([file])
        upload = &hot_patch(operator, :upload, [archive, [{:name, "both"} | &1]])
        assert {:error, %Error{reason: :invalid_option} = error} = upload.([])
        assert error.message =~ "unreleased switch-1.0.0 on #{one}"
        assert error.message =~ "unreleased switch-2.0.0 on #{two}"
        assert error.message =~ "release: {"

        assert {:ok, patch} = upload.(release: {"unreleased", "switch-#{vsn}"})
        assert {:ok, %{status: :ok}} = hot_patch(operator, :apply, [patch.id, [nodes: [node]]])
        assert state(node) == {2, 0}

        # What was made for the one is refused by the other.
        [other] = [one, two] -- [node]
        assert {:ok, report} = hot_patch(operator, :check, [patch.id, [nodes: [other]]])
        assert %{status: :error, nodes: [%{files: [%{reason: reason}]}]} = report
        assert reason =~ "is bound to unreleased switch-#{vsn}"
        assert {:ok, _report} = hot_patch(operator, :rollback, [patch.id, [nodes: [node]]])
        assert state(node) == {1, 0}
      end

      # One that was uploaded before there was a system is for that of the nodes it comes to.
      assert {:error, %Error{reason: :invalid_option}} = hot_patch(operator, :apply, [early.id])
      assert {:ok, _report} = hot_patch(operator, :apply, [early.id, [nodes: [two]]])
      assert state(two) == {2, 0}
      assert {:ok, _report} = hot_patch(operator, :rollback, [early.id, [nodes: [two]]])
      for node <- [one, two], do: assert(hot_patch(operator, :detach, [node]) == :ok)
    end
  end

  describe "attach" do
    test "does nothing where the same version runs, attached or not" do
      [a, b] = Cluster.start(2, exchange: false)
      node = PlainErlang.start()
      assert hot_patch(a, :attach, [b]) == :ok
      assert hot_patch(a, :attach, [a]) == :ok
      assert hot_patch(a, :attach, [node]) == :ok
      agent = Cluster.call(node, :erlang, :whereis, [HotPatch.NodeAgent.Server])
      assert hot_patch(a, :attach, [node]) == :ok
      assert Cluster.call(node, :erlang, :whereis, [HotPatch.NodeAgent.Server]) == agent
    end

    test "gives its options to the node, and starts one anew that has died", %{operator: operator} do
      node = PlainErlang.start()
      data = Path.join(Cluster.home(node), "data")
      wrappers = [{:a_library, [:module]}]
      Cluster.call(operator, Application, :put_env, [:hot_patch, :wrappers, wrappers])
      :ok = Cluster.call(operator, HotPatch.Host.Config, :load, [])
      options = [data_dir: data, release: {"switch", "7"}, peers: [operator]]
      assert hot_patch(operator, :attach, [node, options]) == :ok
      assert Cluster.call(node, HotPatch.Host.Config, :current, []).wrappers == wrappers

      assert [%{release: release}] =
               for(i <- hot_patch(operator, :nodes, []), i.node == node, do: i)

      assert to_string(release) == "switch 7"
      assert File.dir?(data)
      assert Cluster.call(node, :application, :get_env, [:hot_patch, :peers]) == {:ok, [operator]}

      Cluster.call(node, :application, :stop, [:hot_patch])
      assert hot_patch(operator, :attach, [node]) == :ok
      assert Enum.any?(hot_patch(operator, :nodes, []), &(&1.node == node and &1.managed?))
    end

    test "names both versions where another one runs", %{operator: operator} do
      [node] = Cluster.start(1, exchange: false, hot_patch: false)

      {:module, _} =
        Cluster.call(node, :code, :load_binary, [HotPatch.NodeAgent, [], other_agent()])

      :ok = Cluster.call(node, :application, :load, [other_application()])
      :ok = Cluster.call(node, :application, :start, [:hot_patch])

      assert {:error, %Error{reason: :incompatible} = error} =
               hot_patch(operator, :attach, [node])

      assert Exception.message(error) =~ "HotPatch 0.0.9 (protocol 1)"

      assert Exception.message(error) =~
               "HotPatch #{Application.spec(:hot_patch, :vsn)} (protocol"
    end

    defp other_agent do
      Builds.erlang("""
      -module('Elixir.HotPatch.NodeAgent').
      -export([protocol/0]).
      protocol() -> 1.
      """)
    end

    defp other_application,
      do: {:application, :hot_patch, [vsn: ~c"0.0.9", applications: [:kernel]]}

    test "leaves nothing where it fails", %{operator: operator} do
      node = PlainErlang.start()

      {:module, _} =
        Cluster.call(node, :code, :load_binary, [
          HotPatch.Swap,
          [],
          Builds.versioned("'Elixir.HotPatch.Swap'", 1)
        ])

      _ = picture(node)
      before = picture(node)

      # A module of another version, which nobody overwrites.
      assert {:error, %Error{reason: :incompatible} = error} =
               hot_patch(operator, :attach, [node])

      assert Exception.message(error) =~ "HotPatch.Swap"
      assert differences(before, picture(node)) == %{}

      # A place that cannot be written: all is loaded by then.
      true = Cluster.call(node, :code, :delete, [HotPatch.Swap])
      false = Cluster.call(node, :code, :purge, [HotPatch.Swap])
      options = [data_dir: "/dev/null/no"]

      assert {:error, %Error{reason: :file} = error} =
               hot_patch(operator, :attach, [node, options])

      assert Exception.message(error) =~ "/dev/null/no"

      assert differences(%{before | modules: before.modules -- [HotPatch.Swap]}, picture(node)) ==
               %{}

      assert [] == for(info <- hot_patch(operator, :nodes, []), info.node == node, do: info)
    end

    test "says what a node lacks that cannot run it", %{operator: operator} do
      # In embedded mode nothing is loaded on first use, and this one has booted without crypto.
      node = PlainErlang.start([~c"-mode", ~c"embedded"])
      _ = picture(node)
      before = picture(node)

      assert {:error, %Error{reason: :incompatible} = error} =
               hot_patch(operator, :attach, [node])

      assert Exception.message(error) =~ ":crypto.hash/2"
      assert differences(before, picture(node)) == %{}
    end

    test "is told of the first module that a loader refuses, not of hundreds" do
      node = PlainErlang.start()
      before = picture(node)
      {:module, _} = Cluster.call(node, :code, :load_binary, foothold())

      good = {:hot_patch_test_good, [], Builds.versioned(:hot_patch_test_good, 1)}
      damaged = for n <- 1..3, do: {:"hot_patch_test_damaged#{n}", [], "FOR1"}
      cargo = %{modules: [good | damaged], alone: [], spec: nil, settings: []}

      assert {:error, [{:hot_patch_test_damaged1, :badfile}], sweeper} =
               Cluster.call(node, Bootstrap, :enter, [cargo])

      until(fn -> not Cluster.call(node, :erlang, :is_process_alive, [sweeper]) end, "it is tidy")
      assert differences(before, picture(node)) == %{}
    end

    test "does not reach a node that is not there" do
      assert {:error, %Error{reason: :unreachable}} = HotPatch.attach(:"nobody@127.0.0.1")
      assert_raise Error, ~r/not reachable/, fn -> HotPatch.attach!(:"nobody@127.0.0.1") end
    end

    test "comes first with a module that calls nothing but OTP" do
      {:ok, {_, [imports: imports]}} = Bootstrap |> :code.which() |> :beam_lib.chunks([:imports])

      elixir =
        for {module, _, _} <- imports, Atom.to_string(module) =~ "Elixir.", uniq: true, do: module

      # What comes with it, once that is there.
      assert Enum.sort(elixir) == [HotPatch.NodeAgent.Detachment, HotPatch.Store.DataDir]
    end
  end

  describe "detach" do
    test "is refused where HotPatch is part of what a node runs, or is not there" do
      [a, b] = Cluster.start(2, exchange: false)
      node = PlainErlang.start()
      assert {:error, %Error{reason: :not_attached}} = hot_patch(a, :detach, [b])
      assert Enum.all?(hot_patch(a, :nodes, []), & &1.managed?)
      assert {:error, %Error{reason: :unmanaged}} = hot_patch(a, :detach, [node])
      assert_raise Error, fn -> HotPatch.detach!(node) end
    end

    test "is refused while an operation holds the node; leaves Elixir where it is used by then",
         %{operator: operator} do
      node = PlainErlang.start()
      assert hot_patch(operator, :attach, [node]) == :ok
      held = %{ref: make_ref(), kind: :apply, patch: "fix-1", by: "carol", coordinator: self()}
      assert {:ok, _seq} = Cluster.call(node, HotPatch.NodeAgent, :reserve, [held])

      assert {:error, %Error{reason: :busy} = error} = hot_patch(operator, :detach, [node])
      assert Exception.message(error) =~ "apply of fix-1 by carol"
      assert :ok = Cluster.call(node, HotPatch.NodeAgent, :abort, [held.ref])

      # Somebody else has brought a module that may call Elixir's.
      host = Builds.versioned("'Elixir.Host'", 1)
      {:module, _} = Cluster.call(node, :code, :load_binary, [Host, [], host])
      assert hot_patch(operator, :detach, [node]) == :ok
      assert Cluster.call(node, :erlang, :module_loaded, [Enum])
      refute Cluster.call(node, :erlang, :module_loaded, [HotPatch.NodeAgent])
      # Those are taken for the node's own now.
      assert hot_patch(operator, :attach, [node]) == :ok
    end
  end
end
