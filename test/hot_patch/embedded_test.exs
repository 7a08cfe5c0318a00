defmodule HotPatch.EmbeddedTest do
  # Releases as they are started mostly: the boot script loads every module by its name, and the VM
  # does not start without the file of one of them.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Build
  alias HotPatch.Test.Booted
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes
  @moduletag :tmp_dir

  @one :hot_patch_test_one
  @two :hot_patch_test_two

  defp beam(name, vsn), do: Builds.versioned(name, vsn)

  defp boot(modules) do
    modules |> Enum.map(&{&1, beam(&1, 1)}) |> Booted.install() |> Booted.start()
  end

  defp again(booted), do: booted |> Booted.stop() |> Booted.start()

  # A patch from what the release is to what the files make of it; nil removes one.
  defp upload_change!(booted, dir, files, name) do
    to = Path.join(dir, name)
    File.cp_r!(Booted.lib(booted), to)

    for {path, bytes} <- files do
      path = Path.join(to, path)
      if bytes, do: File.write!(path, bytes), else: File.rm!(path)
    end

    out = Path.join(dir, "#{name}.zip")
    from = Path.join(dir, "#{name}-from")
    File.cp_r!(Booted.lib(booted), from)
    {:ok, built} = Build.run(from: from, to: to, out: out, for: "booted-1.0.0", name: name)
    {:ok, patch} = hot_patch(booted.node, :upload, [built.zip, []])
    patch.id
  end

  defp vsn(booted, module) do
    Cluster.call(booted.node, module, :vsn, [])
  rescue
    error in ErlangError -> elem(error.original, 1)
  end

  defp applied(booted), do: hd(hot_patch(booted.node, :nodes, [])).applied

  defp shop(name), do: "shop-1.0.0/ebin/#{name}.beam"
  defp store(name), do: "store-1.0.0/ebin/#{name}.beam"
  defp file(booted, path), do: Path.join(Booted.lib(booted), path)

  test "a module that a patch takes away is taken out, and stays out after a start", %{
    tmp_dir: dir
  } do
    booted = boot([@one, @two])
    assert {vsn(booted, @one), vsn(booted, @two)} == {1, 1}
    id = upload_change!(booted, dir, [{shop(@one), nil}], "removal")

    assert {:ok, plan} = hot_patch(booted.node, :plan, [id])
    assert [%{order: [delete: ":hot_patch_test_one"]}] = plan.nodes
    assert {:ok, report} = hot_patch(booted.node, :apply, [id])
    assert [%{files: [%{status: :ok, reason: reason}]}] = report.nodes
    assert reason =~ "boot script"
    assert vsn(booted, @one) == :undef
    # Without it there would be no next start.
    assert File.exists?(file(booted, shop(@one)))

    booted = again(booted)
    assert applied(booted) == [id]
    assert {vsn(booted, @one), vsn(booted, @two)} == {:undef, 1}
    assert {:ok, %{items: []}} = hot_patch(booted.node, :drift, [])
    # Once more it is what it is.
    assert {:ok, _report} = hot_patch(booted.node, :apply, [id])

    assert {:ok, report} = hot_patch(booted.node, :rollback, [id])
    assert report.status == :ok
    assert vsn(booted, @one) == 1
    booted = again(booted)
    assert {applied(booted), vsn(booted, @one)} == {[], 1}
  end

  test "a module that a patch has added goes with its file", %{tmp_dir: dir} do
    booted = boot([@one])
    add = upload_change!(booted, dir, [{shop(@two), beam(@two, 1)}], "addition")
    assert {:ok, _report} = hot_patch(booted.node, :apply, [add])
    assert vsn(booted, @two) == 1

    # By another patch, and by the rollback of its own.
    remove = upload_change!(booted, dir, [{shop(@two), nil}], "removal")
    assert {:ok, %{status: :ok}} = hot_patch(booted.node, :apply, [remove])
    assert vsn(booted, @two) == :undef
    refute File.exists?(file(booted, shop(@two)))
    booted = again(booted)
    assert vsn(booted, @two) == :undef
    assert {:ok, _report} = hot_patch(booted.node, :rollback, [remove])
    assert vsn(booted, @two) == 1

    assert {:ok, %{status: :ok}} = hot_patch(booted.node, :rollback, [add])
    assert vsn(booted, @two) == :undef
    refute File.exists?(file(booted, shop(@two)))
    booted = again(booted)
    assert {applied(booted), vsn(booted, @one)} == {[], 1}
  end

  test "a cumulative patch brings back what it does not take away", %{tmp_dir: dir} do
    booted = boot([@one, @two])
    removal = upload_change!(booted, dir, [{shop(@one), nil}], "removal")
    other = upload_change!(booted, dir, [{shop(@two), beam(@two, 2)}], "other")
    assert {:ok, _report} = hot_patch(booted.node, :apply, [removal])
    assert {:ok, _report} = hot_patch(booted.node, :apply, [other, [cumulative: true]])
    assert {vsn(booted, @one), vsn(booted, @two)} == {1, 2}
    booted = again(booted)
    assert {vsn(booted, @one), vsn(booted, @two)} == {1, 2}
    assert {:ok, _report} = hot_patch(booted.node, :rollback, [other])
    assert {applied(booted), vsn(booted, @one), vsn(booted, @two)} == {[removal], :undef, 1}
  end

  for vsn <- [1, 2] do
    test "a module moves to another application, in version #{vsn}", %{tmp_dir: dir} do
      booted = boot([@one])
      bytes = beam(@one, unquote(vsn))
      files = [{shop(@one), nil}, {store(@one), bytes}]
      id = upload_change!(booted, dir, files, "move")
      assert {:ok, %{status: :ok}} = hot_patch(booted.node, :apply, [id])

      there = fn booted ->
        {vsn(booted, @one), to_string(Cluster.call(booted.node, :code, :which, [@one]))}
      end

      assert there.(booted) == {unquote(vsn), file(booted, store(@one))}
      # What the boot script wants is there, and is the same.
      assert File.read!(file(booted, shop(@one))) == bytes
      booted = again(booted)
      assert there.(booted) == {unquote(vsn), file(booted, store(@one))}
      assert {:ok, %{items: []}} = hot_patch(booted.node, :drift, [])

      assert {:ok, %{status: :ok}} = hot_patch(booted.node, :rollback, [id])
      assert there.(booted) == {1, file(booted, shop(@one))}
      assert File.read!(file(booted, shop(@one))) == beam(@one, 1)
      refute File.exists?(file(booted, store(@one)))
      assert there.(again(booted)) == {1, file(booted, shop(@one))}
    end
  end
end
