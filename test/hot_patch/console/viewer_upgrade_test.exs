defmodule HotPatch.Console.ViewerUpgradeTest do
  use ExUnit.Case, async: false

  alias HotPatch.Build
  alias HotPatch.Console.API
  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Page
  alias HotPatch.Console.Request
  alias HotPatch.Console.User
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: 120_000

  # A check of an upgrade runs the runtime.exs that comes with it. Who may have that done, and of which archives.

  setup do
    made = NextRelease.make()
    mark = Path.join(Path.dirname(made.old), "evaluated")
    release = Path.join(made.new, "releases/1.1.0")

    init =
      ~s({elixir, [{config_provider_init, \#{providers => [{'Elixir.Config.Reader', {{system, <<"RELEASE_ROOT">>, ) <>
        ~s(<<"/releases/1.1.0/runtime.exs">>}, [{env, prod}, {target, host}]}}]}}]})

    config = Path.join(release, "sys.config")
    {:ok, [list]} = :file.consult(config)
    {:ok, tokens, _} = :erl_scan.string(String.to_charlist(init <> "."))
    {:ok, provider} = :erl_parse.parse_term(tokens)
    File.write!(config, :io_lib.format("~tp.~n", [list ++ [provider]]))

    File.write!(Path.join(release, "runtime.exs"), """
    import Config
    File.write!(#{inspect(mark)}, "")
    config :shop, colour: :green
    """)

    {:ok, _built} = Build.run(from: made.old, to: made.new, out: made.zip)
    {node, _peer} = NextRelease.boot(made.old)
    {:ok, patch} = Cluster.call(node, HotPatch, :upload, [made.zip])
    %{node: node, id: patch.id, mark: mark}
  end

  @request %Request{method: "GET", path: [], query: %{}, headers: %{}, peer: "127.0.0.1"}

  defp as(role), do: %Authorization{user: %User{name: "eve", role: role}}

  defp text(response), do: IO.iodata_to_binary(response.body)

  test "a viewer alone has nothing of an archive run, by no way, and is told what is not known",
       run do
    for call <- [:check, :plan], module <- [API, Page.Patches] do
      args =
        if module == API,
          do: [@request, as(:viewer), %{}, {call, run.id}],
          else: [@request, as(:viewer), %{}, run.id]

      function = if module == API, do: :survey, else: call
      response = Cluster.call(run.node, module, function, args)
      assert response.status == 200
      assert text(response) =~ "which keys of the configuration change is not known"
      refute File.exists?(run.mark)
    end

    # Nor can the query say otherwise, or the mere contents have it done.
    request = %{@request | query: %{"configuration" => ["evaluate"]}}
    args = [request, as(:viewer), %{}, {:check, run.id}]
    assert Cluster.call(run.node, API, :survey, args).status == 422
    args = [@request, as(:admin), %{}, run.id]
    assert Cluster.call(run.node, Page.Patches, :contents, args).status == 200
    refute File.exists?(run.mark)

    args = [@request, as(:admin), %{}, {:plan, run.id}]
    response = Cluster.call(run.node, API, :survey, args)
    assert text(response) =~ "shop: :colour"
    assert File.exists?(run.mark)
  end

  test "nothing of an archive is run that nobody has signed, where signatures are demanded",
       run do
    Cluster.call(run.node, Application, :put_env, [:hot_patch, :require_signature, true])
    :ok = Cluster.call(run.node, HotPatch.Host.Config, :reload, [])

    for call <- [:check, :plan, :apply] do
      assert run.node |> Cluster.call(HotPatch, call, [run.id]) |> said() =~ "it is not signed"
      refute File.exists?(run.mark), "#{call}"
    end
  end

  defp said({:ok, report_or_plan}), do: to_string(report_or_plan)
  defp said({:error, error}), do: Exception.message(error)
end
