defmodule HotPatch.ManifestTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Operator
  import HotPatch.Test.Settings, only: [configure_on: 2]

  alias HotPatch.Build
  alias HotPatch.Host.Keys
  alias HotPatch.Store.Applied
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Servers

  @moduletag :starts_nodes
  @moduletag :tmp_dir

  @alpha "exchange-1.0.0/ebin/hot_patch_test_alpha.beam"

  # Two builds of the exchange: the shipped one, and what the files make of it; nil removes one.
  defp builds(dir, files) do
    for {side, change} <- [from: [], to: files] do
      root = Path.join(dir, "#{side}")
      File.rm_rf!(root)
      folder = Path.join(root, "exchange-1.0.0/ebin")
      File.mkdir_p!(folder)
      File.cp_r!(Builds.ebin("shipped"), folder)

      for {path, bytes} <- change do
        path = Path.join(root, path)
        File.mkdir_p!(Path.dirname(path))
        if bytes, do: File.write!(path, bytes), else: File.rm!(path)
      end

      {side, root}
    end
  end

  defp build!(dir, files, more \\ []) do
    options = builds(dir, files) ++ [out: Path.join(dir, "fix.zip"), author: "alice"]
    {:ok, built} = Build.run(Keyword.merge(options, more))
    built.zip
  end

  defp upload_zip(node, zip, options \\ []), do: hot_patch(node, :upload, [zip, options])

  defp set(node, settings), do: configure_on(node, settings)

  defp reasons(report), do: for(n <- report.nodes, f <- n.files, do: {n.node, f.status, f.reason})

  test "a patch is applied as its manifest says, unless the operator says otherwise", %{
    tmp_dir: dir
  } do
    [a, b] = Cluster.start(2)
    zip = build!(dir, [Builds.changed("patched", "Billing")], transition: :none, name: "rates")

    assert {:ok, patch} = upload_zip(a, zip)
    assert patch.name == "rates"
    assert {:ok, report} = hot_patch(a, :apply, [patch.id, []])
    assert {report.status, report.overridden} == {:ok, %{}}
    assert %{transition: :none} = List.last(Cluster.call(b, Applied, :state, []).ops)
    {:ok, _} = hot_patch(a, :rollback, [patch.id, []])

    assert {:ok, report} = hot_patch(b, :apply, [patch.id, [transition: :compatible]])
    assert report.overridden == %{transition: %{manifest: :none, given: :compatible}}
    assert to_string(report) =~ "transition compatible instead of the manifest's none"
    assert {:ok, %{items: [entry | _]}} = hot_patch(b, :journal, [[last: 1]])
    assert entry.overridden == report.overridden
    assert to_string(entry) =~ "instead of the manifest's none"
    # Neither is carried to disk.
    for node <- [a, b], {path, _} <- Cluster.disk(node), do: refute(path =~ "hot_patch.json")
  end

  test "what its author has accepted is in the journal", %{tmp_dir: dir} do
    [a, b] = Cluster.start(2)
    {path, bytes} = Builds.changed("patched", "Call")
    name = "state_changed_without_code_change"
    files = [{path, Builds.without_code_change(bytes)}]
    {:ok, patch} = upload_zip(a, build!(dir, files, accept: [name]))
    assert {:ok, %{manifest: manifest} = composition} = hot_patch(b, :composition, [patch.id])
    assert [%{rule: ^name, module: "Elixir.Exchange.Call"}] = manifest.accepted_findings
    assert to_string(composition) =~ "accepted: #{name}:Exchange.Call"
    assert {:ok, _report} = hot_patch(b, :apply, [patch.id, [transition: :none]])
    assert {:ok, %{items: [entry | _]}} = hot_patch(a, :journal, [[last: 1]])
    assert {entry.what, entry.accepted} == {:apply, ["#{name}:Exchange.Call"]}
    assert length(entry.nodes) == 2
    assert to_string(entry) =~ "accepted #{name}:Exchange.Call"
    {:ok, _} = hot_patch(b, :rollback, [patch.id, []])

    assert {:ok, %{items: [%{what: :rollback, accepted: []} | _]}} =
             hot_patch(a, :journal, [[last: 1]])
  end

  test "a patch made against other code is refused, by module and digest", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    {path, patched} = Builds.changed("patched", "Billing")
    {:ok, first} = upload_zip(a, build!(dir, [{path, patched}]), name: "first")
    {:ok, _} = hot_patch(a, :apply, [first.id, []])

    # It has no charge/2 any more.
    accept = [accept: ["export_removed_but_called"]]
    {:ok, second} = upload_zip(a, build!(dir, [{path, third_billing()}], accept), name: "second")
    assert {:ok, report} = hot_patch(a, :check, [second.id, []])
    assert [{^a, :error, reason}] = reasons(report)
    shipped = File.read!(Path.join(Builds.ebin("shipped"), Path.basename(path)))
    assert reason =~ "Elixir.Exchange.Billing"
    assert reason =~ hex(:code.module_md5(shipped))
    assert reason =~ hex(:code.module_md5(patched))
    before = Cluster.disk(a)
    assert {:error, %{reason: :refused}} = hot_patch(a, :apply, [second.id, []])
    assert Cluster.disk(a) == before

    # One that takes the place of all is made against the release's own code.
    zip = build!(dir, [{path, third_billing()}], [cumulative: true] ++ accept)
    {:ok, third} = upload_zip(a, zip, name: "third")
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [third.id, []])
    assert running(a, Exchange.Billing) == :code.module_md5(third_billing())
  end

  test "a new module must be new, a removed one go and come back", %{tmp_dir: dir} do
    [a] = Cluster.start(1)

    {:ok, first} =
      upload_zip(a, build!(dir, [{@alpha, Builds.versioned(:hot_patch_test_alpha, 1)}]))

    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [first.id, []])

    {:ok, again} =
      upload_zip(a, build!(dir, [{@alpha, Builds.versioned(:hot_patch_test_alpha, 2)}]))

    assert {:ok, report} = hot_patch(a, :check, [again.id, []])
    assert [{^a, :error, reason}] = reasons(report)
    assert reason =~ "adds hot_patch_test_alpha"

    rate = "exchange-1.0.0/priv/rates"
    record = "exchange-1.0.0/ebin/Elixir.Exchange.Printable.beam"
    files = [{record, nil}, {rate, "1"}]
    {:ok, removal} = upload_zip(a, build!(dir, files), name: "removal")
    assert running(a, Exchange.Printable)
    code = exchange_code(a)
    disk = Cluster.disk(a)
    assert {:ok, report} = hot_patch(a, :apply, [removal.id, []])
    assert {a, :ok, nil} in reasons(report)
    assert running(a, Exchange.Printable) == nil

    refute Map.has_key?(
             Cluster.disk(a),
             Path.join(Cluster.exchange(a), "ebin/Elixir.Exchange.Printable.beam")
           )

    assert {:ok, _} = hot_patch(a, :rollback, [removal.id, []])
    assert exchange_code(a) == code
    assert Cluster.disk(a) == disk
  end

  test "applied once more, a patch brings back at its rollback what it took away", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    record = "exchange-1.0.0/ebin/Elixir.Exchange.Printable.beam"
    {code, disk} = {exchange_code(a), Cluster.disk(a)}
    {:ok, removal} = upload_zip(a, build!(dir, [{record, nil}]), name: "removal")
    assert {:ok, _report} = hot_patch(a, :apply, [removal.id, []])
    assert {:ok, report} = hot_patch(a, :apply, [removal.id, []])
    assert [{^a, :not_changed, "it is gone already"}] = reasons(report)
    assert {:ok, _report} = hot_patch(a, :rollback, [removal.id, []])
    assert {exchange_code(a), Cluster.disk(a)} == {code, disk}
  end

  describe "a module that moves to another application" do
    @server :hot_patch_test_moving

    # Its code_change knows both ways.
    defp server(version) do
      way = "case OldVsn of {down, _} -> {ok, {1, Count}}; _ -> {ok, {VERSION, Count}} end"
      Servers.server(@server, version, way)
    end

    # The exchange, and a second application beside it; nodes have both, with the server in the first.
    defp with_second(node) do
      second = node |> Cluster.exchange() |> Path.dirname() |> Path.join("second-1.0.0/ebin")
      File.mkdir_p!(second)
      File.write!(Path.join(second, "second.app"), ~s({application,second,[{vsn,"1.0.0"}]}.))
      true = Cluster.call(node, :code, :add_pathz, [String.to_charlist(second)])
      :ok = Cluster.call(node, Application, :load, [:second])
    end

    defp moving!(node) do
      path = Path.join(Cluster.exchange(node), "ebin/#{@server}.beam")
      File.write!(path, server("1"))
      {:module, @server} = Cluster.call(node, :code, :load_file, [@server])
      {:ok, pid} = Cluster.call(node, :gen_server, :start, [@server, 7, []])
      pid
    end

    defp move_zip(dir, version) do
      [from: from, to: to] = builds(dir, [])
      server = "ebin/#{@server}.beam"
      resource = ~s({application,second,[{vsn,"1.0.0"}]}.)

      for root <- [from, to] do
        File.mkdir_p!(Path.join(root, "second-1.0.0/ebin"))
        File.write!(Path.join(root, "second-1.0.0/ebin/second.app"), resource)
      end

      File.write!(Path.join(from, "exchange-1.0.0/#{server}"), server("1"))
      File.write!(Path.join(to, "second-1.0.0/#{server}"), server(version))
      out = Path.join(dir, "move-#{version}.zip")
      {:ok, built} = Build.run(from: from, to: to, out: out, author: "alice")
      assert "from exchange to second moves #{@server}" in built.notes
      assert to_string(built.composition) =~ "moves #{@server} from exchange-1.0.0/ebin"
      built.zip
    end

    defp place(node), do: node |> Cluster.call(:code, :which, [@server]) |> to_string()
    defp second(node), do: Path.join(Cluster.home(node), "lib/second-1.0.0/ebin/#{@server}.beam")
    defp get(node, pid), do: Cluster.call(node, :gen_server, :call, [pid, :get])

    test "is loaded from there, with the states of its processes, and goes back", %{tmp_dir: dir} do
      nodes = [a, b] = Cluster.start(2)
      Enum.each(nodes, &with_second/1)
      pids = Map.new(nodes, &{&1, moving!(&1)})
      first = Path.join(Cluster.exchange(a), "ebin/#{@server}.beam")
      disks = Map.new(nodes, &{&1, Cluster.disk(&1)})
      {:ok, patch} = upload_zip(a, move_zip(dir, "2"))

      assert {:ok, check} = hot_patch(a, :check, [patch.id])
      assert [{^a, :ok, nil}, {^a, :ok, reason} | _] = reasons(check)
      assert reason =~ "moves to #{second(a)}, and this file is removed"
      assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id])

      for node <- nodes do
        assert {get(node, pids[node]), place(node)} == {{2, 7}, second(node)}
      end

      refute File.exists?(first)
      assert {:ok, %{items: []}} = hot_patch(a, :drift, [])
      # Once more it changes nothing, and it does not forget where the module was.
      assert {:ok, %{status: :not_changed}} = hot_patch(a, :apply, [patch.id])

      assert {:error, %{reason: :file} = error} = hot_patch(a, :export_antipatch, [patch.id])
      assert Exception.message(error) =~ "has moved a module from exchange-1.0.0/ebin"

      assert {:ok, plan} = hot_patch(a, :plan, [patch.id, [operation: :rollback]])
      assert [%{order: [replace: _], analysis: %{modules: [_]}} | _] = plan.nodes
      assert {:ok, %{status: :ok}} = hot_patch(b, :rollback, [patch.id])

      for node <- nodes do
        assert get(node, pids[node]) == {1, 7}
        assert Cluster.disk(node) == disks[node]
        refute File.exists?(second(node))
      end

      assert place(a) == first
      assert {:ok, %{items: []}} = hot_patch(a, :drift, [])
    end

    test "moves also where its code is the same, and nobody pauses for that", %{tmp_dir: dir} do
      [a] = Cluster.start(1)
      with_second(a)
      pid = moving!(a)
      {:ok, patch} = upload_zip(a, move_zip(dir, "1"))
      assert {:ok, %{nodes: [%{suspended: 0}], status: :ok}} = hot_patch(a, :apply, [patch.id])
      assert {get(a, pid), place(a)} == {{1, 7}, second(a)}
      assert {:ok, %{items: []}} = hot_patch(a, :drift, [])
      assert {:ok, %{nodes: [%{suspended: 0}]}} = hot_patch(a, :rollback, [patch.id])
      refute place(a) == second(a)
      assert get(a, pid) == {1, 7}
    end

    test "is refused where a node has no such application, or has the module elsewhere", %{
      tmp_dir: dir
    } do
      [a, b] = Cluster.start(2)
      Enum.each([a, b], &moving!/1)
      with_second(a)
      zip = move_zip(dir, "2")
      {:ok, patch} = upload_zip(a, zip)
      assert {:ok, report} = hot_patch(a, :check, [patch.id])

      assert {b, :error, "#{@server} moves, and the application second is not on this node"} in reasons(
               report
             )

      assert {:error, %{reason: :refused}} = hot_patch(a, :apply, [patch.id])

      # On one that has neither the module nor the application it does nothing.
      [c] = Cluster.start(1)
      {:ok, patch} = upload_zip(c, zip)
      assert {:ok, report} = hot_patch(c, :check, [patch.id])
      assert [{^c, :not_loaded, _}, {^c, :not_loaded, _}] = reasons(report)
    end
  end

  test "signatures are verified at the upload and on every node by its own keys", %{tmp_dir: dir} do
    [a, b] = Cluster.start(2)
    [alice, bob] = for name <- ["alice", "bob"], do: key!(dir, name)
    changed = [Builds.changed("patched", "Billing")]
    unsigned = build!(dir, changed)
    signed = build!(dir, changed, sign: alice)
    by_bob = build!(dir, changed, sign: bob)

    set(a, require_signature: true, trusted_keys: [File.read!(alice <> ".pub")])
    assert {:error, %{reason: :bad_signature} = error} = upload_zip(a, unsigned)
    assert Exception.message(error) =~ "not signed"
    assert {:error, %{reason: :bad_signature} = error} = upload_zip(a, by_bob)
    assert Exception.message(error) =~ "bob"
    assert {:error, %{reason: :bad_signature}} = upload_zip(a, zip(changed))

    # A node that asks for nothing takes them; the other refuses for itself.
    assert {:ok, patch} = upload_zip(b, by_bob)
    assert {:ok, report} = hot_patch(b, :check, [patch.id, []])
    assert [{^a, :error, reason}, {^b, :ok, nil}] = Enum.sort(reasons(report))
    assert reason =~ "bob" and reason =~ "alice"
    assert {:error, %{reason: :refused}} = hot_patch(b, :apply, [patch.id, []])

    # Keys as files; the configuration of one node is no other's affair.
    set(b, require_signature: true, trusted_keys: [alice <> ".pub", bob <> ".pub"])
    assert {:ok, patch} = upload_zip(a, signed)
    assert patch.signed_by =~ "alice"
    assert {:ok, report} = hot_patch(b, :apply, [patch.id, [by: "carol"]])
    assert report.status == :ok
    assert report.signed_by == patch.signed_by
    assert to_string(report) =~ "signed by alice ("
    assert {:ok, entries} = hot_patch(a, :journal, [[patch: patch.id]])
    assert [:apply, :upload] = for(entry <- entries, entry.signed_by =~ "alice", do: entry.what)
    assert {:ok, json} = HotPatch.to_json(report)
    assert json =~ ~s("signed_by":"alice)
    # What was let in can always be taken back.
    set(a, trusted_keys: [])
    assert {:ok, %{status: :ok}} = hot_patch(a, :rollback, [patch.id, []])

    # Keys that cannot be read trust nobody.
    set(a, trusted_keys: ["/no/such/file"])
    assert {:error, error} = upload_zip(a, signed)
    assert Exception.message(error) =~ "/no/such/file"
  end

  test "a wrong signature is refused whatever is configured", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    signed = build!(dir, [Builds.changed("patched", "Billing")], sign: key!(dir, "alice"))
    {:ok, composition} = HotPatch.Archive.read(signed, "fix")

    text =
      String.replace(composition.manifest.bytes, ~s("author": "alice"), ~s("author": "mallory"))

    assert text != composition.manifest.bytes
    {:ok, files} = :zip.unzip(signed, [:memory])
    files = for {name, bytes} <- files, do: {to_string(name), bytes}
    forged = zip(List.keyreplace(files, "hot_patch.json", 0, {"hot_patch.json", text}))
    assert {:error, %{reason: :bad_signature} = error} = upload_zip(a, forged)
    assert Exception.message(error) =~ "is wrong"

    # The name is shown as that of the signer, so nobody else may choose it.
    {"hot_patch.sig", sig} = List.keyfind(files, "hot_patch.sig", 0)
    renamed = String.replace(sig, ~s("alice"), ~s("the board"))
    assert renamed != sig
    forged = zip(List.keyreplace(files, "hot_patch.sig", 0, {"hot_patch.sig", renamed}))
    assert {:error, %{reason: :bad_signature} = error} = upload_zip(a, forged)
    assert Exception.message(error) =~ "is wrong"
  end

  test "an old patch with a good signature does not come back by itself", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    alice = key!(dir, "alice")
    set(a, require_signature: true, trusted_keys: [alice <> ".pub"])
    changed = [Builds.changed("patched", "Billing")]
    old = build!(dir, changed, sign: alice, cumulative: true)
    path = "exchange-1.0.0/ebin/Elixir.Exchange.Billing.beam"
    accept = ["export_removed_but_called"]
    options = [sign: alice, cumulative: true, accept: accept]
    new = build!(dir, [{path, third_billing()}], options)
    {:ok, first} = upload_zip(a, old, name: "old")
    {:ok, second} = upload_zip(a, new, name: "new")
    assert {:ok, _} = hot_patch(a, :apply, [first.id])
    assert {:ok, _} = hot_patch(a, :apply, [second.id])
    repaired = running(a, Exchange.Billing)

    {:ok, replayed} = upload_zip(a, old, name: "newest")
    assert {:error, %{reason: :refused} = error} = hot_patch(a, :apply, [replayed.id])
    assert Exception.message(error) =~ "older than #{second.id}, which has taken its place"
    assert running(a, Exchange.Billing) == repaired
    assert {:ok, _} = hot_patch(a, :apply, [replayed.id, [again: true]])
    assert running(a, Exchange.Billing) != repaired
  end

  test "archives without a manifest are taken, unless one is required", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    plain = zip(Builds.changed("patched"))
    assert {:ok, patch} = upload_zip(a, plain)
    set(a, require_manifest: true)
    assert {:error, %{reason: :no_manifest}} = upload_zip(a, plain, name: "again")
    assert {:ok, report} = hot_patch(a, :check, [patch.id, []])
    assert Enum.all?(reasons(report), &match?({^a, :error, "it has no manifest" <> _}, &1))
    assert {:ok, patch} = upload_zip(a, build!(dir, Builds.changed("patched")), name: "declared")
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id, []])
  end

  test "a patch for another version of the release is not for this one", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    zip = build!(dir, Builds.changed("patched"), for: "exchange-2.0.0")
    assert {:ok, %{state: :retired} = patch} = upload_zip(a, zip)
    assert {:error, %{reason: :retired}} = hot_patch(a, :check, [patch.id, []])
  end

  defp key!(dir, name) do
    path = Path.join(dir, name)
    {:ok, _public} = Keys.generate(path, name)
    path
  end

  # Another version of it than either build has.
  defp third_billing do
    Builds.erlang("""
    -module('Elixir.Exchange.Billing').
    -vsn(3).
    -export([bill/1]).
    bill(_) -> broken.
    """)
  end

  defp hex(bytes), do: Base.encode16(bytes, case: :lower)
end
