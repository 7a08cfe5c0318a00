defmodule HotPatch.Options.ArgumentTest do
  # What the public functions take for text and for nodes, and what they say where HotPatch does not
  # run.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  doctest HotPatch.Options.Argument

  @moduletag :tmp_dir

  defp charlist(text), do: String.to_charlist(text)

  # As a shell of Erlang calls: all text is a charlist.
  defp from_erlang(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  @tag :starts_nodes
  test "every function takes charlists where it takes text", %{tmp_dir: dir} do
    [a, b] = Cluster.start(2)
    path = Path.join(dir, "fix ä.zip")
    File.write!(path, Archives.zip([Builds.changed("patched", "Billing")]))
    who = [by: ~c"alice", reason: ~c"rätsel"]

    assert {:ok, patch} =
             from_erlang(a, :upload, [charlist(path), [by: ~c"alice", name: ~c"fix"]])

    assert {patch.by, patch.name} == {"alice", "fix"}

    for id <- [charlist(patch.id), ~c"fix", charlist(binary_part(patch.id, 0, 8))] do
      assert {:ok, %{id: _}} = from_erlang(a, :composition, [id])
      assert {:ok, _report} = from_erlang(a, :check, [id])
      assert {:ok, _plan} = from_erlang(a, :plan, [id])
    end

    assert {:ok, _report} = from_erlang(a, :apply, [~c"fix", who])

    assert {:ok, %{items: [entry]}} =
             from_erlang(a, :journal, [[patch: charlist(patch.id), last: 1]])

    assert {entry.by, entry.reason} == {"alice", "rätsel"}
    assert {:ok, %{items: [_ | _]}} = from_erlang(a, :journal, [[patch: ~c"fix-"]])
    assert {:ok, %{items: []}} = from_erlang(a, :journal, [[patch: ~c"fax"]])

    # One that several may be is not guessed, in the journal as anywhere.
    {:ok, other} =
      from_erlang(a, :upload, [
        Archives.zip([Builds.changed("patched", "Call")]),
        [name: ~c"fixed"]
      ])

    assert {:ok, %{items: items}} = from_erlang(a, :journal, [[patch: ~c"fix"]])
    assert [patch.id] == items |> Enum.map(& &1.patch) |> Enum.uniq()
    assert {:error, error} = from_erlang(a, :journal, [[patch: ~c"fi"]])

    assert {error.reason, Enum.sort(error.details.candidates)} ==
             {:ambiguous_patch, Enum.sort([patch.id, other.id])}

    back = Path.join(dir, "back.zip")
    assert {:ok, _antipatch} = from_erlang(a, :export_antipatch, [~c"fix", [to: charlist(back)]])
    assert File.exists?(back)
    assert {:ok, _report} = from_erlang(b, :rollback, [~c"fix", who])
    assert :ok = from_erlang(b, :delete, [~c"fix", who])

    # A release by its name and version, as text of Erlang; the node has it already.
    assert :ok = from_erlang(a, :attach, [b, [release: {~c"exchange", ~c"1.0.0"}, by: ~c"alice"]])
  end

  @tag :starts_nodes
  test "nodes are atoms, and what is none is an error that says so" do
    [a, b] = Cluster.start(2)

    for function <- [:restart, :attach, :detach, :dismiss],
        name <- ["nobody@nowhere", ~c"nobody@nowhere", nil, 1, [], %{}] do
      assert {:error, %Error{reason: :invalid_option} = error} = hot_patch(a, function, [name])
      assert error.details.option == :node
      assert error.message =~ "a node is named by an atom"
    end

    for name <- [nil, 1, [], "", %{}] do
      assert {:error, %Error{reason: :invalid_option, details: %{option: :id}}} =
               hot_patch(a, :cancel, [name])
    end

    assert {:error, %Error{reason: :not_under_way}} = hot_patch(a, :cancel, [~c"fix"])

    assert {:error, error} =
             hot_patch(a, :restart, [String.replace(to_string(b), "peer", "pear")])

    assert error.message =~ "did you mean #{b}?"
    # One that is there is found by its name.
    assert :ok = hot_patch(a, :attach, [Atom.to_string(b)])
    assert {:error, %{reason: :not_attached}} = hot_patch(a, :detach, [Atom.to_charlist(b)])
  end

  test "options are named with what may have been meant" do
    assert {:error, error} = HotPatch.apply("fix", reson: "x")
    assert error.message =~ "did you mean :reason?"
    assert {:error, error} = HotPatch.Build.run(form: "x")
    assert error.message =~ "did you mean :from?"

    assert {:error, %{reason: :invalid_option}} =
             HotPatch.Build.run(modules: "A", to: "b", out: "c")
  end

  @tag :starts_nodes
  test "a deleted archive is not one that never was" do
    [a] = Cluster.start(1)
    patch = upload!(a, [Builds.changed("patched", "Billing")])
    assert {:ok, _report} = hot_patch(a, :apply, [patch.id])
    assert :ok = hot_patch(a, :delete, [patch.id])

    for function <- [:composition, :check, :plan, :apply] do
      assert {:error, %Error{reason: :unknown_patch} = error} = hot_patch(a, function, [patch.id])
      assert error.message =~ "the archive of #{patch.id} is deleted"
      assert error.message =~ "it is applied on #{a}"
    end

    assert {:ok, _report} = hot_patch(a, :rollback, [patch.id])
  end

  @tag :starts_nodes
  test "where HotPatch is not started every function says so", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    :ok = Cluster.call(a, Application, :stop, [:hot_patch])
    path = Path.join(dir, "fix.zip")
    File.write!(path, Archives.zip(Builds.changed("patched")))

    for {function, args} <- [
          upload: [path],
          composition: ["fix"],
          check: ["fix"],
          plan: ["fix"],
          apply: ["fix"],
          rollback: ["fix"],
          export_antipatch: ["fix"],
          delete: ["fix"],
          journal: [],
          drift: [],
          stragglers: [],
          restart: [a]
        ] do
      assert {:error, %Error{reason: :unmanaged} = error} = hot_patch(a, function, args)

      assert {function, true, error.message} ==
               {function, error.message =~ "not started", error.message}
    end

    assert %{items: [], failed: [%{node: ^a}]} = hot_patch(a, :list, [])

    for function <- [:progress, :subscribe, :unsubscribe] do
      error = assert_raise ErlangError, fn -> hot_patch(a, function, []) end
      assert {:exception, %Error{reason: :unmanaged} = error, _stack} = error.original
      assert error.message =~ "not started"
    end

    assert [%{managed?: false, problem: problem}] = hot_patch(a, :nodes, [])
    assert problem =~ "not started"
    # Called as `bin/my_app eval` does, it says what to use instead.
    :ok = Cluster.call(a, System, :put_env, ["RELEASE_COMMAND", "eval"])
    assert {:error, error} = hot_patch(a, :plan, ["fix"])
    assert error.message =~ "use rpc instead"
  end
end
