defmodule HotPatch.Plan.RiskTest do
  use ExUnit.Case, async: true

  alias HotPatch.Plan
  alias HotPatch.Plan.NodePlan
  alias HotPatch.Plan.Risk

  defp others(count), do: for(_ <- 1..count, do: spawn(fn -> :ok end))

  test "a line names the processes behind what is said, and of many the first" do
    assert to_string(Risk.of("it is away")) == "it is away"

    pids = [one, two, three | _] = others(5)
    risk = Risk.of("5 processes run it", Shop.Cart, pids)

    assert risk == %Risk{
             kind: :general,
             message: "5 processes run it",
             about: "Shop.Cart",
             processes: Enum.map([one, two, three], &inspect/1)
           }

    assert to_string(risk) ==
             "5 processes run it (#{inspect(one)}, #{inspect(two)}, #{inspect(three)})"

    assert Risk.of(risk) == risk
  end

  test "the table of a plan has it in a line, its JSON as an object" do
    [pid] = others(1)
    risk = Risk.of("1 process runs it", :shop, [pid])
    node_plan = %NodePlan{node: :a@h, status: :ok, risks: [risk]}
    plan = %Plan{patch: "x", status: :ok, nodes: [node_plan]}
    assert to_string(plan) =~ "1 process runs it (#{inspect(pid)})"

    assert {:ok, json} = HotPatch.to_json(plan)

    for text <- [
          ~s("message":"1 process runs it"),
          ~s("processes":["#{inspect(pid)}"]),
          ~s("about":":shop"),
          ~s("kind":"general")
        ],
        do: assert(json =~ text)
  end
end
