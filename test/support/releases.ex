defmodule HotPatch.Test.Releases do
  @moduledoc false
  # A system in releases as systools makes them, with two versions side by side that OTP's release
  # handler goes between. `till` is another version in the second, `scales` is the same in both.

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NodeTag
  alias HotPatch.Test.Servers

  # Nothing but its whole name makes a boot script OTP's own.
  @name "till_on_OTP"
  @system [
    :kernel,
    :stdlib,
    :sasl,
    :compiler,
    :crypto,
    :asn1,
    :public_key,
    :elixir,
    :logger,
    :hot_patch
  ]

  @enforce_keys [:root, :node]
  defstruct [:root, :node, :peer]

  @type t :: %__MODULE__{root: Path.t(), node: node(), peer: pid() | nil}

  @doc "The applications that a release has besides its own."
  @spec system() :: [atom()]
  def system, do: @system

  @doc "The name of the releases."
  @spec name() :: String.t()
  def name, do: @name

  @doc "Makes both versions in a folder; nothing runs yet. It ends with the calling test."
  @spec make() :: t()
  def make do
    name = :"till_#{System.unique_integer([:positive])}_#{System.pid()}"
    root = Path.join([Builds.tmp(), "releases", Atom.to_string(name)])
    system = %__MODULE__{root: root, node: :"#{name}@127.0.0.1"}

    for vsn <- ["1", "2"], do: application(root, :till, vsn)
    application(root, :scales, "1")
    for vsn <- ["1", "2"], do: release(root, vsn)
    relup(root)
    dirs = for {app, vsn} <- own("1"), do: {app, to_charlist(vsn), lib(root)}
    releases = to_charlist(Path.join(root, "releases"))

    :ok =
      sasl(:release_handler).create_RELEASES(
        to_charlist(root),
        releases,
        rel(root, "1") ++ ~c".rel",
        dirs
      )

    config = [
      sasl: [releases_dir: releases, sasl_error_logger: false],
      logger: [level: :none],
      kernel: [
        inet_dist_use_interface: {127, 0, 0, 1},
        prevent_overlapping_partitions: false,
        logger_level: :error
      ],
      hot_patch: [data_dir: Path.join(root, "data")]
    ]

    for vsn <- ["1", "2"] do
      file = Path.join([root, "releases", vsn, "sys.config"])
      File.write!(file, :io_lib.format("~tp.~n", [config]))
    end

    HotPatch.Test.Folders.remove_on_exit(root)
    system
  end

  @doc "Boots a version."
  @spec boot(t(), String.t()) :: t()
  def boot(system, vsn) do
    NodeTag.check!()
    [name, _host] = system.node |> Atom.to_string() |> String.split("@")
    folder = Path.join([system.root, "releases", vsn])

    {:ok, peer, _node} =
      :peer.start(%{
        name: String.to_atom(name),
        host: ~c"127.0.0.1",
        longnames: true,
        wait_boot: 120_000,
        env: [{~c"RELEASE_ROOT", to_charlist(system.root)}],
        args: [
          ~c"-boot",
          to_charlist(Path.join(folder, "start")),
          ~c"-mode",
          ~c"embedded",
          ~c"-config",
          to_charlist(Path.join(folder, "sys")),
          ~c"-setcookie",
          Atom.to_charlist(Node.get_cookie())
        ]
      })

    ExUnit.Callbacks.on_exit(fn -> stop(%{system | peer: peer}) end)
    %{system | peer: peer}
  end

  @doc "Ends the VM."
  @spec stop(t()) :: t()
  def stop(system) do
    :peer.stop(system.peer)
    %{system | peer: nil}
  catch
    :exit, _gone -> %{system | peer: nil}
  end

  @doc "Has the release handler install the second version, as `release_handler` documents it."
  @spec install(t()) :: :ok
  def install(system) do
    call = &Cluster.call(system.node, :release_handler, &1, &2)
    dirs = [{:till, ~c"2", lib(system.root)}]
    {:ok, ~c"2"} = call.(:set_unpacked, [rel(system.root, "2") ++ ~c".rel", dirs])

    for file <- ["relup", "start.boot", "sys.config"] do
      :ok =
        call.(:install_file, [~c"2", to_charlist(Path.join([system.root, "releases", "2", file]))])
    end

    {:ok, ~c"1", []} = call.(:install_release, [~c"2"])
    :ok
  end

  @doc "A module of an application as a file of an archive, in a version of its code."
  @spec file(:till | :scales, String.t(), String.t()) :: {Path.t(), binary()}
  def file(app, vsn, code), do: {"#{app}-#{vsn}/ebin/#{app}_server.beam", server(app, code)}

  @doc "The same file on disk."
  @spec path(t(), :till | :scales, String.t()) :: Path.t()
  def path(system, app, vsn), do: Path.join([system.root, "lib", elem(file(app, vsn, "0"), 0)])

  @doc "The version of the code that a server runs, and its state."
  @spec state(t(), :till | :scales) :: {integer(), integer()}
  def state(system, app),
    do: Cluster.call(system.node, :gen_server, :call, [:"#{app}_server", :get])

  # Of an application that HotPatch does not need: whoever uses this module starts it.
  defp sasl(module), do: module

  # Every version takes the state of any other.
  defp server(app, code),
    do: Servers.server(:"#{app}_server", code, "case OldVsn of _ -> {ok, {VERSION, Count}} end")

  defp own("1"), do: [till: "1", scales: "1"]
  defp own("2"), do: [till: "2", scales: "1"]

  defp lib(root), do: to_charlist(Path.join(root, "lib"))
  defp rel(root, vsn), do: to_charlist(Path.join([root, "releases", vsn, @name]))

  defp application(root, app, vsn) do
    ebin = Path.join([root, "lib", "#{app}-#{vsn}", "ebin"])
    File.mkdir_p!(ebin)
    File.write!(Path.join(ebin, "#{app}_server.beam"), server(app, vsn))
    File.write!(Path.join(ebin, "#{app}_sup.beam"), supervisor(app))

    properties = [
      description: ~c"#{app}",
      vsn: to_charlist(vsn),
      modules: [:"#{app}_server", :"#{app}_sup"],
      registered: [],
      applications: [:kernel, :stdlib, :hot_patch],
      mod: {:"#{app}_sup", []}
    ]

    write(ebin, "#{app}.app", {:application, app, properties})
    update = [{:update, :"#{app}_server", {:advanced, []}}]
    write(ebin, "#{app}.appup", {to_charlist(vsn), [{~c"1", update}], [{~c"1", update}]})
  end

  defp supervisor(app) do
    Builds.erlang("""
    -module(#{app}_sup).
    -export([start/2, stop/1, init/1]).
    start(_, _) -> supervisor:start_link(#{app}_sup, []).
    stop(_) -> ok.
    init([]) -> {ok, {#{"\#{}"}, [#{"\#{"}id => #{app}, modules => [#{app}_server],
        start => {gen_server, start_link, [{local, #{app}_server}, #{app}_server, 0, []]}}]}}.
    """)
  end

  defp release(root, vsn) do
    folder = Path.join([root, "releases", vsn])
    File.mkdir_p!(folder)

    system =
      for app <- @system do
        _ = Application.load(app)
        {app, Application.spec(app, :vsn)}
      end

    own = for {app, vsn} <- own(vsn), do: {app, to_charlist(vsn)}
    erts = {:erts, :erlang.system_info(:version)}

    write(
      folder,
      "#{@name}.rel",
      {:release, {to_charlist(@name), to_charlist(vsn)}, erts, system ++ own}
    )

    options = [:silent, :local, :no_module_tests, path: code_path(root, vsn)]
    {:ok, _module, _warnings} = sasl(:systools).make_script(rel(root, vsn), options)
    File.rename!(Path.join(folder, "#{@name}.boot"), Path.join(folder, "start.boot"))
  end

  defp relup(root) do
    folder = Path.join([root, "releases", "2"])
    paths = code_path(root, "1") ++ code_path(root, "2")
    options = [:silent, path: paths, outdir: to_charlist(folder)]
    from = [rel(root, "1")]

    {:ok, _relup, _module, _warnings} =
      sasl(:systools).make_relup(rel(root, "2"), from, from, options)
  end

  defp code_path(root, vsn) do
    own =
      for {app, vsn} <- own(vsn),
          do: to_charlist(Path.join([root, "lib", "#{app}-#{vsn}", "ebin"]))

    own ++ :code.get_path()
  end

  defp write(folder, name, term),
    do: File.write!(Path.join(folder, name), :io_lib.format("~tp.~n", [term]))
end
