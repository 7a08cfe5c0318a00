defmodule HotPatch.LookingTest do
  # Looking at a patch leaves nothing behind, whatever is in it.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Settings

  alias HotPatch.Error
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Damaged
  alias HotPatch.Test.Declared

  @moduletag :starts_nodes

  # A patch full of names that no other node has ever seen: they are made up here, and the
  # nodes get them as an archive only.
  defp strange(n) do
    name = "strange_#{n}"

    module =
      Builds.erlang("""
      -module(#{name}). -export([#{name}_export/0]). -behaviour(#{name}_behaviour).
      #{name}_export() -> {#{name}_atom, [#{name}_literal, {#{name}_more}], #{name}_call:out()}.
      """)

    changed = Builds.changed("patched", "Billing")

    Declared.zip(
      [{"exchange-1.0.0/ebin/#{name}.beam", module}, changed],
      %{
        "config" => [
          %{
            "application" => "exchange",
            "key" => "#{name}_key",
            "value" => "{#{name}_value, [#{name}_nested], \#{#{name}_map => 1}}"
          },
          %{"application" => "#{name}_app", "key" => "#{name}_other", "value" => "1"}
        ],
        "instructions" => %{
          "up" => ["{update,'Elixir.Exchange.Billing',{advanced,{#{name}_extra}}}"],
          "down" => ["{apply,{'Elixir.Exchange.Billing',#{name}_function,[#{name}_argument]}}"]
        }
      },
      add: [name]
    )
  end

  defp atoms(nodes),
    do: for(node <- nodes, do: Cluster.call(node, :erlang, :system_info, [:atom_count]))

  test "a check, a plan, and a composition make no atom of what is in the patch" do
    [a, b] = nodes = Cluster.start(2)

    look = fn n ->
      {:ok, patch} = hot_patch(a, :upload, [strange(n), [name: "strange#{n}"]])
      {:ok, _} = hot_patch(a, :composition, [patch.id])
      {:ok, %{status: :ok}} = hot_patch(a, :check, [patch.id])
      {:ok, plan} = hot_patch(b, :plan, [patch.id])
      {plan, patch}
    end

    # What looking itself needs is there after the first times.
    for n <- 1..3, do: look.(n)
    before = atoms(nodes)
    {plan, patch} = look.(4)
    for n <- 5..8, do: look.(n)
    assert atoms(nodes) == before

    # It was all looked at.
    [%{config: [setting], order: order, instructions: lines} | _] = plan.nodes
    assert setting == "exchange: :strange_4_key"
    assert {:add, ":strange_4"} in order
    assert Enum.any?(lines, &(&1 =~ "strange_4_extra"))

    # And when it is applied, all of it is there.
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id])

    assert Cluster.call(b, Application, :get_env, [:exchange, :strange_4_key]) ==
             {:strange_4_value, [:strange_4_nested], %{strange_4_map: 1}}
  end

  test "a module that would end the node is known by the rule that it breaks, and no loader sees it" do
    [a] = nodes = Cluster.start(1)
    name = "looking_fatal"

    files = [
      {"exchange-1.0.0/ebin/#{name}.beam", Damaged.make(name, :literals_declared_too_large)}
    ]

    {:ok, patch} = hot_patch(a, :upload, [HotPatch.Test.Archives.zip(files), []])
    assert {:ok, %{status: :error, nodes: [%{files: [file]}]}} = hot_patch(a, :check, [patch.id])
    assert file.path =~ name and file.reason =~ "(rule literal"
    assert {:error, %Error{reason: :refused}} = hot_patch(a, :apply, [patch.id])
    for node <- nodes, do: assert(Cluster.call(node, Node, :alive?, []))
  end

  test "where no VM can be started nothing is taken, unless it is to be taken unseen" do
    [a, b] = Cluster.start(2)
    # The shell by which such a VM is started is looked for on the PATH.
    path = Cluster.call(a, System, :get_env, ["PATH"])
    :ok = Cluster.call(a, System, :put_env, ["PATH", "/nowhere"])
    zip = HotPatch.Test.Archives.zip(Builds.changed("patched"))

    assert {:error, %Error{reason: :untried} = error} = hot_patch(a, :upload, [zip, []])
    assert error.message =~ "loader_vm: :off"
    assert hot_patch(a, :list, []).items == []

    # Uploaded elsewhere, it is taken here too: that node has the same loader.
    {:ok, patch} = hot_patch(b, :upload, [zip, []])
    assert {:ok, %{status: :ok}} = hot_patch(b, :check, [patch.id])
    # By itself this node knows nothing of it.
    assert {:ok, %{status: :ok} = report} = hot_patch(a, :check, [patch.id, [nodes: [b]]])
    assert [%{node: ^b}] = report.nodes
    assert {:ok, %{status: :error} = report} = hot_patch(a, :check, [patch.id, [nodes: [a]]])
    assert Enum.any?(hd(report.nodes).files, &(&1.reason =~ "no VM could be started"))

    configure_on(a, loader_vm: :off)
    assert {:ok, plan} = hot_patch(a, :plan, [patch.id])
    assert Enum.any?(plan.nodes, &risk?(&1, "loader_vm: :off"))
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [patch.id])
    :ok = Cluster.call(a, System, :put_env, ["PATH", path])
  end
end
