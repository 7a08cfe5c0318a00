defmodule HotPatch.Console.CancelTest do
  # What is under way is cancelled on the page and by JSON, on the node that leads it and on another.
  use ExUnit.Case, async: false

  @moduletag :starts_nodes

  import HotPatch.Test.Console, except: [start!: 0, start!: 1]
  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Console
  alias HotPatch.Error
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag timeout: 120_000
  @ebin "exchange-1.0.0/ebin/"
  @calm [duration: 60_000, baseline: 0, run_queue: 100_000, mailboxes: 1_000_000, errors: 100_000]

  setup_all do
    nodes = Cluster.start(2)

    for node <- nodes do
      :ok = Cluster.call(node, Application, :put_env, [:hot_patch, :console, options()])
      :ok = Cluster.call(node, Console, :reload, [])
      until(fn -> Cluster.call(node, Process, :whereis, [Console]) end, "#{node} has a console")
    end

    %{nodes: nodes}
  end

  defp get(node, target, headers),
    do: call(node, request("GET", target, headers: headers))

  defp post(node, target, form, headers),
    do: call(node, request("POST", target, headers: headers, body: URI.encode_query(form)))

  defp call(node, request), do: Cluster.call(node, Console, :call, [request])
  defp log_in_on(node, name), do: log_in(name, [], &call(node, &1))
  defp text(response), do: IO.iodata_to_binary(response.body)

  # An apply that is watched on the second node, and the first does not have yet.
  defp watched([a, b] = nodes) do
    module = :"hot_patch_test_cancelled_#{System.unique_integer([:positive])}"
    patch = upload!(a, [{@ebin <> "#{module}.beam", Builds.versioned(module, 1)}], "#{module}")
    options = [canary: [b], watch: @calm, by: "carol", progress: :none]
    task = Task.async(fn -> hot_patch(a, :apply, [patch.id, options]) end)

    %{operation: id} =
      until(
        fn ->
          Enum.find(
            hot_patch(b, :progress, []),
            &(&1.phase == :watch and &1.state == :running and &1.patch == patch.id)
          )
        end,
        "#{patch.id} is watched"
      )

    assert have(nodes, module) == [false, true]
    %{id: id, patch: patch, module: module, task: task}
  end

  defp have(nodes, module),
    do: for(node <- nodes, do: Cluster.call(node, :erlang, :module_loaded, [module]))

  # What the caller was told, and the journal says; nobody holds the nodes.
  defp ended!(nodes, world, outcome, by) do
    assert {:error, %Error{reason: :cancelled} = error} = Task.await(world.task, 120_000)
    assert %{outcome: ^outcome, by: ^by} = error.details
    {:ok, %{items: entries}} = hot_patch(hd(nodes), :journal, [[patch: world.patch.id]])
    entry = Enum.find(entries, &(&1.what == :cancel))
    assert %{by: ^by, reason: "wrong file", from: "192.0.2.7", outcome: ^outcome} = entry

    until(
      fn -> Enum.all?(hot_patch(hd(nodes), :nodes, []), &(&1.operation == nil)) end,
      "the nodes are free"
    )
  end

  for {keep, outcome, has?} <- [{"", :rolled_back, false}, {"true", :kept, true}] do
    test "the page asks, and then what is done is #{outcome}", %{nodes: [a, b] = nodes} do
      world = watched(nodes)
      headers = log_in_on(b, "alice")
      path = "/operations/#{world.id}/cancel"

      # Where it is seen, and what is to be said.
      assert text(get(b, "/live", headers)) =~ path
      assert %{status: 200} = page = get(b, path, headers)
      assert text(page) =~ "Cancel the apply of" and text(page) =~ world.patch.id
      assert text(page) =~ "begun by carol"
      form = form_token(page.body, path)

      # Not without a reason, nor the form's own token, nor by one who may only see.
      fields = [reason: "wrong file", keep: unquote(keep)]
      eve = log_in_on(b, "eve")
      assert %{status: 403} = get(b, path, eve)
      assert %{status: 403} = post(b, path, fields, eve)
      assert %{status: 403} = post(b, path, [form: "guess"] ++ fields, headers)
      assert have(nodes, world.module) == [false, true]

      assert %{status: 200} = done = post(b, path, [form: form] ++ fields, headers)
      assert text(done) =~ ~s(data-outcome="#{unquote(outcome)}")
      assert text(done) =~ "cancelled by alice (wrong file)"
      ended!(nodes, world, unquote(outcome), "alice")
      assert have(nodes, world.module) == [false, unquote(has?)]
      if unquote(has?), do: {:ok, _report} = hot_patch(a, :rollback, [world.patch.id])

      # Nothing is left to cancel, as soon as the nodes are let go of.
      until(fn -> get(b, path, headers).status == 404 end, "nothing is left to cancel")
      assert text(get(b, path, headers)) =~ "it has ended by now"
    end

    test "JSON says that it was #{outcome}", %{nodes: [a, b] = nodes} do
      world = watched(nodes)
      fields = [reason: "wrong file", keep: unquote(keep)]
      path = "/api/operations/#{world.id}/cancel"
      assert %{status: 403} = post(b, path, fields, token("monitor"))
      assert %{status: 401} = post(b, path, fields, %{})
      assert have(nodes, world.module) == [false, true]

      assert %{status: 200} = done = post(b, path, fields, token("deploy"))
      assert text(done) =~ ~s("outcome":"#{unquote(outcome)}")
      assert text(done) =~ ~s("operation":"#{world.id}")
      ended!(nodes, world, unquote(outcome), "deploy")
      assert have(nodes, world.module) == [false, unquote(has?)]
      if unquote(has?), do: {:ok, _report} = hot_patch(a, :rollback, [world.patch.id])

      again = fn -> post(b, path, fields, token("deploy")) end
      until(fn -> again.().status == 404 end, "nothing is left to cancel")
      gone = again.()
      assert text(gone) =~ "not_under_way"
    end
  end

  test "what was begun by JSON is cancelled under the name that it has there", context do
    %{nodes: [a, b] = nodes} = context
    module = :"hot_patch_test_cancelled_#{System.unique_integer([:positive])}"
    patch = upload!(a, [{@ebin <> "#{module}.beam", Builds.versioned(module, 1)}], "#{module}")
    # The nodes are looked at before: only then is it silent.
    :ok = Cluster.call(b, FaultPoint, :arm, [:reserved, 1, {:timer, :sleep, [:infinity]}])
    on_exit(fn -> Cluster.call(b, FaultPoint, :disarm, []) end)
    headers = Map.put(token("deploy"), "prefer", "respond-async")
    fields = [timeout: 60_000]
    assert %{status: 202} = begun = post(a, "/api/patches/#{patch.id}/apply", fields, headers)
    {_name, location} = List.keyfind!(begun.headers, "location", 0)
    [_, id] = Regex.run(~r"/api/operations/(\w+)\z", location)

    until(
      fn -> Enum.any?(hot_patch(b, :progress, []), &(&1.phase == :reserve)) end,
      "the nodes are taken"
    )

    done = post(a, "/api/operations/#{id}/cancel", [reason: "wrong file"], token("deploy"))
    assert done.status == 200
    assert text(done) =~ ~s("outcome":"nothing_changed")
    _ = Cluster.call(b, FaultPoint, :disarm, [])

    until(
      fn -> text(get(a, "/api/operations/#{id}", token("deploy"))) =~ ~s("state":"failed") end,
      "the console knows how it ended"
    )

    assert text(get(a, "/api/operations/#{id}", token("deploy"))) =~ ~s("reason":"cancelled")
    assert have(nodes, module) == [false, false]
  end
end
