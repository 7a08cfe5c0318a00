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

  describe "keys that are modules" do
    # As Phoenix keeps the configuration of an endpoint: a table, from which goes what is no longer there.
    @endpoint MyAppWeb.Endpoint
    @own [salt: "s3cret", url: [host: "a", port: 80], http: [ip: {127, 0, 0, 1}]]

    defp endpoint(node), do: Cluster.call(node, Application, :get_env, [:exchange, @endpoint])
    defp put(node, value), do: put(node, @endpoint, value)

    defp put(node, key, value),
      do: :ok = Cluster.call(node, Application, :put_env, [:exchange, key, value])

    defp note!(node, name), do: upload!(node, [{"exchange-1.0.0/priv/#{name}.txt", name}], name)

    test "are merged deep, told whole, and put back to the letter" do
      [a] = Cluster.start(1)
      put(a, @own)
      assert {:ok, _report} = hot_patch(a, :apply, [upload!(a, [listening(1)], "listening").id])
      patch = note!(a, "first")
      config = [exchange: [{@endpoint, url: [host: "b"], static_url: [host: "cdn"]}]]
      assert {:ok, report} = hot_patch(a, :apply, [patch.id, [config: config]])
      assert [%{warnings: []}] = report.nodes

      assert [salt: "s3cret", http: [ip: {127, 0, 0, 1}], url: url, static_url: [host: "cdn"]] =
               endpoint(a)

      assert Enum.sort(url) == [host: "b", port: 80]
      assert told(a) == {[{@endpoint, endpoint(a)}], [], []}

      # From text, and over what an earlier patch has set; two for one key are one change.
      second = note!(a, "second")
      name = "exchange.MyAppWeb.Endpoint"
      texts = ["#{name}=[{url,[{port,81}]}]", "#{name}=[{url,[{path,<<\"/x\">>}]}]"]
      assert {:ok, plan} = hot_patch(a, :plan, [second.id, [config: texts]])
      assert [%{config: ["exchange: MyAppWeb.Endpoint"]}] = plan.nodes
      assert {:ok, _report} = hot_patch(a, :apply, [second.id, [config: texts]])
      assert Enum.sort(endpoint(a)[:url]) == [host: "b", path: "/x", port: 81]
      assert endpoint(a)[:salt] == "s3cret"

      assert {:ok, _report} = hot_patch(a, :rollback, [second.id])
      assert Enum.sort(endpoint(a)[:url]) == [host: "b", port: 80]
      assert {:ok, _report} = hot_patch(a, :rollback, [patch.id])
      assert endpoint(a) == @own
      assert told(a) == {[{@endpoint, @own}], [], []}
    end

    test "come over what a start begins with, and only they go with the patch" do
      [a] = Cluster.start(1)
      put(a, @own)
      patch = note!(a, "first")

      config = [
        exchange: [{@endpoint, url: [host: "b"], static_url: [host: "cdn"]}, {Other, n: 1}]
      ]

      assert {:ok, _report} = hot_patch(a, :apply, [patch.id, [config: config]])

      # The next start finds another salt and another address in its runtime.exs.
      :ok = Cluster.call(a, Application, :stop, [:hot_patch])
      put(a, salt: "new", url: [host: "c", port: 443])
      put(a, Other, m: 2)
      {:ok, _} = Cluster.call(a, Application, :ensure_all_started, [:hot_patch])

      assert Enum.sort(endpoint(a)) ==
               [salt: "new", static_url: [host: "cdn"], url: [port: 443, host: "b"]]

      assert {:ok, _report} = hot_patch(a, :rollback, [patch.id])
      assert Enum.sort(endpoint(a)) == [salt: "new", url: [port: 443, host: "a"]]
      assert env(a, Other) == {:ok, [m: 2]}
    end

    test "of a patch that takes the place of others come over what was before those" do
      [a] = Cluster.start(1)
      put(a, @own)
      first = note!(a, "first")
      all = note!(a, "all")
      set = &[config: [exchange: [{@endpoint, &1}]]]
      assert {:ok, _report} = hot_patch(a, :apply, [first.id, set.(url: [host: "b"], x: 1)])
      assert {:ok, _report} = hot_patch(a, :apply, [all.id, [cumulative: true] ++ set.(y: 2)])
      assert endpoint(a) == @own ++ [y: 2]
      assert {:ok, _report} = hot_patch(a, :rollback, [all.id])
      assert endpoint(a)[:url] == [port: 80, host: "b"]
      assert {:ok, _report} = hot_patch(a, :rollback, [first.id])
      assert endpoint(a) == @own
    end

    # An endpoint keeps a table of its own, in which stays what it has a default for; the application's
    # callback passes on what it is told, as that of Phoenix's generator does.
    test "leave nothing with an endpoint of Phoenix that a rollback has taken back" do
      [a] = Cluster.start(1)
      put(a, @own)
      {path, _bytes} = listening(1)

      forwarding =
        Builds.erlang("""
        -module('Elixir.Exchange.Application').
        -export([start/2, stop/1, config_change/3]).
        start(_, _) -> exit(not_again).
        stop(_) -> ok.
        config_change(Changed, _, Gone) -> 'Elixir.MyAppWeb.Endpoint':config_change(Changed, Gone).
        """)

      endpoint =
        Builds.erlang("""
        -module('Elixir.MyAppWeb.Endpoint').
        -export([config/1, config_change/2]).
        table() -> persistent_term:get('Elixir.MyAppWeb.Endpoint', [{static_url, nil}, {check_origin, true}]).
        config(Key) -> proplists:get_value(Key, table(), nil).
        config_change([{'Elixir.MyAppWeb.Endpoint', Config}], _) ->
            Kept = [One || {Key, _} = One <- table(), lists:member(Key, [static_url, check_origin])],
            persistent_term:put('Elixir.MyAppWeb.Endpoint', lists:ukeysort(1, Config ++ Kept)).
        """)

      files = [
        {path, forwarding},
        {"exchange-1.0.0/ebin/Elixir.MyAppWeb.Endpoint.beam", endpoint}
      ]

      assert {:ok, _report} = hot_patch(a, :apply, [upload!(a, files, "web").id])
      config = &Cluster.call(a, @endpoint, :config, [&1])
      patch = note!(a, "first")
      given = [static_url: [host: "cdn"], check_origin: false, more: 1]
      options = [config: [exchange: [{@endpoint, given}]]]
      assert {:ok, _report} = hot_patch(a, :apply, [patch.id, options])
      assert Enum.map(Keyword.keys(given), config) == Keyword.values(given)
      assert config.(:salt) == "s3cret"

      assert {:ok, %{nodes: [%{warnings: []}]}} = hot_patch(a, :rollback, [patch.id])
      assert Enum.map(Keyword.keys(given), config) == [nil, true, nil]
      assert endpoint(a) == @own
    end

    test "an application that fails to take them is named in the report" do
      [a] = Cluster.start(1)
      {path, _bytes} = listening(1)

      failing =
        Builds.erlang("""
        -module('Elixir.Exchange.Application').
        -export([start/2, stop/1, config_change/3]).
        start(_, _) -> exit(not_again).
        stop(_) -> ok.
        config_change(_, [{taken, _}], _) -> application:set_env(exchange, taken, mine);
        config_change(_, _, _) -> exit(no).
        """)

      patch = upload!(a, [{path, failing}])
      config = [exchange: [colour: "red"]]
      assert {:ok, report} = hot_patch(a, :apply, [patch.id, [config: config]])
      assert [%{warnings: [text]}] = report.nodes
      assert text =~ "Exchange.Application.config_change/3 of exchange failed"

      second = note!(a, "second")
      config = [exchange: [taken: "theirs"]]
      assert {:ok, report} = hot_patch(a, :apply, [second.id, [config: config]])
      assert [%{warnings: ["exchange: :taken is not what was set" <> _]}] = report.nodes
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
