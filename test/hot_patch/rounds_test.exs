defmodule HotPatch.RoundsTest do
  # What calls may cost: which questions they ask the nodes, what they have the native reader do, and how
  # often the node of the call reads its state from disk.
  use ExUnit.Case, async: false

  @moduletag :starts_nodes

  import HotPatch.Test.Archives
  import HotPatch.Test.Console, only: [options: 1, request: 3, token: 1]

  alias HotPatch.Console
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Rounds

  @moduletag timeout: 120_000

  defp start(count) do
    [node | _] = nodes = Cluster.start(count)
    console = options(port: 0, hosts: ["console.test"])
    :ok = Cluster.call(node, Application, :put_env, [:hot_patch, :console, console])
    :ok = Cluster.call(node, Console, :reload, [])
    nodes
  end

  defp call(node, function, args), do: ok(Rounds.of(node, HotPatch, function, args))

  defp page(node, path) do
    request = request("GET", path, headers: token("deploy"))
    {response, cost} = Rounds.of(node, Console, :call, [request])
    assert response.status == 200
    cost
  end

  defp ok({{:ok, _result}, cost}), do: cost
  defp ok({%HotPatch.Answers{}, cost}), do: cost

  defp zip_of(module),
    do: zip([{"exchange-1.0.0/ebin/#{module}.beam", Builds.versioned(module, 2)}])

  test "a call asks who there is and what they know once, and an archive is read once" do
    [node] = start(1)

    {{:ok, %{id: id}}, cost} =
      Rounds.of(node, HotPatch, :upload, [zip_of(:hot_patch_test_rounds)])

    assert cost == %{asked: [:overview], requests: ["read_archive"], reads: 1}
    assert call(node, :list, []) == %{asked: [:overview], requests: [], reads: 1}
    assert call(node, :composition, [id]) == %{asked: [:overview], requests: [], reads: 1}

    # Once for who it is, once for the whole judgement.
    check = call(node, :check, [id])
    assert check == %{asked: ~w(overview lacking take_parts check)a, requests: [], reads: 2}

    plan = call(node, :plan, [id])
    assert plan.asked == ~w(overview lacking foresee related)a
    assert plan.requests == ["analyse"]
    assert plan.reads in 1..2

    apply = call(node, :apply, [id])
    assert apply.asked == ~w(overview reserve lacking prepare commit decide)a
    assert apply.requests == []
    assert apply.reads in 1..12

    rollback = call(node, :rollback, [id])
    assert rollback.asked == ~w(overview reserve prepare commit decide)a
    assert rollback.requests == []
    assert rollback.reads in 1..12
  end

  # The last of each page are those who hold their nodes. Of the reads some are the server's own, which now and
  # then looks whether anything is to be caught up with.
  test "a page asks for the patches once, beside what it shows" do
    [node] = start(1)

    {{:ok, %{id: id}}, _cost} =
      Rounds.of(node, HotPatch, :upload, [zip_of(:hot_patch_test_rounds_page)])

    assert page(node, "/patch").asked == ~w(overview holder)a

    contents = page(node, "/patch/#{id}")
    assert contents.asked == ~w(overview overview lacking take_parts check holder)a
    assert contents.requests == [] and contents.reads in 1..8

    confirm = page(node, "/patch/#{id}/apply")
    assert confirm.asked == ~w(overview overview lacking foresee related holder)a
    assert confirm.requests == ["analyse"] and confirm.reads in 1..8

    _applied = call(node, :apply, [id])
    confirm = page(node, "/patch/#{id}/rollback")
    assert confirm.asked == ~w(overview overview foresee former related holder)a
    assert confirm.requests == ["analyse"] and confirm.reads in 1..8
  end

  test "more nodes are no more rounds, but where the first decides between two who come at once" do
    [node | _] = start(3)

    {{:ok, %{id: id}}, _cost} =
      Rounds.of(node, HotPatch, :upload, [zip_of(:hot_patch_test_rounds_more)])

    # To each node by itself what it lacks.
    check = call(node, :check, [id])
    assert check.asked == ~w(overview lacking take_parts take_parts take_parts check)a
    assert call(node, :plan, [id]).asked == ~w(overview lacking foresee related)a

    apply = call(node, :apply, [id])
    assert apply.asked == ~w(overview reserve reserve lacking prepare commit decide)a

    rollback = call(node, :rollback, [id])
    assert rollback.asked == ~w(overview reserve reserve prepare commit decide)a
  end
end
