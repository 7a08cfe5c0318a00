defmodule HotPatch.Host.ConfigTest do
  # Not async: it changes what is configured for all.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog
  import HotPatch.Test.Archives
  import HotPatch.Test.Folders
  import HotPatch.Test.Settings
  import HotPatch.Test.Until

  alias HotPatch.Archive
  alias HotPatch.Bridge.OSProcess.Server
  alias HotPatch.Error
  alias HotPatch.Host.Config
  alias HotPatch.Host.Keys
  alias HotPatch.Host.Trust
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Hosts
  alias HotPatch.Test.Operator

  @defaults %Config{}
  @improper [:a | :b]
  @key Base.encode64(:binary.copy(<<7>>, 32))

  # By option: values that make no sense, and what counts in their place.
  @nonsense [
    data_dir: {[:tmp, "", [], 1, {"/tmp"}, [~c"a", "b"], "a\0b", [-1]], nil},
    peers: {[:a@b, ["a@b"], "a@b", [:a], [:"@b"], [:a@], [:a@b, 1], @improper, %{}], []},
    release:
      {[
         "x",
         {"x"},
         {"x", 1},
         {:x, "1"},
         {"", "1"},
         {"x", ""},
         {"a\e[2J", "1"},
         [],
         {"x", "1", 2}
       ], nil},
    roles: {[:media, ["media"], [nil], [true], @improper, "media", 1], []},
    hooks: {[HotPatch.Hook, ["Hook"], [{Mod, 1}], @improper], []},
    live_view: {["true", 1, :on, []], true},
    wrappers: {[{Mod, [:a]}, [Mod], [{Mod, :a}], [{"Mod", [:a]}], [{Mod, [:a | :b]}], Mod], []},
    health: {[Mod, {Mod, :f}, {Mod, :f, 1}, {"Mod", :f, []}, {Mod, :f, @improper}, "f"], nil},
    journal_entries: {[0, -1, "1", 1.5, :all, :infinity], 10_000},
    max_kept_bytes: {[0, -1, "1", 1.5, :infinity, {1}], 524_288_000},
    max_archive_bytes: {[0, "1", :infinity, 0x1_0000_0000], 10_485_760},
    max_release_bytes: {[0, "1", :infinity, 0x1_0000_0000], 104_857_600},
    max_unpacked_bytes: {[0, 0x1_0000_0000], 104_857_600},
    max_entries: {[0, 0x1_0000_0000], 10_000},
    max_name_bytes: {[0, 0x1_0000_0000], 1_024},
    max_module_atoms: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 65_536},
    max_atoms: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 200_000},
    max_module_functions: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 65_536},
    max_functions: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 200_000},
    max_literal_words: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 16_777_216},
    max_literal_depth: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 1_000},
    max_added_literals: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 10_000},
    max_module_memory: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 268_435_456},
    max_memory: {[0, -1, "1", :infinity, 1.5, 0x1_0000_0000], 536_870_912},
    loader_vm: {["on", true, false, 1, []], :on},
    bridge: {["port", :ports, HotPatch, 1], :port},
    kept_releases: {[0, 1, -1, 2.5, "3", :all, 0x1_0000_0000], nil},
    comes_back: {["true", 1, :yes, []], nil},
    drain_timeout: {[0, -1, 1.5, "30000", :infinity, 0x1_0000_0000], 30_000},
    port_timeout: {[0, -1, 1.5, "60000", :infinity, {1}, 0x1_0000_0000], 60_000},
    port_memory: {[0, -1, 1.5, "1", :all, {1}, 1, 1_000_000, 0x1_0000_0000_0000_0000], nil},
    # Whoever mistypes these finds the gate shut, not open.
    require_manifest: {["true", "false", 1, 0, :yes, []], true},
    require_signature: {["true", "false", 1, 0, :no, [true]], true},
    trusted_keys: {[:a, @key, ["no key"], [@key, "/no/such/file.pub"], [1], @improper, [""]], []}
  ]

  # And values that are taken, with what they are taken for.
  @sense [
    data_dir: [
      {"/a b/[c]", "/a b/[c]"},
      {~c"/var/lib/x", "/var/lib/x"},
      {"/a/../b", "/b"},
      {nil, nil}
    ],
    peers: [{[], []}, {[:a@b, :"c@10.0.0.1"], [:a@b, :"c@10.0.0.1"]}, {nil, []}],
    release: [{{"a", "1"}, {"a", "1"}}, {{~c"a", ~c"1"}, {"a", "1"}}],
    roles: [{[:a, B], [:a, B]}],
    wrappers: [{[{Mod, []}, {Mod, [:a, "b"]}], [{Mod, []}, {Mod, [:a, "b"]}]}],
    health: [{{Mod, :f, [1]}, {Mod, :f, [1]}}],
    journal_entries: [{1, 1}],
    max_kept_bytes: [{1, 1}, {10_000_000_000, 10_000_000_000}],
    max_atoms: [{1, 1}, {1_000_000, 1_000_000}],
    live_view: [{false, false}, {true, true}, {nil, true}],
    kept_releases: [{2, 2}, {nil, nil}],
    comes_back: [{true, true}, {false, false}, {nil, nil}],
    loader_vm: [{:off, :off}, {:on, :on}, {nil, :on}],
    bridge: [{:nif, :nif}, {nil, :port}],
    port_memory: [{:infinity, :infinity}, {33_554_432, 33_554_432}],
    require_signature: [{true, true}, {false, false}, {nil, false}],
    trusted_keys: [
      {[@key], [%{public: :binary.copy(<<7>>, 32), name: nil}]},
      {["hot_patch-ed25519 #{@key} alice"], [%{public: :binary.copy(<<7>>, 32), name: "alice"}]}
    ],
    console: [{[port: 1], [port: 1]}, {false, false}]
  ]

  for {option, {values, counts}} <- @nonsense do
    test "#{option}: what makes no sense is named, and the default counts" do
      option = unquote(option)

      for value <- unquote(Macro.escape(values)) do
        assert {config, [{^option, text}]} = Config.new([{option, value}])
        assert Map.fetch!(config, option) == unquote(Macro.escape(counts))
        assert Map.delete(config, option) == Map.delete(@defaults, option)
        assert text =~ "config :hot_patch, #{option}: "
        assert String.printable?(text)
      end
    end
  end

  for {option, pairs} <- @sense do
    test "#{option}: what makes sense is taken" do
      for {value, taken} <- unquote(Macro.escape(pairs)) do
        assert {config, []} = Config.new([{unquote(option), value}])
        assert Map.fetch!(config, unquote(option)) == taken
      end
    end
  end

  test "every option has been tried" do
    tried = Keyword.keys(@nonsense) ++ Keyword.keys(@sense)
    assert Enum.sort(Map.keys(@defaults) -- [:__struct__]) == tried |> Enum.uniq() |> Enum.sort()
  end

  test "an option that is not known is named, with the one that was meant" do
    assert {@defaults, [{:max_kept_byte, text}]} = Config.new(max_kept_byte: 1)
    assert text =~ "max_kept_byte: is no option of HotPatch; did you mean max_kept_bytes?"
    assert {@defaults, [{:colour, text}]} = Config.new(colour: 1)
    assert text == "config :hot_patch, colour: is no option of HotPatch"
  end

  test "several that are wrong are all named, and what is right among them counts" do
    assert {config, warnings} = Config.new(peers: "x", roles: [:a], release: "y", colour: 1)
    assert Keyword.keys(warnings) == [:peers, :release, :colour]
    assert {config.peers, config.roles, config.release} == {[], [:a], nil}
  end

  test "a key file is read at the start, and a public key is no secret" do
    path = Path.join(HotPatch.Test.Builds.tmp(), "config-#{System.unique_integer([:positive])}")
    on_exit(fn -> Enum.each([path, path <> ".pub"], &File.rm/1) end)
    {:ok, key} = Keys.generate(path, "alice")
    assert {%{trusted_keys: [^key]}, []} = Config.new(trusted_keys: [path <> ".pub"])
    assert {%{trusted_keys: []}, [{_, text}]} = Config.new(trusted_keys: [path])
    assert text =~ "holds no public key; no key is trusted"
  end

  test "it is logged once, by name, and shown in nodes/0, its table, and its JSON" do
    log = capture_log(fn -> configure(:max_kept_bytes, "much") end)
    assert log =~ ~s(config :hot_patch, max_kept_bytes: must be a number from 1)
    assert log =~ ~s(got: "much"; the default 524288000 counts)
    assert [info] = HotPatch.nodes()
    assert [text] = info.warnings
    assert text =~ "max_kept_bytes"
    assert inspect(info) =~ "1 warning"
    assert to_string(info) =~ text
    {:ok, json} = HotPatch.to_json(HotPatch.nodes())
    assert json =~ "max_kept_bytes: must be a number"
  end

  test "of a console that is wrong nothing is said but what is wrong" do
    configure(:console, port: 0, accounts: [%{name: "alice", role: :admin, password: "secret"}])
    refute inspect(Config.current()) =~ "secret"
    assert :ignore == HotPatch.Console.start_link()
    assert [text] = Config.warnings()
    assert text =~ "the console is off: config :hot_patch, console: accounts number 1"
    refute text =~ "secret"
  end

  test "keys that are wrong open nothing" do
    configure(:require_signature, true)
    configure(:trusted_keys, ["no key"])
    {:ok, composition} = Archive.read(zip([{"a-1/priv/x", "x"}]), "a")
    assert {:error, %Error{reason: :bad_signature}} = Trust.check(composition, composition.files)
    assert Config.warning(:trusted_keys) =~ ~s("no key" is neither a key nor a file)
  end

  test "what the program may take counts from the next request on, wrong or right" do
    server = start_supervised!({Server, []})
    request = {:request, "finding_names", [], <<131, 106>>, "names"}
    configure(:port_timeout, -1)
    assert {:ok, _names} = GenServer.call(server, request)
    configure(:port_memory, "much")
    Process.exit(server, :kill)
    until(fn -> Process.whereis(Server) not in [nil, server] end, "it is started again")
    assert {:ok, _composition} = Archive.read(zip([{"a-1/priv/x", "x"}]), "a")
  end

  @all_wrong [
    peers: [~c"a@b"],
    roles: :media,
    hooks: "x",
    wrappers: [:x],
    health: :x,
    journal_entries: "x",
    max_kept_bytes: "1",
    max_archive_bytes: -1,
    max_entries: :x,
    max_unpacked_bytes: 1.5,
    max_name_bytes: [],
    require_manifest: :x,
    trusted_keys: :x,
    bridge: :x,
    port_timeout: :x,
    port_memory: :x,
    console: [port: :x],
    speed: :fast
  ]

  @tag :starts_nodes
  test "a node where all of it is wrong starts, says so, and is patched" do
    [host] = Hosts.start(1, @all_wrong, 0)
    [info] = Operator.hot_patch(host.node, :nodes, [])

    for {option, _value} <- @all_wrong,
        do: assert(Enum.any?(info.warnings, &(&1 =~ "#{option}")), "#{option} is not named")

    # But for patches without a manifest, which the typing error keeps out.
    assert {:error, %Error{reason: :no_manifest}} =
             Operator.hot_patch(host.node, :upload, [zip([{"exchange-1.0.0/priv/x", "x"}])])

    :ok = configure_on(host.node, require_manifest: false)
    patch = Operator.upload!(host.node, HotPatch.Test.Builds.changed("patched"))
    assert {:ok, %{status: :ok}} = Operator.hot_patch(host.node, :apply, [patch.id])
  end

  @tag :starts_nodes
  test "a data directory and a release that are wrong are no obstacle either" do
    [host] = Hosts.start(1, [data_dir: :tmp, release: "x"], 0)
    [info] = Operator.hot_patch(host.node, :nodes, [])
    data = Cluster.call(host.node, HotPatch.Store, :directory, [])
    remove_on_exit(data)
    assert Enum.any?(info.warnings, &(&1 =~ "data_dir: must be a path, got: :tmp"))
    assert Enum.any?(info.warnings, &(&1 =~ ~s(release: must be {"name", "version"}, got: "x")))
    patch = Operator.upload!(host.node, HotPatch.Test.Builds.changed("patched"))
    assert patch.release == info.release
  end
end
