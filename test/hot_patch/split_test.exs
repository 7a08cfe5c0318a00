defmodule HotPatch.SplitTest do
  # One change as two patches, on a cluster: in their order, and back in the other.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Build
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :tmp_dir

  defp build(name), do: Path.join([Builds.tmp(), "builds", name])

  defp split!(dir, more \\ []) do
    options = [from: build("shipped"), to: build("patched"), out: Path.join(dir, "fix.zip")]
    {:ok, built} = Build.run(options ++ [split: true] ++ more)
    built
  end

  test "a split build makes two: what takes both states, then the processes", %{tmp_dir: dir} do
    second = split!(dir)
    first = second.first
    assert Enum.map([first, second], &Path.basename(&1.out)) == ["fix-1.zip", "fix-2.zip"]

    assert Map.keys(first.composition.manifest.modules) ==
             ["Elixir.Exchange.Billing", "Elixir.Exchange.Tariff"]

    assert first.composition.manifest.follows == nil
    modules = second.composition.manifest.modules
    assert modules["Elixir.Exchange.Call"].change == :replace
    refute is_map_key(modules, "Elixir.Exchange.Billing")

    # By what the first brings.
    brings = for {name, one} <- first.composition.manifest.modules, do: {name, one.brings}
    assert second.composition.manifest.follows == %{name: "fix-1", modules: Map.new(brings)}
    assert Enum.any?(second.notes, &(&1 =~ "Exchange.Call.serve/2" and &1 =~ "Exchange.Billing"))
    assert "#{second}" =~ "comes after fix-1 (Exchange.Billing, Exchange.Tariff)"
  end

  test "where one is enough it says so, and makes one", %{tmp_dir: dir} do
    # Nothing but functions.
    to = Path.join(dir, "to")
    File.cp_r!(build("shipped"), to)
    beam = "exchange-1.0.0/ebin/Elixir.Exchange.Billing.beam"
    File.cp!(Path.join(build("patched"), beam), Path.join(to, beam))
    tariff = "exchange-1.0.0/ebin/Elixir.Exchange.Tariff.beam"
    File.cp!(Path.join(build("patched"), tariff), Path.join(to, tariff))
    out = Path.join(dir, "fix.zip")

    assert {:ok, built} = Build.run(from: build("shipped"), to: to, out: out, split: true)
    assert {built.first, built.out} == {nil, out}
    assert Enum.any?(built.notes, &(&1 =~ "one patch is made: no process whose state changes"))

    assert {:error, error} =
             Build.run(from: build("shipped"), to: to, out: out, split: true, cumulative: true)

    assert error.message =~ "split" and error.message =~ "cumulative"
  end

  @tag :starts_nodes
  test "the second is refused before the first, and goes back before it", %{tmp_dir: dir} do
    [a, b] = nodes = Cluster.start(2)
    before = for node <- nodes, do: exchange_code(node)
    second = split!(dir)
    {:ok, first} = hot_patch(a, :upload, [second.first.zip, [name: "fix-1"]])
    {:ok, later} = hot_patch(b, :upload, [second.zip, [name: "fix-2"]])

    assert later.follows == %{
             name: "fix-1",
             modules: ["Elixir.Exchange.Billing", "Elixir.Exchange.Tariff"]
           }

    # Nowhere, or not everywhere.
    for apply_first <- [[], [nodes: [a]]] do
      if apply_first != [], do: {:ok, _} = hot_patch(a, :apply, [first.id, apply_first])
      assert {:error, error} = hot_patch(a, :apply, [later.id, []])
      assert error.reason == :refused
      assert error.message =~ "#{later.id} comes after fix-1, which is not in force here"
      assert error.message =~ "Exchange.Billing, Exchange.Tariff is not what that brings"
    end

    assert {:ok, %{missing: []}} = hot_patch(a, :apply, [first.id, []])
    assert {:ok, %{status: :ok}} = hot_patch(b, :apply, [later.id, []])

    assert {:error, error} = hot_patch(a, :rollback, [first.id, []])
    assert error.message =~ "or follows it; roll back #{later.id} first"
    assert {:ok, %{status: :ok}} = hot_patch(a, :rollback, [later.id, [purge: :force]])
    assert {:ok, %{status: :ok}} = hot_patch(a, :rollback, [first.id, [purge: :force]])
    assert Enum.map(nodes, &exchange_code/1) == before
  end
end
