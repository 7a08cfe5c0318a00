defmodule Bench.Upgrade.Subject do
  # A small system in two versions of its release, the upgrade between them as HotPatch takes it, and as OTP's
  # release_handler does: a tarball with a relup. Both are made by HotPatch from the same two folders.
  #
  # `shop` goes from 1.0.0 to 1.1.0: its gen_servers keep their state in another form, and modules beside them change;
  # `rates` is new, `legacy` is gone.

  alias HotPatch.Build

  @old "1.0.0"
  @new "1.1.0"
  @name "shop"
  @shared [:kernel, :stdlib, :sasl, :compiler, :crypto, :asn1, :public_key, :elixir, :logger] ++
            [:hot_patch]

  def old, do: @old
  def new, do: @new
  def name, do: @name

  @doc "Makes all of it below a folder, with so many modules that change."
  def make(root, modules) do
    made = %{
      old: Path.join(root, "old"),
      new: Path.join(root, "new"),
      zip: Path.join(root, "upgrade.zip"),
      tar: Path.join(root, "#{@name}-#{@new}.tar.gz")
    }

    release(made.old, @old, shop(made.old, @old, modules) ++ legacy(made.old))
    release(made.new, @new, shop(made.new, @new, modules) ++ rates(made.new))
    {:ok, _built} = Build.run(from: made.old, to: made.new, out: made.zip)
    {:ok, _relup} = Build.Relup.run(from: made.old, to: made.new)
    tar(made)
    made
  end

  defp shop(root, version, modules) do
    pure = for n <- 1..(modules - 1)//1, do: {:"shop_pure_#{n}", pure(n, version)}

    application(root, :shop, version, [
      {:shop_server, server(version)},
      {:shop_sup, front("shop_servers")},
      {:shop_front, plain()},
      {:shop_servers, servers()} | pure
    ])
  end

  defp legacy(root), do: plain_application(root, :legacy, "0.3.0")
  defp rates(root), do: plain_application(root, :rates, "0.1.0")

  defp plain_application(root, name, version),
    do:
      application(root, name, version, [{:"#{name}_sup", front(nil)}, {:"#{name}_front", plain()}])

  defp application(root, name, version, modules) do
    ebin = Path.join([root, "lib", "#{name}-#{version}", "ebin"])
    File.mkdir_p!(ebin)

    for {module, text} <- modules do
      text = "-module(#{module}).\n" <> String.replace(text, "?APP", "#{name}")
      File.write!(Path.join(ebin, "#{module}.beam"), Bench.Erlang.compile(text))
    end

    properties = [
      description: ~c"for the benchmark",
      vsn: to_charlist(version),
      modules: Keyword.keys(modules),
      registered: [],
      applications: [:kernel, :stdlib, :hot_patch],
      mod: {:"#{name}_sup", []}
    ]

    write(Path.join(ebin, "#{name}.app"), {:application, name, properties})
    [{name, to_charlist(version)}]
  end

  # {s, N} becomes {s, N, 2}. One that is poisoned has no way there.
  defp server(version) do
    {state, number, change} =
      if version == @old,
        do: {"{s, N}", 1, "code_change(_, S, _) -> {ok, S}."},
        else:
          {"{s, N, 2}", 2,
           "code_change({down, _}, {s, N, 2}, _) -> {ok, {s, N}};\n" <>
             "code_change(_, {s, N}, _) -> {ok, {s, N, 2}}."}

    """
    -vsn(#{number}).
    -behaviour(gen_server).
    -export([start_link/1, init/1, handle_call/3, handle_cast/2, code_change/3]).
    start_link(N) -> gen_server:start_link(shop_server, N, []).
    init(N) -> {ok, #{state}}.
    handle_call(get, _, S) -> {reply, {element(2, S), tuple_size(S)}, S};
    handle_call(poison, _, S) -> {reply, ok, setelement(1, S, poisoned)}.
    handle_cast(_, S) -> {noreply, S}.
    #{change}
    """
  end

  defp plain do
    """
    -behaviour(gen_server).
    -export([init/1, handle_call/3, handle_cast/2]).
    init(_) -> {ok, []}.
    handle_call(get, _, S) -> {reply, ok, S}.
    handle_cast(_, S) -> {noreply, S}.
    """
  end

  # The callback module of an application; over one server, and a supervisor if it has one.
  defp front(supervisor) do
    more =
      if supervisor,
        do:
          ", \#{id => #{supervisor}, type => supervisor, start => {#{supervisor}, start_link, []}}",
        else: ""

    """
    -behaviour(supervisor).
    -export([start/2, stop/1, init/1]).
    start(_, _) -> supervisor:start_link(?APP_sup, []).
    stop(_) -> ok.
    init([]) -> {ok, {\#{}, [\#{id => front, modules => [?APP_front],
        start => {gen_server, start_link, [{local, ?APP_front}, ?APP_front, [], []]}}#{more}]}}.
    """
  end

  defp servers do
    """
    -behaviour(supervisor).
    -export([start_link/0, init/1]).
    start_link() -> supervisor:start_link({local, shop_servers}, shop_servers, []).
    init([]) -> {ok, {\#{strategy => simple_one_for_one, intensity => 1000000},
        [\#{id => server, modules => [shop_server], start => {shop_server, start_link, []},
           shutdown => brutal_kill}]}}.
    """
  end

  # About 20 kB, with exports, funs and literals, as real modules have them.
  defp pure(n, version) do
    functions =
      for i <- 1..60 do
        """
        f#{i}(X) when X > #{i} -> {"#{version}", #{n}, "literal #{i} of #{n}", fun(Y) -> f#{i}(Y - X) end};
        f#{i}(X) -> lists:map(fun(Z) -> {Z, X, #{i}} end, lists:seq(1, X)).
        """
      end

    exports = Enum.map_join(1..60, ", ", &"f#{&1}/1")
    "-export([#{exports}]).\n" <> Enum.join(functions)
  end

  defp release(root, version, own) do
    folder = Path.join([root, "releases", version])
    File.mkdir_p!(folder)
    shared = for app <- @shared, do: {app, link(root, app)}
    erts = :erlang.system_info(:version)
    rel = {:release, {to_charlist(@name), to_charlist(version)}, {:erts, erts}, shared ++ own}
    write(Path.join(folder, "#{@name}.rel"), rel)
    File.write!(Path.join(root, "releases/start_erl.data"), "#{erts} #{version}")
    config = [logger: [level: :none], kernel: [logger_level: :none], shop: [limit: version]]
    File.write!(Path.join(folder, "sys.config"), :io_lib.format("~tp.~n", [config]))
    File.write!(Path.join(folder, "vm.args"), "-name shop\n")
    boot_script(root, folder)
  end

  # Of the installed system, so that a folder is small and starts wherever it is copied to.
  defp link(root, app) do
    _ = Application.load(app)
    vsn = Application.spec(app, :vsn)
    folder = Path.join([root, "lib", "#{app}-#{vsn}"])
    File.mkdir_p!(folder)

    for part <- ["ebin", "priv"],
        there = Application.app_dir(app, part),
        File.dir?(there),
        do: File.ln_s!(there, Path.join(folder, part))

    vsn
  end

  defp boot_script(root, folder) do
    lib = Path.join(root, "lib")
    path = for one <- File.ls!(lib), do: to_charlist(Path.join([lib, one, "ebin"]))
    variables = [{~c"RELEASE_LIB", to_charlist(lib)}]
    options = [:silent, :no_module_tests, path: path, variables: variables]
    options = options ++ [outdir: to_charlist(folder)]
    {:ok, _, _} = sasl(:systools).make_script(to_charlist(Path.join(folder, @name)), options)
    File.rename!(Path.join(folder, @name <> ".boot"), Path.join(folder, "start.boot"))
  end

  # As `release_handler` unpacks it: what is new, and the resource file beside its folder.
  defp tar(made) do
    libs = for one <- ["shop-#{@new}", "rates-0.1.0"], do: "lib/#{one}"
    rel = "releases/#{@new}/#{@name}.rel"

    entries =
      [{~c"releases/#{@name}-#{@new}.rel", to_charlist(Path.join(made.new, rel))}] ++
        for one <- ["releases/#{@new}" | libs],
            do: {to_charlist(one), to_charlist(Path.join(made.new, one))}

    :ok = :erl_tar.create(to_charlist(made.tar), entries, [:compressed])
  end

  defp write(file, term), do: File.write!(file, :io_lib.format("~tp.~n", [term]))

  @doc "A module of sasl, which HotPatch does not need."
  def sasl(module), do: module
end
