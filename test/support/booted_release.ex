defmodule HotPatch.Test.BootedRelease do
  @moduledoc false
  # A node that boots as a release does: by a boot script of its own, embedded, with a folder of
  # releases, and with its applications below one root.

  alias HotPatch.Support.Folder
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NodeTag

  @version "1.0.0"
  @applications [:kernel, :stdlib, :compiler, :elixir, :logger, :crypto, :asn1, :public_key]

  @doc "Makes a release of the exchange and HotPatch; gives its root."
  @spec make() :: Path.t()
  def make do
    root = Path.join([Builds.tmp(), "releases", "r#{System.unique_integer([:positive])}"])
    File.mkdir_p!(Path.join(root, "lib/exchange-1.0.0"))
    File.cp_r!(Builds.ebin("shipped"), Path.join(root, "lib/exchange-1.0.0/ebin"))
    folder = Path.join([root, "releases", @version])
    File.mkdir_p!(folder)
    for name <- ~w(bin erts-13.1/bin), do: File.mkdir_p!(Path.join(root, name))
    for {path, text} <- files(), do: File.write!(Path.join(root, path), text)
    File.write!(Path.join(folder, "exchange.rel"), :io_lib.format("~tp.~n", [resource(root)]))
    name = folder |> Path.join("exchange") |> String.to_charlist()
    path = [String.to_charlist(Path.join(root, "lib/exchange-1.0.0/ebin")) | :code.get_path()]
    options = [:local, :silent, {:path, path}, {:outdir, String.to_charlist(folder)}]
    # Of sasl, which nothing here depends on.
    {:ok, _, _} = apply(:systools, :make_script, [name, options])
    File.rename!(Path.join(folder, "exchange.boot"), Path.join(folder, "start.boot"))
    root
  end

  @doc """
  The same so that `bin/exchange start` starts it, wherever it is copied to; as the release scripts of Mix, it takes its
  name and cookie from the environment.
  """
  @spec startable() :: Path.t()
  def startable do
    root = make()
    lib = Path.join(root, "lib")

    for application <- @applications ++ [:hot_patch] do
      name = "#{application}-#{version(application)}"
      File.ln_s!(Application.app_dir(application), Path.join(lib, name))
    end

    folder = Path.join([root, "releases", @version])
    name = folder |> Path.join("exchange") |> String.to_charlist()
    path = for one <- Folder.folders(lib), do: one |> Path.join("ebin") |> String.to_charlist()
    variables = [{~c"RELEASE_LIB", String.to_charlist(lib)}]

    options = [
      :silent,
      :no_module_tests,
      path: path,
      variables: variables,
      outdir: String.to_charlist(folder)
    ]

    {:ok, _, _} = apply(:systools, :make_script, [name, options])
    File.rename!(Path.join(folder, "exchange.boot"), Path.join(folder, "start.boot"))

    script = Path.join(root, "bin/exchange")
    File.write!(script, script())
    File.chmod!(script, 0o755)
    root
  end

  defp script do
    """
    #!/bin/sh
    set -e
    [ "$1" = start ]
    root=$(cd "$(dirname "$0")/.." && pwd)
    exec "#{:code.root_dir()}/bin/erl" -noinput -boot "$root/releases/#{@version}/start" \\
      -boot_var RELEASE_LIB "$root/lib" -config "$root/releases/#{@version}/sys" -mode embedded \\
      -name "$RELEASE_NODE" -setcookie "$RELEASE_COOKIE" -kernel prevent_overlapping_partitions false
    """
  end

  defp files do
    %{
      "bin/exchange" => "#!/bin/sh",
      "erts-13.1/bin/erl" => "#!/bin/sh",
      "releases/RELEASES" => "[].",
      "releases/COOKIE" => "cookie",
      "releases/start_erl.data" => "13.1 #{@version}",
      "releases/#{@version}/vm.args" => "-sname exchange",
      "releases/#{@version}/env.sh" => "#!/bin/sh",
      "releases/#{@version}/sys.config" => "[{exchange, [{lines_per_trunk, 100000}]}].",
      "releases/#{@version}/runtime.exs" => "import Config"
    }
  end

  defp resource(_root) do
    versions =
      for application <- @applications ++ [:hot_patch, :exchange],
          do: {application, version(application)}

    {:release, {~c"exchange", ~c"1.0.0"}, {:erts, :erlang.system_info(:version)}, versions}
  end

  defp version(:exchange), do: ~c"1.0.0"

  defp version(application) do
    _ = Application.load(application)
    Application.spec(application, :vsn)
  end

  @doc "Starts it, until the calling test ends; `-s` its applications by itself."
  @spec start(Path.t(), keyword()) :: node()
  def start(root, options \\ []) do
    NodeTag.check!()
    name = :"release_#{System.unique_integer([:positive])}_#{System.pid()}"
    folder = Path.join([root, "releases", @version])

    {:ok, peer, node} =
      :peer.start(%{
        name: name,
        host: ~c"127.0.0.1",
        longnames: true,
        wait_boot: 120_000,
        env: [{~c"RELEASE_ROOT", String.to_charlist(root)}],
        args:
          [~c"-boot", String.to_charlist(Path.join(folder, "start"))] ++
            [~c"-config", String.to_charlist(Path.join(folder, "sys"))] ++
            [~c"-mode", ~c"embedded", ~c"-setcookie", Atom.to_charlist(Node.get_cookie())] ++
            [~c"-kernel", ~c"inet_dist_use_interface", ~c"{127,0,0,1}"] ++
            [~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false"] ++
            Keyword.get(options, :args, [])
      })

    ExUnit.Callbacks.on_exit(fn -> stop(peer) end)
    :ok = Cluster.call(node, Logger, :configure, [[level: :none]])
    node
  end

  @doc "Ends it."
  @spec stop(pid()) :: :ok
  def stop(peer) do
    :peer.stop(peer)
  catch
    # The test itself has ended it.
    :exit, _ -> :ok
  end

  @doc "Removes a release."
  @spec remove(Path.t()) :: :ok
  def remove(root) do
    File.rm_rf!(root)
    :ok
  end
end
