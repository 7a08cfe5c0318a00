defmodule HotPatch.FolderNamesTest do
  # Where the system and its data lie is the host's affair: folders may be called anything.
  use ExUnit.Case, async: false

  import HotPatch.Test.Folders
  import HotPatch.Test.Operator
  import HotPatch.Test.Settings

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Faults.Machine

  @moduletag timeout: 240_000

  @names [
    "two words",
    " a blank before and after ",
    "br[acket",
    "br]acket",
    "[a-z]",
    "{a,b}",
    "br{ace",
    "br}ace",
    "st*r",
    "**",
    "wh?t",
    "back\\slash",
    "back\\",
    "ünïcödé 漢字 🙂",
    "new\nline",
    "tab\tand\e[2Jescape",
    "~tilde",
    "-dash",
    "#hash%41",
    "quote\"s'",
    "$HOME `x`",
    "a:b;c,d",
    ".hidden",
    "releases",
    "ebin",
    "lib-1.0",
    "x.ez"
  ]

  # The store alone: what is kept is found again.
  for name <- @names do
    test "a data directory called #{inspect(name)} keeps what is put there" do
      folder = Path.join([Builds.tmp(), "names", unquote(name), "data"])
      remove_on_exit(Path.dirname(folder))
      uncompared()
      configure(:data_dir, folder)
      target = Path.join([Path.dirname(folder), "app", "priv", "file"])
      File.mkdir_p!(Path.dirname(target))
      File.write!(target, "old")

      record = archive("fix-1")
      assert :ok = Store.Archives.put(record, "bytes")
      assert [^record] = Store.Archives.list()
      assert {:ok, ^record, "bytes"} = Store.Archives.fetch("fix-1")

      op =
        HotPatch.Operation.to_record(
          HotPatch.Operation.new(id: "op1", seq: 1, kind: :apply, patch: "fix-1", by: "alice")
        )

      assert :ok = Store.Decisions.put(op)
      assert [^op] = Store.Decisions.list(Store.Applied.state().release)

      assert {:ok, intent} =
               Store.Transaction.stage([%Store.FileChange{target: target, bytes: "new"}], "tag")

      assert [^intent] = Store.Transaction.pending()
      assert {:ok, decided} = Store.Transaction.decide(intent, note(op))
      assert [^decided] = Store.Transaction.pending()
      assert File.read!(target) == "old"

      # As a start does it after kill -9 behind the decision.
      assert [] = Store.Recovery.run()
      assert File.read!(target) == "new"
      assert [] = Store.Transaction.pending()
      assert [%{what: :apply}] = Store.Journal.list()
      assert [{_folder, %{id: "fix-1"}}] = Store.SharedHost.records("fix-1")
      assert :ok = Store.Archives.delete("fix-1")
      assert [] = Store.Archives.list()
    end
  end

  defp archive(id) do
    %{
      id: id,
      name: "fix",
      sha256: :crypto.hash(:sha256, "bytes"),
      size: 5,
      files: 1,
      modules: 0,
      release: Release.current(),
      uploaded_at: DateTime.utc_now(),
      by: "alice",
      signed_by: nil,
      upgrade: nil,
      follows: nil
    }
  end

  defp note(op) do
    state = %{
      Store.Applied.empty()
      | stack: [%{id: "fix-1", files: [], payload: nil, memory_only?: false, replaced: []}]
    }

    Store.Recovery.note(state, :apply, %{op: op.id, patch: "fix-1", by: "alice"})
  end

  # All of it, on a node that has its applications and its data there.
  for {name, env} <- [
        # But for what OTP itself takes for an archive.
        {Enum.join(@names -- ["x.ez"], "/"), []},
        {"br{ace", []},
        {"br[acket", []},
        # As in a container without a locale: the VM takes names of files for bytes.
        {"ünïcödé 漢字/new\nline", [{~c"LC_ALL", ~c"C"}]}
      ] do
    @tag :starts_nodes
    test "a node below #{inspect(name, printable_limit: 40)} is patched, killed, started and taken back (#{inspect(env)})" do
      below = Path.join([Builds.tmp(), "below", unquote(name)])
      on_exit(fn -> File.rm_rf!(Path.join(Builds.tmp(), "below")) end)
      [machine] = Machine.new(1, below: below, env: unquote(env))
      machine = Machine.start(machine)
      on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
      assert encoding(machine, unquote(env))
      before = exchange_code(machine.node)

      {:ok, patch} =
        hot_patch(machine.node, :upload, [HotPatch.Test.Archives.zip(files()), [name: "fix"]])

      assert %{items: [%{state: :uploaded}]} = hot_patch(machine.node, :list, [])
      assert {:ok, %{status: :ok}} = hot_patch(machine.node, :check, [patch.id])

      # Killed behind the written decision, with some of its files in place.
      arm(machine, {:file, 2, 5})
      catch_error(hot_patch(machine.node, :apply, [patch.id]))
      machine = machine |> Machine.await_death() |> Machine.start()
      assert %{items: [%{state: :applied}]} = hot_patch(machine.node, :list, [])
      patched = exchange_code(machine.node)
      assert patched != before
      assert {:ok, %{items: []}} = hot_patch(machine.node, :drift, [])

      arm(machine, {:file, 2, 5})
      catch_error(hot_patch(machine.node, :rollback, [patch.id]))
      machine = machine |> Machine.await_death() |> Machine.start()
      assert %{items: [%{state: :rolled_back}]} = hot_patch(machine.node, :list, [])
      assert exchange_code(machine.node) == before
      assert {:ok, %{items: []}} = hot_patch(machine.node, :drift, [])

      assert {:ok, %{status: :ok}} = hot_patch(machine.node, :apply, [patch.id])
      # After a start a module that is new is only loaded when it is used.
      assert Map.take(exchange_code(machine.node), Map.keys(patched)) == patched
      assert {:ok, %{status: :ok}} = hot_patch(machine.node, :rollback, [patch.id])
      assert :ok = hot_patch(machine.node, :delete, [patch.id])
      Machine.kill(machine)
    end
  end

  defp files, do: Enum.reject(Builds.changed("patched"), fn {path, _} -> path =~ "Meter" end)

  defp encoding(machine, env) do
    wanted = if env == [], do: :utf8, else: :latin1
    HotPatch.Test.Cluster.call(machine.node, :file, :native_name_encoding, []) == wanted
  end

  defp arm(machine, point),
    do: HotPatch.Test.Cluster.call(machine.node, HotPatch.Support.FaultPoint, :arm, [point, 1])

  test "what lies below a folder is found by a pattern, whatever the folder is called" do
    for name <- ["plain", "[x", "{a,b}", "*", "Überall ?"] do
      folder = Path.join([Builds.tmp(), "patterns", name])
      File.mkdir_p!(Path.join(folder, "lib/a/ebin"))
      for file <- ["a.beam", ".hidden"], do: File.touch!(Path.join(folder, "lib/a/ebin/#{file}"))
      remove_on_exit(folder)
      assert HotPatch.Support.Folder.matching(folder, "lib/*/ebin/*") == ["lib/a/ebin/a.beam"]

      assert "lib/a/ebin/a.beam" in HotPatch.Support.Folder.matching(
               folder,
               "lib/*/{ebin,priv}/**"
             )
    end
  end

  # A path that is taken for a pattern is the fault that all of this is about.
  test "no module of HotPatch takes a path for a pattern" do
    # The task that compiles what is native only looks into the project's own folders; of Folder only the
    # pattern is one, see the test above.
    for module <- Application.spec(:hot_patch, :modules),
        module not in [Mix.Tasks.Compile.HotPatchNative, HotPatch.Support.Folder],
        path = Application.app_dir(:hot_patch, "ebin/#{module}.beam"),
        {:ok, {_, [imports: imports]}} <- [:beam_lib.chunks(String.to_charlist(path), [:imports])],
        {called, function, _} <- imports do
      refute {called, function} in [
               {Path, :wildcard},
               {:filelib, :wildcard},
               {:filelib, :fold_files}
             ],
             "#{inspect(module)} calls #{inspect(called)}.#{function}"
    end
  end
end
