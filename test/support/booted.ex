defmodule HotPatch.Test.Booted do
  @moduledoc false
  # A node of a release with two small applications, shop and store, as its boot script starts it:
  # in embedded mode, every module loaded by name before anything runs.

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NodeTag

  @enforce_keys [:node, :home]
  defstruct [:node, :home, :peer]

  @type t :: %__MODULE__{node: node(), home: Path.t(), peer: pid() | nil}

  @version "1.0.0"

  @doc "Installs the release with these modules of the shop; `start/1` boots it."
  @spec install([{atom(), binary()}]) :: t()
  def install(modules) do
    node = :"booted_#{System.unique_integer([:positive])}_#{System.pid()}@127.0.0.1"
    home = Cluster.home(node)
    HotPatch.Test.Folders.remove_on_exit(home)
    put(home, :shop, modules)
    put(home, :store, [{:hot_patch_test_store, Builds.versioned(:hot_patch_test_store, 1)}])
    boot_script(home)
    %__MODULE__{node: node, home: home}
  end

  @doc "Boots it; it ends with the calling test."
  @spec start(t()) :: t()
  def start(%__MODULE__{node: node, home: home} = booted) do
    NodeTag.check!()
    [name, _host] = node |> Atom.to_string() |> String.split("@")

    {:ok, peer, ^node} =
      :peer.start(%{
        name: String.to_atom(name),
        host: ~c"127.0.0.1",
        longnames: true,
        wait_boot: 120_000,
        env: [{~c"RELEASE_ROOT", String.to_charlist(home)}],
        args: args(home)
      })

    ExUnit.Callbacks.on_exit(fn -> stop(%{booted | peer: peer}) end)
    %{booted | peer: peer}
  end

  @doc "Ends it."
  @spec stop(t()) :: t()
  def stop(%__MODULE__{peer: peer} = booted) do
    :peer.stop(peer)
    booted
  catch
    :exit, _ended_already -> booted
  end

  @doc "The folder with its applications, as a build to make patches from."
  @spec lib(t()) :: Path.t()
  def lib(%__MODULE__{home: home}), do: Path.join(home, "lib")

  @doc "The ebin folder of one of its applications."
  @spec ebin(t() | Path.t(), atom()) :: Path.t()
  def ebin(%__MODULE__{home: home}, application), do: ebin(home, application)
  def ebin(home, application), do: Path.join([home, "lib", "#{application}-#{@version}", "ebin"])

  defp put(home, application, modules) do
    ebin = ebin(home, application)
    File.mkdir_p!(ebin)
    for {name, bytes} <- modules, do: File.write!(Path.join(ebin, "#{name}.beam"), bytes)

    properties = [
      description: ~c"for tests",
      vsn: String.to_charlist(@version),
      modules: Keyword.keys(modules),
      registered: [],
      applications: [:kernel, :stdlib, :hot_patch]
    ]

    resource = :io_lib.format("~tp.~n", [{:application, application, properties}])
    File.write!(Path.join(ebin, "#{application}.app"), resource)
  end

  defp boot_script(home) do
    needed = needed([:kernel, :stdlib, :hot_patch], [])

    applications =
      for(name <- needed, do: {name, Application.spec(name, :vsn)}) ++
        for name <- [:shop, :store], do: {name, String.to_charlist(@version)}

    erts = :erlang.system_info(:version)
    release = {:release, {~c"booted", ~c"1.0.0"}, {:erts, erts}, applications}
    rel = Path.join(home, "booted")
    File.write!(rel <> ".rel", :io_lib.format("~tp.~n", [release]))
    path = for name <- [:shop, :store], do: home |> ebin(name) |> String.to_charlist()

    options = [:silent, :local, :no_dot_erlang, :no_warn_sasl, {:path, path ++ :code.get_path()}]
    # The library does not depend on sasl, which has this.
    {:ok, _module, _warnings} =
      apply(:systools, :make_script, [String.to_charlist(rel) | [options]])
  end

  # Each behind those that it needs.
  defp needed([], done), do: Enum.reverse(done)

  defp needed([name | rest], done) do
    _ = Application.load(name)
    first = Application.spec(name, :applications) -- done

    cond do
      name in done -> needed(rest, done)
      first == [] -> needed(rest, [name | done])
      true -> needed(first ++ [name | rest], done)
    end
  end

  defp args(home) do
    Enum.map(
      ["-boot", Path.join(home, "booted"), "-mode", "embedded"] ++
        ["-setcookie", Atom.to_string(Node.get_cookie())] ++
        ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "logger_level", "error"] ++
        ["-hot_patch", "data_dir", ~s(<<"#{Path.join(home, "data")}">>)],
      &String.to_charlist/1
    )
  end
end
