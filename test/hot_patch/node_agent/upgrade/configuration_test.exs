defmodule HotPatch.NodeAgent.Upgrade.ConfigurationTest do
  use ExUnit.Case, async: false

  import Bitwise
  import HotPatch.Test.Until

  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.Upgrade.Configuration
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.OwnOptions
  alias HotPatch.Store

  @moduletag :tmp_dir

  @sys_config """
  [{elixir, [{config_provider_init, \#{providers => [{'Elixir.Config.Reader',
    {{system, <<"RELEASE_ROOT">>, <<"/releases/1.1.0/runtime.exs">>}, [{env, prod}, {target, host}]}}]}}]}].
  """

  # Tells what others could read while it is there.
  @runtime """
  import Config
  folder = Path.dirname(System.fetch_env!("RELEASE_ROOT"))
  paths = [folder | Path.wildcard(folder <> "/**", match_dot: true)]
  config :shop, seen: for(path <- paths, do: {Path.relative_to(path, folder), File.lstat!(path).mode})
  """

  defp entry(path, bytes) do
    %Entry{
      path: path,
      kind: :other,
      size: byte_size(bytes),
      bytes: bytes,
      crc32: :erlang.crc32(bytes),
      sha256: :crypto.hash(:sha256, bytes)
    }
  end

  defp course(root) do
    for folder <- ["lib", "releases/1.0.0"], do: File.mkdir_p!(Path.join(root, folder))
    {from, to} = {{"shop", "1.0.0"}, {"shop", "1.1.0"}}
    %Course{from: from, to: to, erts: "", root: root, applications: []}
  end

  defp entries(runtime) do
    [
      entry("releases/1.1.0/sys.config", @sys_config),
      entry("releases/1.1.0/runtime.exs", runtime)
    ]
  end

  defp evaluated(root, runtime, within \\ 60_000) do
    with {:ok, %{new: %{"shop" => shop}}} <-
           Configuration.evaluate(course(root), entries("import Config\n" <> runtime), within) do
      for {key, value} <- shop, into: %{}, do: {key, :erlang.binary_to_term(value)}
    end
  end

  # How many of those are gone that have written their numbers down.
  defp gone(root) do
    for {name, pid} <- numbers(root) do
      until(fn -> not alive?(pid) end, "#{name} is gone")
    end
    |> length()
  end

  # A file is there before its number is in it.
  defp numbers(root) do
    for file <- Path.wildcard(root <> "/*.pid"),
        {number, "\n"} <- [Integer.parse(File.read!(file))],
        do: {Path.basename(file), number}
  end

  # One that nobody has asked for its end yet is none, either.
  defp alive?(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, stat} -> not (stat =~ ~r/\) Z /)
      {:error, _gone} -> false
    end
  end

  defp left, do: for(name <- File.ls!(Store.directory()), name =~ ~r/^upgrade\./, do: name)

  @writes_pids """
  root = System.fetch_env!("SHOP_ROOT")
  File.write!(Path.join(root, "vm.pid"), System.pid() <> "\n")
  {_, 0} = System.cmd("sh", ["-c", "sleep 300 >/dev/null 2>&1 & echo $! > \#{root}/child.pid"], stderr_to_stdout: true)
  """

  describe "the VM that evaluates" do
    setup context do
      System.put_env("SHOP_ROOT", context.tmp_dir)
      on_exit(fn -> System.delete_env("SHOP_ROOT") end)
      :ok = Store.make_folder(Store.directory())
    end

    test "is no node, cannot become one, and has what a boot has", %{tmp_dir: root} do
      System.put_env("SHOP_SECRET", "hunter2")
      on_exit(fn -> System.delete_env("SHOP_SECRET") end)

      assert %{
               "alive" => false,
               "node" => :nonode@nohost,
               "start" => :error,
               "secret" => "hunter2"
             } =
               evaluated(root, """
               {start, _why} = Node.start(:"shop_evaluated@127.0.0.1")
               config :shop, alive: Node.alive?(), node: node(), start: start, secret: System.get_env("SHOP_SECRET")
               """)
    end

    test "ends with its time, and what it has started with it", %{tmp_dir: root} do
      # It has to have come so far within it; how long that takes is up to the machine.
      {:error, text} =
        Enum.find_value([4_000, 16_000, 64_000], fn within ->
          found = evaluated(root, @writes_pids <> "receive do :never -> :ok end", within)
          if length(numbers(root)) == 2, do: found
        end)

      assert text =~ ~r/was not evaluated within (4|16|64)000 ms/
      assert gone(root) == 2
      assert left() == []
    end

    test "leaves nothing that it has started, though it ends well", %{tmp_dir: root} do
      assert %{"well" => true} = evaluated(root, @writes_pids <> "config :shop, well: true")
      assert gone(root) == 2
      assert left() == []
    end

    test "ends when nobody waits for it any more", %{tmp_dir: root} do
      code = @writes_pids <> "receive do :never -> :ok end"
      {asker, monitor} = spawn_monitor(fn -> evaluated(root, code) end)
      until(fn -> length(numbers(root)) == 2 end, "it runs")
      Process.exit(asker, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^asker, :killed}
      assert gone(root) == 2
      until(fn -> left() == [] end, "its folder is gone")
    end

    test "takes so much memory and no more", %{tmp_dir: root} do
      code =
        "Enum.reduce(1..100_000, [], fn n, all -> [:binary.copy(<<n>>, 1_000_000) | all] end)"

      assert {:error, text} = evaluated(root, code)
      assert text =~ "the VM that evaluates configurations"
      assert left() == []
    end
  end

  test "what is made of the release's folder is of that in which it will lie", %{tmp_dir: root} do
    assert %{"dir" => dir, "deep" => deep, "chars" => chars, "mixed" => [1 | :a]} =
             evaluated(root, """
             root = System.fetch_env!("RELEASE_ROOT")
             dir = Path.join(root, "data")
             config :shop, dir: dir, chars: String.to_charlist(dir), deep: %{at: {:file, [dir, "x:" <> dir]}}, mixed: [1 | :a]
             """)

    data = Path.join(root, "data")

    assert {dir, chars, deep} ==
             {data, String.to_charlist(data), %{at: {:file, [data, "x:" <> data]}}}
  end

  describe "options of HotPatch itself" do
    defp own(options) do
      own = for {key, value} <- options, into: %{}, do: {"#{key}", :erlang.term_to_binary(value)}
      OwnOptions.check(%{"hot_patch" => own}, "1.1.0")
    end

    test "may not move what a start has to find", %{tmp_dir: elsewhere} do
      here = Path.dirname(Store.directory())
      assert own(data_dir: here, peers: [:"a@10.0.0.1"]) == :ok
      assert own(data_dir: String.to_charlist(here <> "/.")) == :ok

      assert {:error, text} = own(data_dir: elsewhere)
      assert text =~ Path.join(elsewhere, "#{node()}") and text =~ Store.directory()
      assert text =~ "stop the node, move that folder"
      # None, and a wrong one, are the default, which is elsewhere too.
      for options <- [[], [data_dir: 7]], do: assert({:error, _text} = own(options))
    end

    test "may not say what patches are bound to" do
      data = {:data_dir, Path.dirname(Store.directory())}
      assert {:error, text} = own([data, release: {"shop", "7"}])
      assert text =~ ~s(release: {"shop", "7"}) and text =~ "remove it there"
    end
  end

  test "what a release is configured by is for nobody else to read, and does not stay", context do
    :ok = Store.make_folder(Store.directory())
    before = File.ls!(Store.directory())

    assert {:ok, %{new: %{"shop" => %{"seen" => seen}}}} =
             Configuration.evaluate(course(context.tmp_dir), entries(@runtime))

    seen = :erlang.binary_to_term(seen)

    paths = for {path, _mode} <- seen, do: path
    assert ~w(request answer root/releases/1.1.0/sys.config) -- paths == []

    for {path, mode} <- seen, (mode &&& 0o170000) != 0o120000 do
      wanted = if (mode &&& 0o170000) == 0o040000, do: 0o700, else: 0o600
      assert {path, mode &&& 0o7777} == {path, wanted}
    end

    assert File.ls!(Store.directory()) -- before == []
  end

  test "what one that was killed has left goes with the next start, and nothing that it led to",
       context do
    folder = Store.temporary(Path.join(context.tmp_dir, "data/upgrade"))
    kept = Path.join(context.tmp_dir, "lib/own." <> String.duplicate("A", 16) <> ".tmp")
    for path <- [kept, Path.join(folder, "root/x")], do: File.mkdir_p!(Path.dirname(path))
    for path <- [kept, Path.join(folder, "root/x")], do: File.write!(path, "x")
    :ok = File.ln_s(Path.dirname(kept), Path.join(folder, "root/lib"))
    :ok = File.ln_s(Path.dirname(kept), Path.join(context.tmp_dir, "data/lib"))
    assert :ok = Store.remove_all_temporaries(Path.join(context.tmp_dir, "data"))
    refute File.exists?(folder)
    assert File.read!(kept) == "x"
  end
end
