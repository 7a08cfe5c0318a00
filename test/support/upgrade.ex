defmodule HotPatch.Test.Upgrade do
  @moduledoc false
  # Releases as a build machine makes them, each in a folder of its own, and a system that OTP's release
  # handler takes from one to the other. What an application is of says the test.

  alias HotPatch.Store.Rolled
  alias HotPatch.Support.Folder
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Releases

  @name "shop"
  @system [:kernel, :stdlib, :sasl, :compiler, :elixir]

  @typedoc "An application: version, modules as `{name, bytes}`, and what more its resource file says."
  @type application :: {String.t(), [{module(), binary()}], keyword()}

  @doc "The name of the release."
  @spec name() :: String.t()
  def name, do: @name

  @doc "That all nodes were restarted from one of its versions to another, as they keep it."
  @spec rolled(pos_integer(), String.t(), String.t(), map()) :: Rolled.t()
  def rolled(seq, from, to, more \\ %{}) do
    %{
      id: "op#{seq}",
      seq: seq,
      kind: :apply,
      patch: "up-#{to}",
      name: @name,
      from: from,
      to: to,
      scope: :all,
      past: [],
      by: "alice"
    }
    |> Rolled.new()
    |> Map.merge(more)
  end

  @doc "An Erlang module as an application wants it."
  @spec erlang(module(), String.t()) :: {module(), binary()}
  def erlang(module, text), do: {module, Builds.erlang("-module(#{module}).\n#{text}")}

  @doc "A server whose state is the version of its code and what it was told."
  @spec server(module(), integer(), String.t()) :: {module(), binary()}
  def server(module, version, code_change) do
    erlang(module, """
    -vsn(#{version}).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
    init(_) -> {ok, {v#{version}, []}}.
    handle_call(get, _, State) -> {reply, {#{version}, State}, State};
    handle_call({add, One}, _, {V, All}) -> {reply, ok, {V, [One | All]}}.
    handle_cast(_, State) -> {noreply, State}.
    #{code_change}
    """)
  end

  @doc "The supervisor of an application, which is its callback module too, over one server."
  @spec supervisor(module(), module()) :: {module(), binary()}
  def supervisor(module, server) do
    erlang(module, """
    -behaviour(supervisor).
    -export([start/2, stop/1, init/1]).
    start(_, _) -> supervisor:start_link(#{module}, []).
    stop(_) -> ok.
    init([]) -> {ok, {\#{}, [\#{id => #{server}, modules => [#{server}],
        start => {gen_server, start_link, [{local, #{server}}, #{server}, [], []]}}]}}.
    """)
  end

  @doc "Makes a release in a folder; gives the folder."
  @spec make(Path.t(), String.t(), [{atom(), application()}], keyword()) :: Path.t()
  def make(root, vsn, applications, options \\ []) do
    for {name, application} <- applications, do: application(root, name, application)
    folder = Path.join([root, "releases", vsn])
    File.mkdir_p!(folder)
    file = Path.join(folder, @name)
    own = for {name, {version, _, _}} <- applications, do: {name, to_charlist(version)}
    system = Keyword.get(options, :system, @system) |> Enum.map(&{&1, version(&1)})
    erts = {:erts, Keyword.get(options, :erts, :erlang.system_info(:version))}
    write(file <> ".rel", {:release, {to_charlist(@name), to_charlist(vsn)}, erts, system ++ own})
    File.write!(Path.join(root, "releases/start_erl.data"), "#{elem(erts, 1)} #{vsn}")
    write(Path.join(folder, "sys.config"), kernel: [inet_dist_use_interface: {127, 0, 0, 1}])

    for {name, bytes} <- Keyword.get(options, :consolidated, []),
        do: beam(Path.join(folder, "consolidated"), name, bytes)

    root
  end

  @doc "Gives an application of a release an appup."
  @spec appup(Path.t(), atom(), String.t(), tuple()) :: :ok
  def appup(root, name, version, appup),
    do: write(Path.join([root, "lib", "#{name}-#{version}", "ebin", "#{name}.appup"]), appup)

  @doc "Has systools make the relup between two releases, by their appups, and put it into the second."
  @spec relup({Path.t(), String.t()}, {Path.t(), String.t()}, [atom()]) :: :ok
  def relup({old, from}, {new, to}, options \\ []) do
    own =
      for root <- [new, old],
          one <- Folder.folders(Path.join(root, "lib")),
          do: to_charlist(Path.join(one, "ebin"))

    name = fn root, vsn -> to_charlist(Path.join([root, "releases", vsn, @name])) end
    folder = to_charlist(Path.join([new, "releases", to]))
    options = [:silent, path: own, outdir: folder] ++ options
    before = [name.(old, from)]
    {:ok, _, _, _} = sasl(:systools).make_relup(name.(new, to), before, before, options)
    :ok
  end

  @doc "Boots a release, with the other beside it, until the calling test ends; gives the system."
  @spec deploy(Path.t(), Path.t()) :: Releases.t()
  def deploy(old, new) do
    for root <- [old, new], do: boot_script(root)
    for part <- ["lib", "releases"], do: File.cp_r!(Path.join(new, part), Path.join(old, part))
    dirs = own_folders(old, "1")
    root = to_charlist(old)
    rel = to_charlist(Path.join([old, "releases", "1", @name <> ".rel"]))
    releases = Path.join(old, "releases")
    :ok = sasl(:release_handler).create_RELEASES(root, to_charlist(releases), rel, dirs)

    for vsn <- ["1", "2"] do
      config = [
        sasl: [releases_dir: to_charlist(releases), sasl_error_logger: false],
        kernel: [
          inet_dist_use_interface: {127, 0, 0, 1},
          prevent_overlapping_partitions: false,
          logger_level: :error
        ]
      ]

      write(Path.join([releases, vsn, "sys.config"]), config)
    end

    node = :"shop_#{System.unique_integer([:positive])}_#{System.pid()}@127.0.0.1"
    Releases.boot(%Releases{root: old, node: node}, "1")
  end

  @doc "Has the release handler of a system install the second release, with the relup that lies in it."
  @spec up(Releases.t()) :: {:ok, term(), term()} | {:error, term()}
  def up(system) do
    folder = Path.join([system.root, "releases", "2"])
    rel = to_charlist(Path.join(folder, @name <> ".rel"))
    {:ok, ~c"2"} = handler(system, :set_unpacked, [rel, own_folders(system.root, "2")])

    for file <- ["relup", "start.boot", "sys.config"],
        do: :ok = handler(system, :install_file, [~c"2", to_charlist(Path.join(folder, file))])

    handler(system, :install_release, [~c"2"])
  end

  @doc "And the first again."
  @spec down(Releases.t()) :: {:ok, term(), term()} | {:error, term()}
  def down(system), do: handler(system, :install_release, [~c"1"])

  defp handler(system, function, args),
    do: Cluster.call(system.node, :release_handler, function, args)

  # Of an application that HotPatch does not need: whoever uses this module starts it.
  defp sasl(module), do: module

  defp own_folders(root, vsn) do
    {:ok, [{:release, _id, _erts, list}]} =
      :file.consult(Path.join([root, "releases", vsn, @name <> ".rel"]))

    for {name, version} <- list,
        name not in @system,
        do: {name, version, to_charlist(Path.join(root, "lib"))}
  end

  defp boot_script(root) do
    [folder] = root |> Path.join("releases") |> Folder.folders()

    own =
      for one <- Folder.folders(Path.join(root, "lib")), do: to_charlist(Path.join(one, "ebin"))

    options = [:silent, :local, :no_module_tests, path: own ++ :code.get_path()]
    {:ok, _, _} = sasl(:systools).make_script(to_charlist(Path.join(folder, @name)), options)
    File.rename!(Path.join(folder, @name <> ".boot"), Path.join(folder, "start.boot"))
  end

  defp application(root, name, {version, modules, more}) do
    ebin = Path.join([root, "lib", "#{name}-#{version}", "ebin"])
    File.mkdir_p!(ebin)
    for {module, bytes} <- modules, do: beam(ebin, module, bytes)

    properties = [
      description: ~c"for tests",
      vsn: to_charlist(version),
      modules: Keyword.keys(modules),
      registered: [],
      applications: [:kernel, :stdlib]
    ]

    write(Path.join(ebin, "#{name}.app"), {:application, name, Keyword.merge(properties, more)})
  end

  defp beam(folder, module, bytes) do
    File.mkdir_p!(folder)
    File.write!(Path.join(folder, "#{module}.beam"), bytes)
  end

  defp version(application) do
    _ = Application.load(application)
    Application.spec(application, :vsn)
  end

  defp write(file, term) do
    text = :unicode.characters_to_binary(:io_lib.format("~tp.~n", [term]))
    File.write!(file, text)
  end
end
