defmodule HotPatch.Test.NextRelease do
  @moduledoc false
  # A small system in two versions of its release, as a build machine has them, and the upgrade between them.
  #
  #   * `shop` goes from 1.0.0 to 1.1.0: its server counts in a map instead of a tuple, its supervisor has one more
  #     child (`shop_till`) and one less (`shop_sign`), `shop_old` is gone, `shop_same` is not, and it is configured otherwise
  #   * `rates` 0.1.0 is new, `legacy` 0.3.0 is gone
  #   * `scales` 1.0.0 and all of the system are the same
  #
  # The servers are registered by their names, and answer `get` with {version of their code, state}. That of the shop
  # notes by `shop_server:note(What)` in a persistent term {shop, What} the version of the code which was called.

  alias HotPatch.Build
  alias HotPatch.Support.Folder
  alias HotPatch.Test.BootedRelease
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NodeTag
  alias HotPatch.Test.Releases
  alias HotPatch.Test.Until
  alias HotPatch.Test.Upgrade

  @old "1.0.0"
  @new "1.1.0"

  @enforce_keys [:old, :new, :zip]
  defstruct [:old, :new, :zip]

  @typedoc "The folders of both releases, and the file of the upgrade."
  @type t :: %__MODULE__{old: Path.t(), new: Path.t(), zip: Path.t()}

  @doc "The versions of the release."
  @spec versions() :: {String.t(), String.t()}
  def versions, do: {@old, @new}

  @doc "Makes both releases and the upgrade in a folder of its own, which ends with the calling test."
  @spec make() :: t()
  def make do
    root = Path.join([Builds.tmp(), "next", "n#{System.unique_integer([:positive])}"])
    HotPatch.Test.Folders.remove_on_exit(root)
    made = %__MODULE__{old: old(root), new: new(root), zip: Path.join(root, "upgrade.zip")}
    {:ok, _built} = Build.run(from: made.old, to: made.new, out: made.zip)
    made
  end

  @doc """
  The same with a relup in the new release, which systools makes of these instructions for `shop`, and of those for
  what comes and goes.
  """
  @spec with_relup(t(), [term()], [term()]) :: t()
  def with_relup(made, up, down) do
    appup = {to_charlist(@new), [{to_charlist(@old), up}], [{to_charlist(@old), down}]}
    Upgrade.appup(made.new, :shop, @new, appup)
    Upgrade.relup({made.old, @old}, {made.new, @new})
    {:ok, _built} = Build.run(from: made.old, to: made.new, out: made.zip)
    made
  end

  @doc """
  The same with another runtime system in the new release, that of this VM under another number; and `scales`, whose
  version is the same, is as another compiler has made it.
  """
  @spec with_other_erts(t()) :: t()
  def with_other_erts(made) do
    erts = List.to_string(:erlang.system_info(:version))
    program = Path.join(made.new, "erts-#{erts}.1/bin/erl")
    File.mkdir_p!(Path.dirname(program))

    text =
      "#!/bin/sh\nSHOP_ERTS=#{erts}.1; export SHOP_ERTS; exec #{:code.root_dir()}/bin/erl \"$@\"\n"

    File.write!(program, text)
    File.chmod!(program, 0o755)

    for file <- ["start_erl.data", "#{@new}/#{Upgrade.name()}.rel"],
        path = Path.join([made.new, "releases", file]) do
      File.write!(path, path |> File.read!() |> String.replace(erts, "#{erts}.1", global: false))
    end

    {_module, bytes} = server(:scales_server, 3, "code_change(_, State, _) -> {ok, State}.")

    File.write!(Path.join(made.new, "lib/scales-1.0.0/ebin/scales_server.beam"), bytes)
    {:ok, _built} = Build.run(from: made.old, to: made.new, out: made.zip)
    made
  end

  @doc "The former release, in `old` below a folder."
  @spec old(Path.t()) :: Path.t()
  def old(root) do
    shop = [
      shop_server(1),
      supervisor(:shop_sup, [:shop_server, :shop_sign]),
      server(:shop_sign, 1, "code_change(_, State, _) -> {ok, State}."),
      Upgrade.erlang(:shop_old, "-export([f/0]).\nf() -> 1."),
      plain(:shop_same)
    ]

    applications = [
      scales:
        {"1.0.0", [plain(:scales_server), supervisor(:scales_sup, [:scales_server])],
         mod(:scales)},
      legacy:
        {"0.3.0", [plain(:legacy_server), supervisor(:legacy_sup, [:legacy_server])],
         mod(:legacy)},
      shop: {@old, shop, [env: [currency: :eur]] ++ mod(:shop)}
    ]

    release(Path.join(root, "old"), @old, applications, shop: [limit: 1])
  end

  @doc "The new one, in `new` below a folder."
  @spec new(Path.t()) :: Path.t()
  def new(root) do
    shop = [
      shop_server(2),
      supervisor(:shop_sup, [:shop_server, :shop_till]),
      plain(:shop_till),
      plain(:shop_same)
    ]

    applications = [
      scales:
        {"1.0.0", [plain(:scales_server), supervisor(:scales_sup, [:scales_server])],
         mod(:scales)},
      rates:
        {"0.1.0", [plain(:rates_server), supervisor(:rates_sup, [:rates_server])], mod(:rates)},
      shop: {@new, shop, [env: [currency: :eur, rounding: :up]] ++ mod(:shop, [:rates])}
    ]

    release(Path.join(root, "new"), @new, applications, shop: [limit: 2, colour: :blue])
  end

  @doc """
  Starts a copy of a release as `mix release` has it started: by a script that reads `start_erl.data`, with heart. It ends
  with the calling test. Of the environment `SHOP_FLAGS` are for the command line of every VM that the script starts, and
  `SHOP_BREAK` is a version that it does not start.
  """
  @spec start_with_heart(Path.t(), atom(), [{String.t(), String.t()}]) :: node()
  def start_with_heart(root, name, more \\ []), do: await(launch_with_heart(root, name, more))

  @doc "The same, without waiting for it: several start at once."
  @spec launch_with_heart(Path.t(), atom(), [{String.t(), String.t()}]) :: node()
  def launch_with_heart(root, name, more) do
    NodeTag.check!()
    script = Path.join(root, "bin/shop")
    File.mkdir_p!(Path.dirname(script))
    File.write!(script, script(root))
    File.chmod!(script, 0o755)
    node = :"#{name}@127.0.0.1"

    env = [
      {"RELEASE_NODE", "#{node}"},
      {"RELEASE_COOKIE", "#{Node.get_cookie()}"}
    ]

    ExUnit.Callbacks.on_exit(fn -> end_all(root, node) end)

    {_, 0} =
      System.cmd("/bin/sh", ["-c", "'#{script}' start > '#{root}/log' 2>&1 &"], env: env ++ more)

    node
  end

  @doc "Waits until all applications of a node have started."
  @spec await(node()) :: node()
  def await(node) do
    Until.until(fn -> serves?(node) end, "#{node} serves")
    node
  end

  defp serves?(node) do
    match?({:started, _}, Cluster.call(node, :init, :get_status, []))
  catch
    _kind, _not_there -> false
  end

  # As the script of Mix, as far as it matters here: what it finds in the environment counts, and it exports that.
  defp script(root) do
    """
    #!/bin/sh
    set -e
    if [ -e '#{root}/ended' ]; then exit 1; fi
    RELEASE_ROOT=$(cd "$(dirname "$0")/.." && pwd)
    RELEASE_VSN="${RELEASE_VSN:-"$(cut -d' ' -f2 "$RELEASE_ROOT/releases/start_erl.data")"}"
    RELEASE_SYS_CONFIG="${RELEASE_SYS_CONFIG:-"$RELEASE_ROOT/releases/$RELEASE_VSN/sys"}"
    if [ "$RELEASE_VSN" = "$SHOP_BREAK" ]; then exit 1; fi
    HEART_COMMAND="$RELEASE_ROOT/bin/shop start"
    export RELEASE_ROOT RELEASE_VSN RELEASE_SYS_CONFIG HEART_COMMAND
    # Heart would wait, by whole seconds, until nothing is left of the VM that has ended, and for its dump.
    HEART_NO_KILL=TRUE ERL_CRASH_DUMP_SECONDS=0
    export HEART_NO_KILL ERL_CRASH_DUMP_SECONDS
    erts="$RELEASE_ROOT/erts-$(cut -d' ' -f1 "$RELEASE_ROOT/releases/start_erl.data")"
    erl='#{:code.root_dir()}/bin/erl'
    if [ -e "$erts/bin/erl" ]; then erl="$erts/bin/erl"; fi
    echo $$ >> "$RELEASE_ROOT/pids"
    exec "$erl" -heart -noinput -boot "$RELEASE_ROOT/releases/$RELEASE_VSN/start" \\
      -boot_var RELEASE_LIB "$RELEASE_ROOT/lib" -config "$RELEASE_SYS_CONFIG" \\
      -name "$RELEASE_NODE" -setcookie "$RELEASE_COOKIE" \\
      -hot_patch data_dir "\\"$RELEASE_ROOT/data\\"" $SHOP_FLAGS
    """
  end

  # Heart starts nothing any more, and what it has just started is found by the next look.
  defp end_all(root, node) do
    File.write!(Path.join(root, "ended"), "")

    gone? = fn ->
      case for(pid <- pids(root), ours?(pid, root), do: pid) do
        [] ->
          true

        left ->
          _ = System.cmd("kill", ["-KILL" | left], stderr_to_stdout: true)
          false
      end
    end

    Until.until(gone?, "#{node} ends")
  end

  defp pids(root) do
    case File.read(Path.join(root, "pids")) do
      {:ok, text} -> String.split(text)
      {:error, _none} -> []
    end
  end

  defp ours?(pid, root) do
    case File.read("/proc/#{pid}/cmdline") do
      {:ok, line} -> String.contains?(line, root)
      {:error, _gone} -> false
    end
  end

  # Its state is {v1, Count} in the one, and a map in the other.
  defp shop_server(1) do
    Upgrade.erlang(:shop_server, """
    -vsn(1).
    -behaviour(gen_server).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3, note/1]).
    init(_) -> {ok, {v1, 0}}.
    handle_call(get, _, State) -> {reply, {1, State}, State};
    handle_call(sell, _, {v1, Count}) -> {reply, ok, {v1, Count + 1}}.
    handle_cast(_, State) -> {noreply, State}.
    code_change(_, State, _) -> {ok, State}.
    note(What) -> persistent_term:put({shop, What}, 1).
    """)
  end

  defp shop_server(2) do
    Upgrade.erlang(:shop_server, """
    -vsn(2).
    -behaviour(gen_server).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3, note/1]).
    init(_) -> {ok, \#{sold => 0}}.
    handle_call(get, _, State) -> {reply, {2, State}, State};
    handle_call(sell, _, \#{sold := Count}) -> {reply, ok, \#{sold => Count + 1}}.
    handle_cast(_, State) -> {noreply, State}.
    code_change({down, _}, \#{sold := Count}, {less, N}) -> {ok, {v1, Count - N}};
    code_change({down, _}, \#{sold := Count}, _) -> {ok, {v1, Count}};
    code_change(_, {v1, Count}, {more, N}) -> {ok, \#{sold => Count + N}};
    code_change(_, {v1, Count}, _) -> {ok, \#{sold => Count}}.
    note(What) -> persistent_term:put({shop, What}, 2).
    """)
  end

  defp plain(name), do: server(name, 1, "code_change(_, State, _) -> {ok, State}.")

  defp server(name, version, code_change) do
    Upgrade.erlang(name, """
    -vsn(#{version}).
    -behaviour(gen_server).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
    init(_) -> {ok, []}.
    handle_call(get, _, State) -> {reply, {#{version}, State}, State}.
    handle_cast(_, State) -> {noreply, State}.
    #{code_change}
    """)
  end

  # The callback module of an application, which tells who asks that its configuration has changed.
  defp supervisor(name, servers) do
    children =
      Enum.map_join(servers, ", ", fn server ->
        "\#{id => #{server}, modules => [#{server}], start => {gen_server, start_link, " <>
          "[{local, #{server}}, #{server}, [], []]}}"
      end)

    Upgrade.erlang(name, """
    -behaviour(supervisor).
    -export([start/2, stop/1, init/1, config_change/3]).
    start(_, _) -> undefined = application:get_env(broken), supervisor:start_link({local, #{name}}, #{name}, []).
    stop(_) -> ok.
    init([]) -> {ok, {\#{}, [#{children}]}}.
    config_change(Changed, New, Removed) -> persistent_term:put({#{name}, config}, {Changed, New, Removed}).
    """)
  end

  defp mod(name, needs \\ []) do
    [
      mod: {:"#{name}_sup", []},
      registered: [],
      applications: [:kernel, :stdlib, :hot_patch] ++ needs
    ]
  end

  # With the system beside it, so that it starts wherever it is copied to.
  defp release(root, version, applications, config) do
    Upgrade.make(root, version, applications, system: Releases.system())
    for one <- Releases.system(), do: link(root, one)
    folder = Path.join([root, "releases", version])
    File.write!(Path.join(folder, "sys.config"), :io_lib.format("~tp.~n", [settings(config)]))
    File.write!(Path.join(folder, "vm.args"), "-sname shop\n")
    boot_script(root, folder)
    root
  end

  defp link(root, application) do
    _ = Application.load(application)
    name = "#{application}-#{Application.spec(application, :vsn)}"
    folder = Path.join([root, "lib", name])
    File.mkdir_p!(folder)

    for part <- ["ebin", "priv"],
        there = Application.app_dir(application, part),
        File.dir?(there),
        do: File.ln_s!(there, Path.join(folder, part))
  end

  defp settings(config) do
    [
      logger: [level: :none],
      kernel: [
        inet_dist_use_interface: {127, 0, 0, 1},
        prevent_overlapping_partitions: false,
        logger_level: :error
      ]
    ] ++ config
  end

  defp boot_script(root, folder) do
    lib = Path.join(root, "lib")
    path = for one <- Folder.folders(lib), do: one |> Path.join("ebin") |> String.to_charlist()

    options = [
      :silent,
      :no_module_tests,
      path: path,
      variables: [{~c"RELEASE_LIB", String.to_charlist(lib)}],
      outdir: String.to_charlist(folder)
    ]

    name = String.to_charlist(Path.join(folder, Upgrade.name()))
    # Of sasl, which nothing here depends on.
    {:ok, _, _} = apply(:systools, :make_script, [name, options])
    File.rename!(Path.join(folder, "#{Upgrade.name()}.boot"), Path.join(folder, "start.boot"))
  end

  @doc """
  Starts a copy of a release until the calling test ends, in the version that its `start_erl.data` names; gives the
  node, and the peer to stop it by.
  """
  @spec boot(Path.t(), atom(), String.t() | nil) :: {node(), pid()}
  def boot(
        root,
        name \\ :"shop_#{System.unique_integer([:positive])}_#{System.pid()}",
        version \\ nil
      ) do
    NodeTag.check!()
    version = version || boots(root)
    folder = Path.join([root, "releases", version])

    {:ok, peer, node} =
      :peer.start(%{
        name: name,
        host: ~c"127.0.0.1",
        longnames: true,
        wait_boot: 120_000,
        env: [{~c"RELEASE_ROOT", String.to_charlist(root)}],
        args: [
          ~c"-boot",
          String.to_charlist(Path.join(folder, "start")),
          ~c"-boot_var",
          ~c"RELEASE_LIB",
          String.to_charlist(Path.join(root, "lib")),
          ~c"-mode",
          ~c"embedded",
          ~c"-config",
          String.to_charlist(Path.join(folder, "sys")),
          ~c"-sasl",
          ~c"releases_dir",
          String.to_charlist(inspect(Path.join(root, "releases"))),
          ~c"-hot_patch",
          ~c"data_dir",
          String.to_charlist(inspect(Path.join(root, "data"))),
          ~c"-setcookie",
          Atom.to_charlist(Node.get_cookie())
        ]
      })

    ExUnit.Callbacks.on_exit(fn -> stop(peer) end)
    {node, peer}
  end

  @doc "The version that the `start_erl.data` of a release names."
  @spec boots(Path.t()) :: String.t()
  def boots(root) do
    [_erts, version] =
      root |> Path.join("releases/start_erl.data") |> File.read!() |> String.split()

    version
  end

  @doc "Ends a node."
  @spec stop(pid()) :: :ok
  defdelegate stop(peer), to: BootedRelease

  @doc "What a server answers: the version of its code, and its state."
  @spec ask(node(), atom(), term()) :: term()
  def ask(node, server, request \\ :get),
    do: Cluster.call(node, :gen_server, :call, [server, request])
end
