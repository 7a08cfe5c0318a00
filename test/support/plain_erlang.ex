defmodule HotPatch.Test.PlainErlang do
  @moduledoc false
  # A node that has nothing but OTP, and runs a small system of one supervised gen_server in Erlang.

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NodeTag
  alias HotPatch.Test.Servers

  @module :hot_patch_test_switch

  @doc """
  Starts one; it ends with the calling test. Further arguments are for `erl`, and its system is of
  that version.
  """
  @spec start([charlist()], String.t()) :: node()
  def start(args \\ [], vsn \\ "1.0.0") do
    NodeTag.check!()
    name = :"plain_#{System.unique_integer([:positive])}_#{System.pid()}"
    node = :"#{name}@127.0.0.1"
    install(node, vsn)

    {:ok, peer, ^node} =
      :peer.start(%{
        name: name,
        host: ~c"127.0.0.1",
        longnames: true,
        wait_boot: 120_000,
        env: [{~c"HOME", String.to_charlist(Cluster.home(node))}],
        args:
          [
            [~c"-pa", String.to_charlist(Path.dirname(beam(node, vsn)))],
            [~c"-setcookie", Atom.to_charlist(Node.get_cookie())],
            [
              ~c"-kernel",
              ~c"inet_dist_use_interface",
              ~c"{127,0,0,1}",
              ~c"logger_level",
              ~c"error"
            ],
            [~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false"],
            args
          ]
          |> Enum.concat()
      })

    ExUnit.Callbacks.on_exit(fn -> stop(peer, node) end)
    {:module, @module} = Cluster.call(node, :code, :load_file, [@module])
    node
  end

  @doc "Starts its system."
  @spec run(node()) :: pid()
  def run(node) do
    :ok = Cluster.call(node, :application, :start, [:switch])
    Cluster.call(node, :erlang, :whereis, [@module])
  end

  @doc "A repaired version of its module, as the file of an archive."
  @spec repaired(String.t()) :: {Path.t(), binary()}
  def repaired(vsn \\ "1.0.0"), do: {"switch-#{vsn}/ebin/#{@module}.beam", server("2")}

  @doc "Where it has its module."
  @spec beam(node(), String.t()) :: Path.t()
  def beam(node, vsn \\ "1.0.0"),
    do: Path.join(Cluster.home(node), "lib/switch-#{vsn}/ebin/#{@module}.beam")

  # Both ways.
  defp server(version) do
    Servers.server(
      @module,
      version,
      "case OldVsn of {down, _} -> {ok, {1, Count}}; _ -> {ok, {VERSION, Count}} end"
    )
  end

  # The supervisor and the application are a module of their own, as they are mostly.
  defp install(node, vsn) do
    ebin = Path.dirname(beam(node, vsn))
    File.mkdir_p!(ebin)
    File.write!(beam(node, vsn), server("1"))
    File.write!(Path.join(ebin, "hot_patch_test_switch_sup.beam"), supervisor())

    properties = [
      vsn: String.to_charlist(vsn),
      modules: [@module, :hot_patch_test_switch_sup],
      applications: [:kernel, :stdlib],
      mod: {:hot_patch_test_switch_sup, []}
    ]

    resource = :io_lib.format("~tp.~n", [{:application, :switch, properties}])
    File.write!(Path.join(ebin, "switch.app"), resource)
  end

  defp supervisor do
    Builds.erlang("""
    -module(hot_patch_test_switch_sup).
    -export([start/2, stop/1, init/1]).
    start(_, _) -> supervisor:start_link(hot_patch_test_switch_sup, []).
    stop(_) -> ok.
    init([]) -> {ok, {#{"\#{}"}, [#{"\#{id => switch, modules => [#{@module}]"},
        start => {gen_server, start_link, [{local, #{@module}}, #{@module}, 0, []]}}]}}.
    """)
  end

  defp stop(peer, node) do
    :peer.stop(peer)
    File.rm_rf!(Cluster.home(node))
  catch
    :exit, _ -> File.rm_rf!(Cluster.home(node))
  end
end
