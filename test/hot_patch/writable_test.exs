defmodule HotPatch.WritableTest do
  # Disks that cannot take a patch: check, plan and apply say the same of them.
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Store.FreeSpace
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Disks
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.SmallDisk

  @moduletag timeout: 240_000
  @moduletag skip: not Disks.available?()

  @nobody 65_534

  defp start(options \\ []) do
    [machine] = Machine.new(1, options)
    File.mkdir_p!(Path.join(Machine.exchange(machine), "priv"))
    File.write!(Path.join(Machine.exchange(machine), "priv/a.txt"), "a")
    machine = Machine.start(machine)
    on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
    machine
  end

  defp upload(machine, files, name \\ "fix") do
    {:ok, patch} = hot_patch(machine.node, :upload, [zip(files), [name: name]])
    patch.id
  end

  @billing "exchange-1.0.0/ebin/Elixir.Exchange.Billing.beam"

  defp billing, do: Builds.changed("patched", "Billing")
  defp reasons(report), do: for(n <- report.nodes, f <- n.files, do: {f.path, f.status, f.reason})

  # The same status and the same words, and nothing is changed.
  defp assert_refused(machine, id, paths, text) do
    before = exchange_code(machine.node)
    assert {:ok, %{status: :error} = check} = hot_patch(machine.node, :check, [id])
    refused = for {path, :error, reason} <- reasons(check), reason =~ text, do: path
    assert Enum.sort(refused) == Enum.sort(paths)
    assert {:ok, %{status: :error} = plan} = hot_patch(machine.node, :plan, [id])
    assert risk?(hd(plan.nodes), text)
    assert {:error, %Error{reason: :refused} = error} = hot_patch(machine.node, :apply, [id])
    assert Exception.message(error) =~ text
    assert Enum.sort(reasons(error.report)) == Enum.sort(reasons(check))
    assert exchange_code(machine.node) == before
  end

  defp assert_takes(machine, id, options \\ []) do
    assert {:ok, check} = hot_patch(machine.node, :check, [id, options])
    refute check.status == :error
    assert {:ok, report} = hot_patch(machine.node, :apply, [id, options])
    refute report.status == :error
    assert {:ok, _} = hot_patch(machine.node, :rollback, [id])
  end

  @tag :starts_nodes
  test "a read-only mount" do
    machine = start()
    id = upload(machine, [billing(), {"exchange-1.0.0/priv/a.txt", "b"}])
    Disks.read_only(machine.lib)
    paths = [@billing, "exchange-1.0.0/priv/a.txt"]

    assert_refused(
      machine,
      id,
      paths,
      "read-only file system; give the node's user the right to, or apply with disk: :memory_only"
    )

    assert_takes(machine, id, disk: :memory_only)
    Disks.writable(machine.lib)
    assert_takes(machine, id)
    Machine.kill(machine)
  end

  @tag :starts_nodes
  test "a file and a folder that not even the superuser may change" do
    machine = start()
    id = upload(machine, [billing(), {"exchange-1.0.0/priv/a.txt", "b"}])
    file = Path.join(machine.lib, @billing)
    Disks.immutable(file, true)

    # The folder takes new files, but this one cannot be replaced: an apply alone would find out when
    # memory has changed already.
    assert_refused(machine, id, [@billing], "cannot write #{file}: not owner")
    Disks.immutable(file, false)
    Disks.immutable(Path.dirname(file), true)
    assert_refused(machine, id, [@billing], "cannot write #{file}: not owner")
    Disks.immutable(Path.dirname(file), false)
    assert_takes(machine, id)
    Machine.kill(machine)
  end

  @tag :starts_nodes
  test "another user's files, as on hosts whose code belongs to root" do
    machine = start(user: @nobody)
    id = upload(machine, [billing(), {"exchange-1.0.0/priv/a.txt", "b"}])

    text =
      "permission denied; give the node's user the right to, or apply with disk: :memory_only"

    assert_refused(machine, id, [@billing, "exchange-1.0.0/priv/a.txt"], text)
    assert_takes(machine, id, disk: :memory_only)

    # One who may write the folder may replace the file, but not give it away; the plan says so.
    folders = [machine.lib, Path.join(machine.lib, "exchange-1.0.0/priv")]

    for folder <- [Path.dirname(Path.join(machine.lib, @billing)) | folders],
        do: File.chmod!(folder, 0o777)

    assert {:ok, plan} = hot_patch(machine.node, :plan, [id])

    assert risk?(hd(plan.nodes), "files of the user with the number 0 will belong to")

    assert_takes(machine, id)
    Machine.kill(machine)
  end

  @tag :starts_nodes
  test "an archive of an application" do
    [machine] = Machine.new(1)
    ez = Path.join(machine.lib, "shop-1.0.0.ez")
    module = :hot_patch_test_shop

    app =
      ~s|{application, shop, [{description, ""}, {vsn, "1.0.0"}, {modules, [#{module}]}, {applications, [kernel, stdlib]}]}.|

    beam = "shop-1.0.0/ebin/#{module}.beam"
    File.mkdir_p!(machine.lib)
    File.write!(ez, zip([{"shop-1.0.0/ebin/shop.app", app}, {beam, Builds.versioned(module, 1)}]))

    load = fn node ->
      Cluster.call(node, :code, :add_path, [String.to_charlist(ez <> "/shop-1.0.0/ebin")])
      :ok = Cluster.call(node, :application, :load, [:shop])
      {:module, ^module} = Cluster.call(node, :code, :ensure_loaded, [module])
    end

    machine = Machine.start(machine, before: load)
    on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
    id = upload(machine, [{beam, Builds.versioned(module, 2)}])
    text = "it is inside the archive #{ez}, which HotPatch does not write"
    assert_refused(machine, id, [beam], text)
    assert {:ok, %{status: :ok}} = hot_patch(machine.node, :apply, [id, [disk: :memory_only]])
    assert Cluster.call(machine.node, module, :vsn, []) == 2
    assert {:ok, %{status: :ok}} = hot_patch(machine.node, :rollback, [id])
    assert Cluster.call(machine.node, module, :vsn, []) == 1
    Machine.kill(machine)
  end

  @tag :starts_nodes
  test "a disk that is full" do
    [machine] = Machine.new(1)
    File.mkdir_p!(machine.lib)

    SmallDisk.with_disk(700_000, fn disk ->
      File.rm_rf!(machine.lib)
      File.ln_s!(disk, machine.lib)
      Machine.install(machine, "shipped")
      machine = Machine.start(machine)
      on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
      big = {"exchange-1.0.0/priv/big", :crypto.strong_rand_bytes(2_000_000)}
      id = upload(machine, [billing(), big])
      assert {:ok, check} = hot_patch(machine.node, :check, [id])
      assert check.status == :error

      assert Enum.any?(reasons(check), fn {_, status, reason} ->
               status == :error and reason =~ "no space left on device"
             end)

      assert {:error, %Error{reason: :refused} = error} = hot_patch(machine.node, :apply, [id])
      assert Exception.message(error) =~ "no space left on device"
      assert_takes(machine, upload(machine, [billing()], "small"))
      Machine.kill(machine)
    end)
  end

  @tag :starts_nodes
  test "a data directory that cannot be written, which is needed all the same" do
    machine = start()
    id = upload(machine, [billing()])
    Disks.read_only(machine.data)
    text = "read-only file system; name another folder with config :hot_patch, data_dir: ..."
    assert_refused(machine, id, [@billing], text)

    assert {:error, %Error{reason: :refused}} =
             hot_patch(machine.node, :apply, [id, [disk: :memory_only]])

    Disks.writable(machine.data)
    assert_takes(machine, id)
    Machine.kill(machine)
  end

  @tag :starts_nodes
  test "what is there already need not be written" do
    machine = start()
    shipped = File.read!(Path.join(machine.lib, @billing))
    id = upload(machine, [{@billing, shipped}, {"exchange-1.0.0/priv/a.txt", "a"}])
    Disks.immutable(Path.join(machine.lib, @billing), true)
    assert {:ok, check} = hot_patch(machine.node, :check, [id])
    assert [{@billing, :not_changed, nil}, {_, :not_beam, _}] = Enum.sort(reasons(check))
    assert {:ok, _} = hot_patch(machine.node, :apply, [id])
    Disks.immutable(Path.join(machine.lib, @billing), false)
    Machine.kill(machine)
  end

  test "how much room there is, is asked of the system, and unknown where it does not say" do
    assert is_integer(FreeSpace.free(Builds.tmp()))
    assert FreeSpace.enough([{Builds.tmp(), 1}, {Path.join(Builds.tmp(), "no/such"), 1}]) == :ok
    assert {:error, {_, :enospc}} = FreeSpace.enough([{Builds.tmp(), 1_000_000_000_000_000}])
    # Nothing to write asks for nothing.
    assert FreeSpace.enough([{Builds.tmp(), 0}]) == :ok
    refute FreeSpace.read_only?(Builds.tmp())
    assert FreeSpace.read_only?("/proc/sys") in [true, false]
  end
end
