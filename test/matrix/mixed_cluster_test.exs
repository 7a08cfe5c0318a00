defmodule HotPatch.MixedClusterTest do
  # A cluster of all versions that are supported: one node on this system, and one in each of the
  # folders that HOT_PATCH_MATRIX names ("27=/folder 29=/folder"). script/matrix makes them.
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Report
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :matrix
  @moduletag timeout: 300_000
  # In each system.
  @home "/tmp/hot_patch_matrix"
  @path "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

  setup_all do
    systems = systems()
    nodes = Map.new(systems, fn {otp, folder} -> {otp, start(otp, folder)} end)
    on_exit(fn -> Enum.each(nodes, &stop/1) end)

    names = Enum.sort(for {_otp, {_port, node}} <- nodes, do: node)
    for node <- names, do: until(fn -> Node.connect(node) end, "#{node} is up")
    Cluster.connect(names)
    Enum.each(names, &prepare/1)
    %{systems: systems, nodes: Map.new(nodes, fn {otp, {_port, node}} -> {otp, node} end)}
  end

  test "a module of a newer version is refused by the older ones, one of the oldest goes everywhere",
       context do
    %{systems: systems, nodes: nodes} = context

    assert Map.new(hot_patch(nodes["25"], :nodes, []), &{&1.node, &1.otp}) ==
             Map.new(nodes, fn {otp, node} -> {node, otp} end)

    before = snapshot(nodes)

    newer = patched(systems["29"])

    for {otp, coordinator} <- nodes do
      check = refused(coordinator, newer, "newer#{otp}")
      assert statuses(check, nodes["29"]) == [:ok]

      for old <- ["25", "27"], %{node: node, files: files} <- check.nodes, node == nodes[old] do
        assert Enum.any?(files, &(&1.status == :error and &1.reason =~ "OTP"))
      end

      assert snapshot(nodes) == before
    end

    # OTP 29 no longer knows the instructions by which 25 takes binaries apart.
    [numbering] = Path.wildcard("#{@home}25/exchange-1.0.0/ebin/Elixir.Exchange.Numbering.beam")
    file = {"exchange-1.0.0/ebin/" <> Path.basename(numbering), File.read!(numbering)}
    check = refused(nodes["25"], [file], "too_old")
    assert statuses(check, nodes["29"]) == [:error]
    assert snapshot(nodes) == before

    older = patched(systems["25"])
    {:ok, patch} = upload(nodes["29"], older, "older")
    assert {:ok, %Report{status: :ok}} = hot_patch(nodes["29"], :apply, [patch.id])

    for {_otp, node} <- nodes, {path, bytes} <- older do
      module = path |> Path.basename(".beam") |> String.to_atom()
      assert running(node, module) == :code.module_md5(bytes)
    end

    assert {:ok, %Report{status: :ok}} = hot_patch(nodes["27"], :rollback, [patch.id])
    assert snapshot(nodes) == before
  end

  # The check of a patch that no node takes, because one cannot.
  defp refused(coordinator, files, name) do
    {:ok, patch} = upload(coordinator, files, name)
    assert {:ok, %Report{status: :error} = check} = hot_patch(coordinator, :check, [patch.id])
    assert {:error, %Error{reason: :refused} = error} = hot_patch(coordinator, :apply, [patch.id])
    assert Exception.message(error) =~ patch.id
    :ok = hot_patch(coordinator, :delete, [patch.id])
    check
  end

  defp statuses(check, node) do
    for(%{node: ^node, files: files} <- check.nodes, file <- files, do: file.status)
    |> Enum.uniq()
  end

  defp systems do
    text = System.fetch_env!("HOT_PATCH_MATRIX")
    others = for part <- String.split(text), do: part |> String.split("=") |> List.to_tuple()
    Map.new([{"25", "/"} | others])
  end

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)
  defp upload(node, files, name), do: hot_patch(node, :upload, [zip(files), [name: name]])

  # The exchange as it was shipped, compiled by each system for itself.
  defp start(otp, folder) do
    home = @home <> otp
    File.rm_rf!(Path.join(folder, home))
    shipped = compile(folder, "shipped", home <> "/exchange-1.0.0/ebin")

    File.cp!(
      Path.join(Builds.ebin("shipped"), "exchange.app"),
      Path.join(shipped, "exchange.app")
    )

    node = :"hot_patch_matrix_#{otp}_#{System.pid()}@127.0.0.1"
    {open(folder, ["elixir" | arguments(otp, folder, node)]), node}
  end

  defp arguments(otp, folder, node) do
    home = @home <> otp

    erl =
      "-kernel inet_dist_use_interface {127,0,0,1} prevent_overlapping_partitions false " <>
        "-exchange lines_per_trunk 100000 " <>
        "-hot_patch data_dir <<\"#{home}/data\">> release {<<\"exchange\">>,<<\"1.0.0\">>}"

    [
      ["--name", "#{node}", "--cookie", "#{Node.get_cookie()}", "--erl", erl, "--no-halt"],
      ["-pa", "#{tree(folder)}/_build/test/lib/hot_patch/ebin"],
      ["-pa", "#{home}/exchange-1.0.0/ebin"]
    ]
    |> Enum.concat()
  end

  defp prepare(node) do
    :ok = until(fn -> started(node) end, "HotPatch runs on #{node}")
    modules = Cluster.call(node, Application, :spec, [:exchange, :modules])
    :ok = Cluster.call(node, :code, :ensure_modules_loaded, [modules])
  end

  # The node may still be booting.
  defp started(node) do
    {:ok, _} = Cluster.call(node, Application, :ensure_all_started, [:logger])
    :ok = Cluster.call(node, Logger, :configure, [[level: :none]])
    {:ok, _} = Cluster.call(node, Application, :ensure_all_started, [:hot_patch])
    {:ok, _} = Cluster.call(node, Application, :ensure_all_started, [:exchange])
    :ok
  rescue
    _ -> nil
  catch
    _, _ -> nil
  end

  defp stop({_otp, {port, node}}) do
    # It cannot answer this.
    _ = :erpc.cast(node, :erlang, :halt, [0])
    until(fn -> Port.info(port) == nil end, "#{node} has ended")
  catch
    _, _ -> :ok
  end

  # The repaired modules, compiled by a system's own compiler. Not the meter: it is a loop written
  # by hand, whose old code would stand in the way of the rollback until its next tick.
  defp patched(folder) do
    out = compile(folder, "patched", @home <> "_patched")

    for {path, _} <- Builds.changed("patched"), not String.contains?(path, "Meter") do
      {path, File.read!(Path.join(out, Path.basename(path)))}
    end
  end

  defp compile(folder, build, out) do
    File.rm_rf!(Path.join(folder, out))
    File.mkdir_p!(Path.join(folder, out))
    shell = "elixirc -o #{out} lib/*.ex lib/*/*.ex builds/#{build}/*.ex"
    port = open(folder, ["sh", "-c", "cd #{tree(folder)}/demo/exchange && #{shell}"])
    assert_receive {^port, {:exit_status, 0}}, 120_000
    Path.join(folder, out)
  end

  # Where the system has this tree.
  defp tree("/"), do: File.cwd!()
  defp tree(_folder), do: "/hot_patch"

  # Processes of their own, which end with the first of them.
  defp open(folder, command) do
    arguments =
      ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc=#{Path.join(folder, "proc")}"] ++
        ["chroot", folder, "/usr/bin/env", "LC_ALL=C.UTF-8", "HOME=/root"] ++
        ["PATH=#{@path}" | command]

    Port.open(
      {:spawn_executable, System.find_executable("unshare")},
      [:binary, :exit_status, :stderr_to_stdout, args: arguments]
    )
  end

  # All that a refusal must leave alone.
  defp snapshot(nodes) do
    for {otp, node} <- nodes, into: %{} do
      modules = Cluster.call(node, Application, :spec, [:exchange, :modules])
      {otp, for(module <- modules, do: {module, running(node, module), file(otp, node, module)})}
    end
  end

  defp running(node, module), do: Cluster.call(node, :erlang, :get_module_info, [module, :md5])

  defp file(otp, node, module) do
    path = "#{@home}#{otp}/exchange-1.0.0/ebin/#{module}.beam"
    {:ok, bytes} = Cluster.call(node, :file, :read_file, [path])
    :crypto.hash(:md5, bytes)
  end
end
