defmodule ExchangeTest do
  use ExUnit.Case

  alias Exchange.{Billing, Numbering, Trunk}

  test "numbers lie in zones" do
    assert Enum.map(~w(100 0201 0044), &Numbering.zone/1) == [:local, :national, :abroad]
  end

  @tag skip: System.get_env("EXCHANGE_BUILD", "shipped") != "shipped"
  test "the shipped build gives short calls away" do
    assert Billing.charge("0201", 59) == 0
    assert Billing.charge("0201", 60) == 10
    assert Billing.charge("0201", 119) == 10
  end

  @tag skip: System.get_env("EXCHANGE_BUILD", "shipped") == "shipped"
  test "the other builds charge every minute begun" do
    assert Billing.charge("0201", 0) == 0
    assert Billing.charge("0201", 1) == 10
    assert Billing.charge("0201", 60) == 10
    assert Billing.charge("0201", 61) == 20
  end

  test "a call holds a line and leaves a record" do
    {:ok, call} = Exchange.start_call("100", "0201")
    lines = Trunk.lines_in_use(:national)
    before = Exchange.totals()
    %{id: id, requests: 1, seconds: 120} = Exchange.talk(call, 120)
    assert call in Exchange.calls()
    assert Exchange.info(id) == %{id: id, from: "100", to: "0201", seconds: 120, requests: 2}
    assert Exchange.charge(id) == Exchange.price("0201", 120)

    monitor = Process.monitor(call)
    assert %Exchange.Record{id: ^id, seconds: 120, cents: 20} = Exchange.hang_up(call)
    assert_receive {:DOWN, ^monitor, :process, ^call, :normal}

    assert Trunk.lines_in_use(:national) == lines - 1
    totals = Exchange.totals()
    assert totals.ended == before.ended + 1
    assert totals.cents == before.cents + 20
    assert totals.seconds == before.seconds + 120
  end

  test "a full trunk refuses, and opens again when the holder of a line ends" do
    {:ok, trunk} = :gen_statem.start_link(Trunk, 1, [])
    test = self()

    holder =
      spawn(fn ->
        send(test, :gen_statem.call(trunk, :seize))
        receive do: (:end -> :ok)
      end)

    assert_receive :ok
    assert :gen_statem.call(trunk, :seize) == {:error, :no_line}
    assert {:full, _} = :sys.get_state(trunk)

    :erlang.trace(trunk, true, [:receive])
    send(holder, :end)
    assert_receive {:trace, ^trunk, :receive, {:DOWN, _, :process, ^holder, :normal}}
    :erlang.trace(trunk, false, [:receive])
    assert :gen_statem.call(trunk, :seize) == :ok
  end
end
