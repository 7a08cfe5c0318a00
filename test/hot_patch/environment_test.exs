defmodule HotPatch.EnvironmentTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes

  @path "exchange-1.0.0/ebin/Elixir.Exchange.Application.beam"

  # The callback module of the application, which keeps what it is told.
  defp listening(vsn) do
    {@path,
     Builds.erlang("""
     -module('Elixir.Exchange.Application').
     -vsn(#{vsn}).
     -export([start/2, stop/1, config_change/3]).
     start(_, _) -> exit(not_again).
     stop(_) -> ok.
     config_change(Changed, New, Gone) -> persistent_term:put(told, {Changed, New, Gone}).
     """)}
  end

  defp env(node, key), do: Cluster.call(node, Application, :fetch_env, [:exchange, key])
  defp told(node), do: Cluster.call(node, :persistent_term, :get, [:told, nil])

  test "of applications changes with the patch, is told, and goes back with it" do
    [a, b] = nodes = Cluster.start(2)
    patch = upload!(a, [listening(1)])
    config = [exchange: [lines_per_trunk: 7, colour: "red"], not_here: [x: 1]]

    assert {:ok, plan} = hot_patch(a, :plan, [patch.id, [config: config]])

    for node <- plan.nodes,
        do: assert(node.config == ["exchange: :lines_per_trunk", "exchange: :colour"])

    # Values may be secrets.
    refute "#{plan}" =~ "red"
    for node <- nodes, do: assert(env(node, :colour) == :error)

    assert {:ok, _report} = hot_patch(a, :apply, [patch.id, [config: config]])

    for node <- nodes do
      assert env(node, :lines_per_trunk) == {:ok, 7}
      assert env(node, :colour) == {:ok, "red"}
      assert told(node) == {[lines_per_trunk: 7], [colour: "red"], []}
    end

    # Another patch may set it again, and then goes first.
    second = upload!(b, [{"exchange-1.0.0/priv/note.txt", "hi"}], "second")

    assert {:ok, _report} =
             hot_patch(b, :apply, [second.id, [config: [exchange: [colour: "blue"]]]])

    assert env(a, :colour) == {:ok, "blue"}
    assert {:error, %Error{reason: :refused} = error} = hot_patch(a, :rollback, [patch.id])
    assert error.message =~ "roll back #{second.id} first"
    assert {:ok, _report} = hot_patch(a, :rollback, [second.id])
    assert env(b, :colour) == {:ok, "red"}
    assert told(b) == {[colour: "red"], [], []}

    # A start begins with the release's own.
    :ok = Cluster.call(b, Application, :delete_env, [:exchange, :colour, [persistent: true]])
    :ok = Cluster.call(b, Application, :stop, [:hot_patch])
    {:ok, _} = Cluster.call(b, Application, :ensure_all_started, [:hot_patch])
    assert env(b, :colour) == {:ok, "red"}

    assert {:ok, _report} = hot_patch(b, :rollback, [patch.id])

    for node <- nodes do
      assert env(node, :lines_per_trunk) == {:ok, 100_000}
      assert env(node, :colour) == :error
    end
  end

  test "is as it was where the patch does not come about" do
    [a, b] = nodes = Cluster.start(2)
    for node <- nodes, do: start_calls(node, 3)
    patch = upload!(a, Builds.changed("broken"))

    assert {:error, %Error{}} =
             hot_patch(a, :apply, [patch.id, [config: [exchange: [colour: "red"]]]])

    for node <- [a, b], do: assert(env(node, :colour) == :error)

    assert {:error, %Error{reason: :invalid_option} = error} =
             hot_patch(a, :apply, [patch.id, [config: [exchange: "secret"]]])

    assert error.message =~ ":config must be"
    refute error.message =~ "secret"
  end
end
