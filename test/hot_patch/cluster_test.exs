defmodule HotPatch.ClusterTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Operator, only: [risk?: 2]
  import HotPatch.Test.Settings, only: [configure_on: 2]
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Report
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Loops
  alias HotPatch.Test.Servers

  @moduletag :starts_nodes

  setup_all do
    [node] = Cluster.start(1)
    %{unchanged: node}
  end

  @numbers [{"1234567", "7654321"}, {"withheld", "0301234"}, {"1234567", "0044123"}]

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  defp upload!(node, files, name \\ "fix") do
    {:ok, patch} = hot_patch(node, :upload, [zip(files), [name: name]])
    patch
  end

  defp start_calls(node, count) do
    numbers = Enum.take(Stream.cycle(@numbers), count)
    Cluster.call(node, Exchange, :start_calls, [numbers])
  end

  defp running(node, module), do: Cluster.call(node, :erlang, :get_module_info, [module, :md5])

  defp statuses(report) do
    for node <- report.nodes, file <- node.files, into: %{} do
      {{node.node, Path.basename(file.path, ".beam")}, file.status}
    end
  end

  # Everything that a refusal must leave alone: the code of the exchange and its disk.
  defp snapshot(nodes) do
    for node <- nodes, into: %{}, do: {node, {exchange_code(node), Cluster.disk(node)}}
  end

  defp exchange_code(node) do
    for {module, _file} <- Cluster.call(node, :code, :all_loaded, []),
        Atom.to_string(module) =~ ~r/\A(Elixir\.Exchange|hot_patch_test)/,
        {:ok, md5} <- [md5(node, module)],
        into: %{},
        do: {module, md5}
  end

  # A module may be unloaded while they are looked at.
  defp md5(node, module) do
    {:ok, Base.encode16(running(node, module))}
  rescue
    ErlangError -> :unloaded
  end

  defp module_md5({_path, bytes}), do: :code.module_md5(bytes)

  describe "the whole way" do
    test "upload, composition, check, plan, apply, nodes, list, delete on three nodes with calls" do
      [a, b, c] = nodes = Cluster.start(3)
      calls = Enum.flat_map(nodes, &start_calls(&1, 30))

      for call <- calls,
          do: %{seconds: 40} = Exchange |> then(&Cluster.call(node(call), &1, :talk, [call, 40]))

      assert Cluster.call(a, Exchange, :charge, [hd(calls)]) == 0

      files = Builds.changed("patched")
      patch = upload!(a, files)
      assert patch.id =~ ~r/\Afix-[0-9a-f]{12}\z/
      assert patch.state == :uploaded
      assert patch.modules == length(files)

      # From another node than that of the upload.
      assert {:ok, composition} = hot_patch(b, :composition, [patch.id])
      assert Enum.map(composition.files, & &1.path) == Enum.map(files, &elem(&1, 0))

      before = snapshot(nodes)
      assert {:ok, check} = hot_patch(b, :check, [patch.id])
      assert check.status == :ok
      assert Enum.map(check.nodes, & &1.node) == nodes
      assert Enum.all?(statuses(check), fn {_file, status} -> status == :ok end)

      assert {:ok, plan} = hot_patch(b, :plan, [patch.id])

      for node <- plan.nodes do
        assert node.error == nil
        assert {:add, "Exchange.Tariff"} == hd(node.order)

        assert %{count: 30, kind: :server, change_code?: true} =
                 Enum.find(node.processes, &(&1.module == "Exchange.Call"))

        assert %{kind: :event_manager} = Enum.find(node.processes, &(&1.module == "Exchange.Cdr"))
        refute Enum.any?(node.processes, &(&1.module == "Exchange.Meter"))
      end

      assert snapshot(nodes) == before

      assert {:ok, report} = hot_patch(b, :apply, [patch.id, [by: "alice"]])
      assert report.status == :ok
      assert report.by == "alice"
      assert report.unmanaged == []
      for node <- report.nodes, do: assert(node.pause_us > 0 and node.suspended >= 34)

      for node <- nodes, {path, bytes} = file <- files do
        module = path |> Path.basename(".beam") |> String.to_existing_atom()
        assert running(node, module) == module_md5(file)
        assert File.read!(Path.join([Cluster.home(node), "lib", path])) == bytes

        assert Cluster.call(node, :code, :which, [module]) |> List.to_string() =~
                 Cluster.home(node)
      end

      # Nothing of the work is left on disk.
      assert nodes
             |> Enum.flat_map(&Map.keys(Cluster.disk(&1)))
             |> Enum.filter(&(&1 =~ "hot_patch-")) == []

      # State went along, the bug is gone, nobody died.
      for call <- calls do
        assert %{seconds: 40} = Cluster.call(node(call), Exchange, :info, [call])
        assert Cluster.call(node(call), Exchange, :charge, [call]) > 0
      end

      assert Enum.map(hot_patch(c, :nodes, []), &{&1.node, &1.applied, &1.restart_needed}) ==
               Enum.map(nodes, &{&1, [patch.id], []})

      assert %{items: [%{state: :applied, applied_on: ^nodes, kept_on: [^a]}]} =
               hot_patch(c, :list, [])

      assert {:ok, %{status: :not_changed}} = hot_patch(a, :check, ["fix"])

      assert hot_patch(c, :delete, [patch.id]) == :ok
      # What is applied stays known, though its archive is gone.
      assert %{items: [%{state: :applied, applied_on: ^nodes, kept_on: []}]} =
               hot_patch(a, :list, [])

      assert {:error, %Error{reason: :unknown_patch}} = hot_patch(a, :apply, [patch.id])
    end
  end

  describe "a check gives" do
    setup do
      [node] = Cluster.start(1)
      %{node: node}
    end

    defp check(node, files) do
      patch = upload!(node, files, "check-#{System.unique_integer([:positive])}")
      before = snapshot([node])
      {:ok, report} = hot_patch(node, :check, [patch.id])
      assert snapshot([node]) == before
      {patch, report, hd(report.nodes).files}
    end

    # A check that refuses, and an apply that changes nothing.
    defp assert_refused(node, files, status, reason) do
      {patch, report, found} = check(node, files)
      assert report.status == status
      worst = Enum.find(found, &(&1.status == status))
      assert worst.reason =~ reason

      before = snapshot([node])
      assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :apply, [patch.id])
      assert Exception.message(error) =~ "nothing was changed"
      assert Exception.message(error) =~ Path.basename(worst.path)
      assert error.report.status == status
      assert snapshot([node]) == before
      assert hot_patch(node, :nodes, []) |> hd() |> Map.get(:applied) == []
      assert hot_patch(node, :nodes, []) |> hd() |> Map.get(:operation) == nil
    end

    test "not_beam for other files, which go to disk all the same", %{node: node} do
      text = {"exchange-1.0.0/priv/rates/2026.txt", "1 2 3"}

      {patch, report, files} =
        check(node, [text, Builds.changed("patched", "Meter"), {"README.txt", "hello"}])

      assert report.status == :not_beam
      assert ["not_beam", "not_beam", "ok"] == files |> Enum.map(&"#{&1.status}") |> Enum.sort()
      assert {:ok, %Report{status: :not_beam}} = hot_patch(node, :apply, [patch.id])
      assert File.read!(Cluster.exchange(node) <> "/priv/rates/2026.txt") == "1 2 3"
      assert running(node, Exchange.Meter) == module_md5(Builds.changed("patched", "Meter"))
    end

    test "not_beam does not stand for all where the files are carried as they should be", %{
      node: node
    } do
      text = {"exchange-1.0.0/priv/rates/2026.txt", "1 2 3"}
      elsewhere = {"elsewhere-2.0/priv/rates.txt", "1"}
      {patch, report, _} = check(node, [text, elsewhere, Builds.changed("patched", "Meter")])
      assert report.status == :ok
      assert {:ok, %Report{status: :ok} = report} = hot_patch(node, :apply, [patch.id])

      assert %{"2026.txt" => true, "rates.txt" => true, "Elixir.Exchange.Meter.beam" => false} =
               Map.new(hd(report.nodes).files, &{Path.basename(&1.path), &1.carried?})

      assert to_string(report) =~ "1 ok, 2 not_beam" or to_string(report) =~ "2 not_beam, 1 ok"

      assert {:ok, %{items: [%{status: :ok} | _]}} = hot_patch(node, :journal, [[last: 1]])

      # Alone they are what they are; one that has no place is not as it should be.
      {alone, report, _} = check(node, [text])
      assert report.status == :not_beam
      assert {:ok, %Report{status: :not_beam}} = hot_patch(node, :apply, [alone.id])
      billing = Builds.changed("patched", "Billing")
      assert {_, %{status: :not_beam}, _} = check(node, [billing, {"rates.txt", "1"}])
    end

    test "error for a module in a sticky folder, which is not taken for one of OTP", %{node: node} do
      folder = Cluster.exchange(node) <> "/ebin"
      :ok = Cluster.call(node, :code, :stick_dir, [String.to_charlist(folder)])
      # A module is protected from when it is loaded on.
      loaded = Cluster.call(node, :code, :load_file, [Exchange.Billing])
      assert loaded in [{:module, Exchange.Billing}, {:error, :sticky_directory}]
      {_, report, [file]} = check(node, [Builds.changed("patched", "Billing")])
      assert report.status == :error
      assert file.reason =~ "its folder #{folder} is sticky" and file.reason =~ "unstick_dir"
      refute file.reason =~ "OTP"
      lists = File.read!(:code.which(:lists))

      assert {_, _, [%{status: :error, reason: reason}]} =
               check(node, [{"stdlib-4.2/ebin/lists.beam", lists}])

      assert reason =~ "belongs to Erlang/OTP"
      :ok = Cluster.call(node, :code, :unstick_dir, [String.to_charlist(folder)])
      assert {_, %{status: :ok}, _} = check(node, [Builds.changed("patched", "Billing")])
    end

    test "not_changed for what already runs", %{node: node} do
      path = "exchange-1.0.0/ebin/Elixir.Exchange.beam"

      {patch, report, _} =
        check(node, [{path, File.read!(Builds.ebin("shipped") <> "/Elixir.Exchange.beam")}])

      assert report.status == :not_changed

      assert {:ok, %Report{status: :not_changed, nodes: [%{suspended: 0}]}} =
               hot_patch(node, :apply, [patch.id])
    end

    test "ok where only the vsn differs", %{node: node} do
      shipped = File.read!(Builds.ebin("shipped") <> "/Elixir.Exchange.Billing.beam")
      {:ok, _module, chunks} = :beam_lib.all_chunks(shipped)
      attributes = :erlang.term_to_binary(vsn: [:another])

      {:ok, other} =
        chunks |> List.keyreplace(~c"Attr", 0, {~c"Attr", attributes}) |> :beam_lib.build_module()

      assert :code.module_md5(other) == :code.module_md5(shipped)

      {patch, report, _} =
        check(node, [{"exchange-1.0.0/ebin/Elixir.Exchange.Billing.beam", other}])

      assert report.status == :ok
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, [patch.id])
      assert Cluster.call(node, Exchange.Billing, :module_info, [:attributes])[:vsn] == [:another]
    end

    test "not_loaded for modules of applications that the node does not have", %{node: node} do
      bytes = Builds.erlang("-module(hot_patch_test_elsewhere). -export([f/0]). f() -> 1.")

      {patch, report, _} =
        check(node, [{"elsewhere-2.0/ebin/hot_patch_test_elsewhere.beam", bytes}])

      assert report.status == :not_loaded
      assert {:ok, %Report{status: :not_loaded}} = hot_patch(node, :apply, [patch.id])
      refute Cluster.call(node, :code, :is_loaded, [:hot_patch_test_elsewhere])
    end

    test "not_updated for on_load and NIF modules; all wait for the restart", %{node: node} do
      nif = """
      -module(hot_patch_test_nif).
      -on_load(load/0).
      -export([load/0]).
      load() -> ok.
      """

      files = [
        {"exchange-1.0.0/ebin/hot_patch_test_nif.beam", Builds.erlang(nif)},
        Builds.changed("patched", "Billing")
      ]

      {patch, report, found} = check(node, files)
      assert report.status == :not_updated
      assert Enum.all?(found, &(&1.status == :not_updated))
      assert Enum.any?(found, &(&1.reason =~ "on_load"))
      assert Enum.any?(found, &(&1.reason =~ "held back with hot_patch_test_nif"))

      md5 = running(node, Exchange.Billing)

      assert {:ok, %Report{status: :not_updated, nodes: [applied]}} =
               hot_patch(node, :apply, [patch.id])

      assert applied.restart_needed =~ "hot_patch_test_nif"
      assert running(node, Exchange.Billing) == md5
      {_, bytes} = Builds.changed("patched", "Billing")
      assert File.read!(Cluster.exchange(node) <> "/ebin/Elixir.Exchange.Billing.beam") == bytes
      assert [%{restart_needed: [reason]}] = hot_patch(node, :nodes, [])
      assert reason =~ "Elixir.Exchange.Billing"
    end

    # Refuses where the node is told so; says which version it is.
    defp on_load(module, vsn) do
      Builds.erlang("""
      -module(#{module}).
      -vsn(#{vsn}).
      -on_load(load/0).
      -export([vsn/0]).
      vsn() -> #{vsn}.
      load() -> case persistent_term:get({refuse, #{module}}, none) of #{vsn} -> {error, refused}; _ -> ok end.
      """)
    end

    test "ok for on_load modules that are to be loaded by a step of their own", %{node: node} do
      path = &"exchange-1.0.0/ebin/#{&1}.beam"
      a = :hot_patch_test_on_load_a
      b = :hot_patch_test_on_load_b
      billing = Builds.changed("patched", "Billing")
      first = upload!(node, [{path.(a), on_load(a, 1)}, {path.(b), on_load(b, 1)}], "first")
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, [first.id, [on_load: :load]])

      files = [{path.(a), on_load(a, 2)}, {path.(b), on_load(b, 2)}, billing]
      second = upload!(node, files, "second")
      assert {:ok, plan} = hot_patch(node, :plan, [second.id, [on_load: :load]])
      assert risk?(hd(plan.nodes), "#{a} runs code when it is loaded")

      # The second of the two refuses: the first goes back, and nothing else has happened.
      Cluster.call(node, :persistent_term, :put, [{:refuse, b}, 2])
      md5 = running(node, Exchange.Billing)

      assert {:error, %Error{reason: :failed} = error} =
               hot_patch(node, :apply, [second.id, [on_load: :load]])

      assert error.message =~ "#{b} runs code when it is loaded, and that failed"
      assert Cluster.call(node, a, :vsn, []) == 1
      assert Cluster.call(node, b, :vsn, []) == 1
      assert running(node, Exchange.Billing) == md5

      Cluster.call(node, :persistent_term, :put, [{:refuse, b}, :none])
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, [second.id, [on_load: :load]])
      assert Cluster.call(node, a, :vsn, []) == 2
      assert Cluster.call(node, b, :vsn, []) == 2
      assert running(node, Exchange.Billing) != md5
    end

    test "an on_load that never ends is stopped at the deadline", %{node: node} do
      endless = """
      -module(hot_patch_test_endless).
      -on_load(load/0).
      load() -> receive never -> ok end.
      """

      file = {"exchange-1.0.0/ebin/hot_patch_test_endless.beam", Builds.erlang(endless)}
      patch = upload!(node, [file, Builds.changed("patched", "Billing")], "endless")
      options = [on_load: :load, pause_timeout: 300]
      assert {:error, %Error{} = error} = hot_patch(node, :apply, [patch.id, options])
      assert error.message =~ "hot_patch_test_endless"
      assert error.message =~ "did not end in time"
      refute Cluster.call(node, :code, :is_loaded, [:hot_patch_test_endless])
    end

    test "not_updated while old code is in use, and then nothing changes", %{node: node} do
      looping = fn version ->
        Builds.erlang(
          "-module(hot_patch_test_loop). -vsn(#{version}). -export([loop/0]). loop() -> receive stop -> ok; _ -> loop() end."
        )
      end

      path = "exchange-1.0.0/ebin/hot_patch_test_loop.beam"
      first = upload!(node, [{path, looping.(1)}], "first")
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, [first.id])
      pid = Cluster.call(node, :erlang, :spawn, [:hot_patch_test_loop, :loop, []])

      second = upload!(node, [{path, looping.(2)}], "second")

      assert {:ok, %Report{status: :ok, nodes: [%{stragglers: [straggler]}]} = report} =
               hot_patch(node, :apply, [second.id])

      assert straggler.pid == pid
      assert to_string(report) =~ "still runs old code of :hot_patch_test_loop"

      assert {:ok, %{items: [%HotPatch.Straggler{pid: ^pid, kind: :in_loop, node: ^node}]}} =
               hot_patch(node, :stragglers, [])

      assert_refused_while_held(node, path, looping.(3), pid)

      # One that leaves it soon is waited for.
      stops = Node.spawn(node, Loops, :stop_when_in_the_way, [pid, self()])
      assert_receive {^stops, :watches}
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, ["third"])
      assert_receive {^stops, :stopped}
    end

    test "by force, old code is purged with those who run it; this is said before and marked after",
         %{node: node} do
      looping = fn version ->
        Builds.erlang(
          "-module(hot_patch_test_loop). -vsn(#{version}). -export([loop/0]). loop() -> receive stop -> ok; _ -> loop() end."
        )
      end

      path = "exchange-1.0.0/ebin/hot_patch_test_loop.beam"

      for version <- [1, 2] do
        upload!(node, [{path, looping.(version)}], "version-#{version}")
        assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, ["version-#{version}"])

        if version == 1,
          do: Cluster.call(node, :erlang, :spawn, [:hot_patch_test_loop, :loop, []])
      end

      assert {:ok, %{items: [%{pid: pid}]}} = hot_patch(node, :stragglers, [])
      third = upload!(node, [{path, looping.(3)}], "version-3")
      assert {:ok, %{status: :not_updated}} = hot_patch(node, :check, [third.id])
      assert {:ok, %{status: :ok}} = hot_patch(node, :check, [third.id, [purge: :force]])

      assert {:ok, %{nodes: [node_plan]}} = hot_patch(node, :plan, [third.id, [purge: :force]])

      assert risk?(node_plan, ["kills 1 process", Cluster.call(node, Kernel, :inspect, [pid])])

      assert Cluster.call(node, Process, :alive?, [pid])

      assert {:ok, report} = hot_patch(node, :apply, [third.id, [purge: :force]])
      assert [%{status: :ok, killed: [^pid]}] = report.nodes
      assert to_string(report) =~ "killed by force"
      refute Cluster.call(node, Process, :alive?, [pid])
      third_id = third.id
      assert [%{forced: [^third_id]} = info] = hot_patch(node, :nodes, [])
      assert to_string(info) =~ "by force: #{third.id}"
    end

    defp assert_refused_while_held(node, path, bytes, pid) do
      third = upload!(node, [{path, bytes}], "third")
      {:ok, report} = hot_patch(node, :check, [third.id])
      assert report.status == :not_updated
      before = snapshot([node])
      assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :apply, [third.id])
      assert Exception.message(error) =~ "old code"
      # Named by the node's own pid, as its operator would.
      assert Exception.message(error) =~ Cluster.call(node, Kernel, :inspect, [pid])
      assert snapshot([node]) == before
    end
  end

  # What changes nothing has one node for all.
  describe "a check that refuses gives" do
    setup %{unchanged: node}, do: %{node: node}

    test "error for a damaged module", %{node: node} do
      {path, bytes} = Builds.changed("patched", "Call")

      assert_refused(
        node,
        [{path, binary_part(bytes, 0, 2_000)}, Builds.changed("patched", "Billing")],
        :error,
        "The file has 2000 bytes"
      )
    end

    test "error for a module whose inner parts are damaged, with the rule", %{node: node} do
      {path, bytes} = Builds.changed("patched", "Call")
      {:ok, _module, chunks} = :beam_lib.all_chunks(bytes)
      chunks = List.keyreplace(chunks, ~c"LitT", 0, {~c"LitT", <<100::32, "no zlib stream">>})
      {:ok, broken} = :beam_lib.build_module(chunks)
      assert_refused(node, [{path, broken}], :error, "rule literal_packed")
    end

    test "error for system libraries: OTP, Elixir, HotPatch", %{node: node} do
      for {module, owner} <- [
            {:lists, "OTP"},
            {Enum, "Elixir"},
            {HotPatch.Status, "HotPatch"},
            {:erlang, "OTP"}
          ] do
        path = module |> :code.which() |> system_path(module)
        bytes = File.read!(path)
        archived = path |> Path.split() |> Enum.take(-3) |> Path.join()
        assert_refused(node, [{archived, bytes}], :error, owner)
        # Nor under the name of an application of ours.
        assert_refused(node, [{"exchange-1.0.0/ebin/#{module}.beam", bytes}], :error, owner)
      end
    end

    test "error for another version of the application", %{node: node} do
      {path, bytes} = Builds.changed("patched", "Call")
      path = String.replace(path, "1.0.0", "1.1.0")
      assert_refused(node, [{path, bytes}], :error, "runs exchange 1.0.0")
    end

    test "error for two files of one module", %{node: node} do
      {path, bytes} = Builds.changed("patched", "Call")
      assert_refused(node, [{path, bytes}, {"lib/" <> path, bytes}], :error, "keep one")
    end

    test "wrong_path, with the right one", %{node: node} do
      {path, bytes} = Builds.changed("patched", "Call")
      file = Path.basename(path)

      for wrong <- [
            file,
            "ebin/" <> file,
            "exchange-1.0.0/" <> file,
            "exchange/ebin/" <> file,
            "exchange-1.0.0/lib/ebin/" <> file
          ] do
        assert_refused(
          node,
          [{wrong, bytes}, Builds.changed("patched", "Billing")],
          :wrong_path,
          "exchange-1.0.0/ebin/" <> file
        )
      end

      {_, report, _} = check(node, [{"lib/" <> path, bytes}])
      assert report.status == :ok
    end

    test "error for an archive of sources, which nothing compiles here", %{node: node} do
      before = snapshot([node])

      for {files, text} <- [
            {[{"exchange-1.0.0/lib/billing.ex", "defmodule A, do: nil"}], "source code"},
            {[{"exchange-1.0.0/src/a.erl", "-module(a)."}, {"exchange-1.0.0/priv/x", "1"}],
             "source code"},
            {[{"lib/billing.ex", "defmodule A, do: nil"}, {"README.md", "hello"}],
             "the archive has no module"},
            {[{"README.md", "hello"}], "names no application's folder"}
          ] do
        {patch, report, found} = check(node, files)
        assert report.status == :error
        assert Enum.any?(found, &(&1.status == :error and &1.reason =~ text))
        assert Enum.any?(found, &((&1.reason || "") =~ "compiled modules (.beam)"))
        assert {:error, %Error{reason: :refused}} = hot_patch(node, :apply, [patch.id])
      end

      assert snapshot([node]) == before
      # Scripts that the application reads itself, and sources beside modules, are carried.
      script = {"exchange-1.0.0/priv/repo/seeds.exs", "IO.puts(1)"}
      assert {_, %{status: :not_beam}, _} = check(node, [script])
      source = {"exchange-1.0.0/src/meter.ex", "defmodule A, do: nil"}
      assert {_, %{status: :ok}, _} = check(node, [source, Builds.changed("patched", "Meter")])
    end

    defp system_path(:preloaded, module) do
      :code.lib_dir() |> Path.join("erts-*/ebin/#{module}.beam") |> Path.wildcard() |> hd()
    end

    defp system_path(path, _module), do: List.to_string(path)
  end

  describe "all nodes or none" do
    test "one node that cannot prepare stops all" do
      [a, b] = nodes = Cluster.start(2)
      patch = upload!(a, Builds.changed("patched"))
      # A folder in the place of a file cannot be replaced.
      target = Cluster.exchange(b) <> "/ebin/Elixir.Exchange.Tariff.beam"
      File.mkdir!(target)
      before = snapshot(nodes)

      assert {:error, %Error{reason: :refused} = error} = hot_patch(a, :apply, [patch.id])
      assert Exception.message(error) =~ "Tariff"
      assert Exception.message(error) =~ Atom.to_string(b)
      assert snapshot(nodes) == before
    end

    test "a busy process aborts its node within the deadline, nobody stays suspended" do
      [a] = Cluster.start(1)
      [busy | rest] = start_calls(a, 20)
      patch = upload!(a, Builds.changed("patched"))
      blocker = Cluster.hold(a, busy)
      before = snapshot([a])

      assert {:error, %Error{reason: :failed} = error} =
               hot_patch(a, :apply, [patch.id, [pause_timeout: 300]])

      assert Exception.message(error) =~ inspect_on(a, busy)
      assert error.report.status == :error
      assert snapshot([a]) == before
      for call <- rest, do: assert(%{} = Cluster.call(a, Exchange, :info, [call]))

      send(blocker, :resume)
      assert %{} = Cluster.call(a, Exchange, :info, [busy])
      assert {:ok, %Report{status: :ok}} = hot_patch(a, :apply, [patch.id])
    end

    test "a code_change that fails in one process takes code, state and disk of all nodes back" do
      [a, b] = nodes = Cluster.start(2)
      # Without the meter, whose hand-written loop would stand in the way back.
      meter = Builds.changed("patched", "Meter")
      patch = upload!(a, Builds.changed("patched") -- [meter])
      assert {:ok, %Report{status: :ok}} = hot_patch(a, :apply, [patch.id])

      # Only one node has what the next code_change does not know: a country without a name.
      calls = start_calls(a, 20) ++ start_calls(b, 20)
      calls = Cluster.call(b, Exchange, :start_calls, [[{"1234567", "0081123"}]]) ++ calls
      states = for call <- calls, do: :sys.get_state(call)
      broken = upload!(a, [Builds.changed("broken", "Call")], "broken")
      before = snapshot(nodes)

      assert {:error, %Error{reason: :failed} = error} = hot_patch(a, :apply, [broken.id])
      assert Exception.message(error) =~ "the commit failed on #{b}"
      assert Exception.message(error) =~ "nothing was changed on any node"
      assert Enum.map(error.report.nodes, & &1.status) == [:error, :error]
      assert snapshot(nodes) == before
      assert for(call <- calls, do: :sys.get_state(call)) == states
      for call <- calls, do: assert(Cluster.call(node(call), Servers, :goes_on?, [call]))
      id = patch.id
      assert [%{applied: [^id], operation: nil}, %{applied: [^id]}] = hot_patch(a, :nodes, [])
    end

    test "a failing code_change changes nothing where processes run the old code on their own" do
      [a] = Cluster.start(1)
      calls = start_calls(a, 5)
      # The meter's hand-written loop holds its code, so that no other could take its place again.
      broken = upload!(a, Builds.changed("broken"), "broken")
      {:ok, %{nodes: [plan]}} = hot_patch(a, :plan, [broken.id])

      assert risk?(plan, "Exchange.Meter is run by 1 process without system messages")

      before = snapshot([a])
      assert {:error, %Error{reason: :failed} = error} = hot_patch(a, :apply, [broken.id])
      assert Exception.message(error) =~ "code_change of Exchange.Call failed"
      assert Exception.message(error) =~ "nothing was changed on any node"
      assert snapshot([a]) == before
      for call <- calls, do: assert(Cluster.call(a, Servers, :goes_on?, [call]))
    end

    test "stopping HotPatch in the middle leaves nobody suspended and nothing changed" do
      [a] = Cluster.start(1)
      calls = start_calls(a, 10)
      patch = upload!(a, Builds.changed("patched"))
      holder = Cluster.hold(a, hd(calls))
      before = snapshot([a])
      test = self()

      spawn(fn ->
        send(test, {:applied, hot_patch(a, :apply, [patch.id, [pause_timeout: 1_000]])})
      end)

      until(
        fn -> Cluster.call(a, Process, :whereis, [HotPatch.NodeAgent.Commit]) end,
        "the commit runs"
      )

      :ok = Cluster.call(a, Application, :stop, [:hot_patch])
      assert_receive {:applied, {:error, %Error{reason: :failed}}}
      send(holder, :resume)

      for call <- calls,
          do: until(fn -> Cluster.call(a, Servers, :goes_on?, [call]) end, "resumed")

      until(
        fn -> Cluster.call(a, Process, :whereis, [HotPatch.NodeAgent.Commit]) == nil end,
        "the commit ends"
      )

      {:ok, _} = Cluster.call(a, Application, :ensure_all_started, [:hot_patch])
      assert snapshot([a]) == before
      assert {:ok, %Report{status: :ok}} = hot_patch(a, :apply, [patch.id])
    end

    for {victim, name} <- [agent: HotPatch.NodeAgent.Server, commit: HotPatch.NodeAgent.Commit] do
      test "a killed #{victim} on one of two nodes leaves nobody suspended and no files behind" do
        [a, b] = nodes = Cluster.start(2)
        calls = start_calls(a, 10) ++ start_calls(b, 10)
        patch = upload!(a, Builds.changed("patched"))
        holder = Cluster.hold(b, List.last(calls))
        before = snapshot(nodes)
        test = self()

        spawn(fn ->
          send(test, {:applied, hot_patch(a, :apply, [patch.id, [pause_timeout: 1_000]])})
        end)

        pid =
          until(
            fn ->
              Cluster.call(b, Process, :whereis, [HotPatch.NodeAgent.Commit]) &&
                Cluster.call(b, Process, :whereis, [unquote(name)])
            end,
            "it runs"
          )

        Process.exit(pid, :kill)

        assert_receive {:applied, {:error, %Error{reason: :failed}}}
        send(holder, :resume)

        for call <- calls,
            do:
              until(
                fn -> Cluster.call(node(call), Servers, :goes_on?, [call]) end,
                "resumed"
              )

        until(fn -> snapshot(nodes) == before end, "disk and code are as before")

        Cluster.free(nodes)

        assert {:ok, %Report{status: :ok}} = hot_patch(a, :apply, [patch.id])
      end
    end

    defp inspect_on(node, pid), do: Cluster.call(node, Kernel, :inspect, [pid])
  end

  describe "a wrong call" do
    setup do
      %{nodes: Cluster.start(2)}
    end

    test "names the node that is not there, and changes nothing", %{nodes: [a, b]} do
      patch = upload!(a, Builds.changed("patched"))
      before = snapshot([a, b])

      for call <- [:check, :plan, :apply] do
        assert {:error, %Error{reason: :unreachable} = error} =
                 hot_patch(a, call, [patch.id, [nodes: [a, :"no@127.0.0.1"]]])

        assert Exception.message(error) =~ "no@127.0.0.1"
      end

      assert snapshot([a, b]) == before
    end

    test "is told who is busy with what, and changes nothing", %{nodes: [a, b]} do
      patch = upload!(a, Builds.changed("patched"))
      other = upload!(a, [Builds.changed("patched", "Meter")], "other")
      [call | _] = start_calls(b, 3)
      blocker = Cluster.hold(b, call)
      test = self()

      spawn(fn ->
        send(
          test,
          {:first, hot_patch(a, :apply, [patch.id, [pause_timeout: 60_000, by: "alice"]])}
        )
      end)

      until(
        fn -> Cluster.call(b, HotPatch.NodeAgent, :holder, []) end,
        "the first apply holds the nodes"
      )

      assert {:error, %Error{reason: :busy} = error} = hot_patch(b, :apply, [other.id])
      assert Exception.message(error) =~ "alice"
      assert error.details.holder.patch == patch.id

      send(blocker, :resume)
      assert_receive {:first, {:ok, %Report{status: :ok}}}

      Cluster.free([b])

      assert {:ok, %Report{status: :not_changed}} = hot_patch(b, :apply, [other.id])
    end

    test "has an id that no patch has, or a name that several have", %{nodes: [a, b]} do
      assert {:error, %Error{reason: :unknown_patch} = error} =
               hot_patch(a, :check, ["../../../etc/passwd"])

      assert Exception.message(error) =~ "none is uploaded"
      one = upload!(a, [Builds.changed("patched", "Meter")], "same")
      two = upload!(b, [Builds.changed("patched", "Call")], "same")
      assert {:error, %Error{reason: :ambiguous_patch} = error} = hot_patch(a, :check, ["same"])
      assert Enum.sort(error.details.candidates) == Enum.sort([one.id, two.id])
    end
  end

  describe "binding to the release" do
    test "a patch of another version cannot be applied, nor on a node of another version" do
      [a] = Cluster.start(1)
      patch = upload!(a, Builds.changed("patched"))
      :ok = configure_on(a, release: {"exchange", "1.0.1"})
      before = snapshot([a])
      assert %{items: [%{state: :retired}]} = hot_patch(a, :list, [])

      for call <- [:check, :plan, :apply] do
        assert {:error, %Error{reason: :retired} = error} = hot_patch(a, call, [patch.id])
        assert Exception.message(error) =~ "exchange 1.0.1"
      end

      assert snapshot([a]) == before
      :ok = configure_on(a, release: {"exchange", "1.0.0"})

      [b] = Cluster.start(1, release: {"exchange", "2.0.0"})
      Cluster.connect([a, b])
      before = snapshot([a, b])
      assert {:ok, %Report{status: :error} = report} = hot_patch(a, :check, [patch.id])
      assert %{status: :ok} = Enum.find(report.nodes, &(&1.node == a))
      assert {:error, %Error{reason: :refused}} = hot_patch(a, :apply, [patch.id])
      assert snapshot([a, b]) == before
    end
  end

  describe "nodes of another kind" do
    test "without the application get not_loaded, without HotPatch are named" do
      [a] = Cluster.start(1)
      [b] = Cluster.start(1, exchange: false, release: {"billing", "3.0.0"})
      [c] = Cluster.start(1, hot_patch: false)
      Cluster.connect([a, b, c])
      patch = upload!(a, Builds.changed("patched"))

      assert {:ok, report} = hot_patch(a, :apply, [patch.id])
      assert report.status == :ok
      assert report.unmanaged == [c]
      assert to_string(report) =~ "left out: #{c}"
      assert %{status: :not_loaded} = Enum.find(report.nodes, &(&1.node == b))

      assert %{managed?: false, problem: problem} =
               Enum.find(hot_patch(a, :nodes, []), &(&1.node == c))

      assert problem =~ "HotPatch"

      assert {:error, %Error{reason: :unmanaged}} =
               hot_patch(a, :check, [patch.id, [nodes: [a, c]]])
    end
  end

  describe "when the coordinator dies" do
    test "between prepare and commit, every node lets go and is as it was" do
      [a, b] = nodes = Cluster.start(2)
      patch = upload!(a, Builds.changed("patched"))
      before = snapshot(nodes)

      # A coordinator that prepares and goes no further.
      {:ok, composition} = hot_patch(a, :composition, [patch.id])
      payload = HotPatch.NodeAgent.Payload.new(composition, patch.release)
      coordinator = spawn(fn -> receive(do: (:stop -> :ok)) end)

      operation =
        HotPatch.Operation.new(
          id: "an operation",
          seq: 1,
          kind: :apply,
          members: nodes,
          on_load: :restart,
          coordinator: coordinator,
          patch: patch.id,
          by: "test",
          pause_timeout: 1_000,
          hold_timeout: 3_000,
          transition: :suspend
        )

      for node <- nodes do
        assert {:ok, {0, _clock}} = Cluster.call(node, HotPatch.NodeAgent, :reserve, [operation])

        assert {:yes, _files} =
                 Cluster.call(node, HotPatch.NodeAgent, :prepare, [operation, payload])
      end

      # Prepared: files are staged, nothing is replaced.
      assert snapshot(nodes) != before
      assert {:error, %Error{reason: :busy}} = hot_patch(b, :apply, [patch.id])
      Process.exit(coordinator, :kill)

      Cluster.free(nodes)

      assert snapshot(nodes) == before

      assert {:error, _nothing_prepared} =
               Cluster.call(a, HotPatch.NodeAgent, :commit, [operation.ref])

      assert {:ok, %Report{status: :ok}} = hot_patch(b, :apply, [patch.id])
    end
  end

  describe "a node without the native library" do
    test "runs an agent and takes patches; only reading archives is not for it" do
      [a] = Cluster.start(1)
      [b] = Cluster.start(1, native: false)
      Cluster.connect([a, b])
      patch = upload!(a, Builds.changed("patched"))
      assert {:ok, %Report{status: :ok}} = hot_patch(a, :apply, [patch.id])
      {_, bytes} = Builds.changed("patched", "Call")
      assert running(b, Exchange.Call) == :code.module_md5(bytes)

      assert Map.new(hot_patch(b, :nodes, []), &{&1.node, &1.archives?}) == %{
               a => true,
               b => false
             }

      assert {:error, %Error{reason: :no_native} = error} =
               hot_patch(b, :upload, [zip(Builds.changed("patched"))])

      assert Exception.message(error) =~ Atom.to_string(b)
      assert {:error, %Error{reason: :no_native}} = hot_patch(b, :check, [patch.id])
    end
  end

  describe "hooks" do
    test "are called at their moments, and one that fails or hangs changes nothing" do
      [a] = Cluster.start(1)
      calls = start_calls(a, 5)
      Process.register(self(), :hot_patch_hook_listener)

      hooks = [
        HotPatch.Test.Hooks.Telling,
        HotPatch.Test.Hooks.Failing,
        HotPatch.Test.Hooks.Hanging
      ]

      :ok = configure_on(a, hooks: hooks)
      told = [listener: {:hot_patch_hook_listener, node()}, call: hd(calls)]
      :ok = Cluster.call(a, Application, :put_all_env, [[hot_patch_test: told]])
      patch = upload!(a, Builds.changed("patched"))

      assert {:ok, %Report{status: :ok}} =
               hot_patch(a, :apply, [patch.id, [pause_timeout: 5_000]])

      id = patch.id
      assert_received {:before_pause, %{patch: ^id, modules: modules}, _running}
      assert Exchange.Call in modules
      assert_received {:after_load, %{patch: ^id}, {:suspended?, true}}
      assert_received {:after_resume, %{patch: ^id}, {:suspended?, false}}

      assert_received {:after_write, %{patch: ^id, modules: ^modules, files: files},
                       {:suspended?, false}}

      assert "exchange-1.0.0/ebin/Elixir.Exchange.Call.beam" in files

      # A refused patch calls none.
      broken = upload!(a, [Builds.changed("broken", "Call")], "broken")
      Cluster.call(a, Exchange, :start_calls, [[{"1234567", "0081123"}]])
      assert {:error, _} = hot_patch(a, :apply, [broken.id])

      for moment <- [:after_load, :after_resume, :after_write],
          do: refute_received({^moment, _, _})

      # One of files alone, and its way back, have no pause.
      path = "exchange-1.0.0/priv/rates.csv"
      :ok = configure_on(a, hooks: [HotPatch.Test.Hooks.Telling])
      assert_received {:before_pause, %{modules: [_ | _]}, _broken}
      %{id: id} = upload!(a, [{path, "1"}], "rates")

      for operation <- [:apply, :rollback] do
        assert {:ok, _} = hot_patch(a, operation, [id])
        change = %{patch: id, modules: [], files: [path]}
        assert_received {:before_pause, ^change, _}
        assert_received {:after_resume, ^change, _}
        assert_received {:after_write, ^change, _}
        refute_received {:after_load, _, _}
      end
    end
  end
end
