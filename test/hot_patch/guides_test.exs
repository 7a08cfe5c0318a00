defmodule HotPatch.GuidesTest do
  # What the guides have people type is typed here, block after block; or the guide says why it is not.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Host.Config
  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :tmp_dir
  @root Path.expand("../..", __DIR__)
  @guides Enum.map(
            Path.wildcard(Path.join(@root, "docs/{erlang,phoenix}.md")),
            &Path.relative_to(&1, @root)
          )
  @block ~r/^(?:<!-- (?<mark>[^>]+) -->\n)?```(?<language>[a-z]*)\n(?<code>.*?)^```$/ms

  # The blocks of a guide: how it is marked, its language, its text.
  defp blocks(guide) do
    for [_all, mark, language, code] <- Regex.scan(@block, File.read!(Path.join(@root, guide))),
        do: {mark, language, code}
  end

  defp marked(guide, mark), do: for({^mark, _language, code} <- blocks(guide), do: code)

  test "say of every block whether it is tried, or why not" do
    for guide <- @guides, {mark, _language, code} <- blocks(guide) do
      assert mark =~ ~r/\A(run|run: .+|read|not run here: .{10,})\z/, "#{guide}: #{code}"
    end
  end

  test "have Elixir that is Elixir, also where it cannot be run" do
    for guide <- @guides,
        {_mark, "elixir", code} <- blocks(guide),
        do: assert({:ok, _} = Code.string_to_quoted(code), code)
  end

  @tag :starts_nodes
  test "docs/erlang.md, in a shell of Erlang", %{tmp_dir: dir} do
    [a | _] = Cluster.start(2)
    fix = Path.join(dir, "fix.zip")
    File.write!(fix, Archives.zip([Builds.changed("patched", "Billing")]))
    codes = marked("docs/erlang.md", "run")
    assert length(codes) == 4

    Enum.reduce(codes, [], fn code, bindings ->
      code |> String.replace(~s("fix.zip"), ~s("#{fix}")) |> typed(a, bindings)
    end)
  end

  @tag :starts_nodes
  test "the incident of docs/phoenix.md, in a shell of Elixir", %{tmp_dir: dir} do
    [a | _] = Cluster.start(2)
    fix = Path.join(dir, "fix.zip")
    File.write!(fix, Archives.zip([Builds.changed("patched", "Billing")]))
    [code] = marked("docs/phoenix.md", "run")
    code = String.replace(code, ~s("fix.zip"), inspect(fix))
    assert {{:ok, %{operation: :rollback}}, _} = Cluster.call(a, Code, :eval_string, [code])
  end

  # In their order, on a cluster whose release is the repaired one in a folder.
  @tag :starts_nodes
  test "the commands of docs/phoenix.md, in a terminal", %{tmp_dir: dir} do
    [a, b] = Cluster.start(2)
    release = Path.join(dir, "lib/exchange-1.0.0")
    File.mkdir_p!(release)
    File.cp_r!(Builds.ebin("patched"), Path.join(release, "ebin"))

    lines =
      marked("docs/phoenix.md", "run: mix") |> Enum.flat_map(&String.split(&1, "\n", trim: true))

    assert length(lines) == 3

    for line <- lines do
      ["mix", task | arguments] =
        line |> String.replace("shop@10.0.0.5", "#{a}") |> OptionParser.split()

      more = if task == "hot_patch.deploy", do: ["--release", dir], else: []
      cookie = ["--cookie", Atom.to_string(Node.get_cookie())]
      env = [{"MIX_ENV", "test"}, {"HOT_PATCH_SKIP_NATIVE", "1"}]

      {text, status} =
        System.cmd("mix", [task | arguments] ++ more ++ cookie, stderr_to_stdout: true, env: env)

      assert {status, line} == {0, line}, text

      left_old_code([a])
    end

    for node <- [a, b] do
      endpoint = Cluster.call(node, Application, :get_env, [:exchange, ShopWeb.Endpoint])
      assert endpoint == [static_url: [host: ~c"cdn.example.com"]]
    end
  end

  # As the shell does: one expression after the other, with what was bound before.
  defp typed(code, node, bindings) do
    {:ok, tokens, _line} = :erl_scan.string(String.to_charlist(code))

    tokens
    |> Enum.chunk_while([], &expression/2, fn [] -> {:cont, []} end)
    |> Enum.reduce(bindings, fn expression, bindings ->
      {:ok, parsed} = :erl_parse.parse_exprs(expression)
      {:value, _value, bindings} = Cluster.call(node, :erl_eval, :exprs, [parsed, bindings])
      bindings
    end)
  end

  defp expression({:dot, _} = dot, tokens), do: {:cont, Enum.reverse([dot | tokens]), []}
  defp expression(token, tokens), do: {:cont, [token | tokens]}

  test "the sys.config of docs/erlang.md is one that counts" do
    [code] = marked("docs/erlang.md", "run: sys.config")
    {:ok, tokens, _line} = :erl_scan.string(String.to_charlist(code))
    {:ok, [hot_patch: options]} = :erl_parse.parse_term(tokens)
    before = Application.get_all_env(:hot_patch)

    on_exit(fn ->
      for {key, _} <- Application.get_all_env(:hot_patch),
          do: Application.delete_env(:hot_patch, key)

      Application.put_all_env(hot_patch: before)
      Config.load()
    end)

    Application.put_all_env(hot_patch: options)
    :ok = Config.load()
    assert to_string(Config.current().data_dir) == "/var/lib/my_system/hot_patch"
  end

  test "hot_patch has every function of HotPatch that does not raise" do
    own =
      for {name, arity} <- HotPatch.__info__(:functions),
          not String.ends_with?("#{name}", "!"),
          do: {name, arity}

    assert own -- :hot_patch.__info__(:functions) == []
  end

  @tag :starts_nodes
  test "hot_patch takes what Erlang has for options" do
    [a] = Cluster.start(1)
    patch = upload!(a, [Builds.changed("patched", "Billing")])
    call = &Cluster.call(a, :hot_patch, &1, &2)
    assert {:ok, _} = call.(:plan, [patch.id, [:cumulative, timeout: 10_000, reason: :undefined]])
    assert {:ok, _} = call.(:plan, [patch.id, %{cumulative: true}])
    assert {:error, error} = call.(:plan, [patch.id, [:nothing_like_this]])
    assert call.(:text, [{:error, error}]) =~ "nothing_like_this"
    assert call.(:text, [call.(:list, [])]) =~ patch.id
  end
end
