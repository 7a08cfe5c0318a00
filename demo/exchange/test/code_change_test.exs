defmodule Exchange.CodeChangeTest do
  # Runs in the shipped build; swaps modules that all tests share.
  use ExUnit.Case

  @moduletag :capture_log

  if System.get_env("EXCHANGE_BUILD", "shipped") != "shipped" do
    @moduletag skip: "the tests start from the shipped build"
  end

  setup do
    compile("patched", "tariff")
    :ok
  end

  describe "a call" do
    setup do
      {:ok, call} = Exchange.start_call("100", "004420")
      Exchange.talk(call, 59)
      %{call: call}
    end

    test "keeps everything over a patch and back", %{call: call} do
      before = Exchange.info(call)

      upgrade(call, Exchange.Call, "call")
      assert %{talked_ms: 59_000, zone: :abroad} = :sys.get_state(call)
      assert Exchange.info(call) == %{before | requests: before.requests + 1}
      assert Exchange.talk(call, 2).seconds == 61

      downgrade(call, Exchange.Call, "call")
      assert {_, "100", "004420", 61, 4} = :sys.get_state(call)
      assert Exchange.info(call) == %{before | seconds: 61, requests: before.requests + 3}
    end

    test "is no longer free for its first minute", %{call: call} do
      assert Exchange.charge(call) == 0
      load("patched", "billing")
      assert Exchange.charge(call) == 45
      assert Exchange.hang_up(call).cents == 45
    end

    test "refuses the state of a build it does not know", %{call: call} do
      load("patched", "call")
      :ok = :sys.suspend(call)
      assert {:error, _} = :sys.change_code(call, Exchange.Call, 7, [])
      assert :ok = :sys.change_code(call, Exchange.Call, 1, [])
      :ok = :sys.resume(call)
      assert Exchange.info(call).seconds == 59
    end

    test "is carried over by the broken build only if it knows the country", %{call: britain} do
      {:ok, japan} = Exchange.start_call("0081")
      for call <- [britain, japan], do: upgrade(call, Exchange.Call, "call")

      load("broken", "call")
      for call <- [britain, japan], do: :ok = :sys.suspend(call)
      assert :ok = :sys.change_code(britain, Exchange.Call, 2, [])
      assert {:error, _} = :sys.change_code(japan, Exchange.Call, 2, [])
      assert :ok = :sys.change_code(britain, Exchange.Call, {:down, 2}, [])
      load("patched", "call")
      for call <- [britain, japan], do: :ok = :sys.resume(call)
      assert Exchange.info(britain).seconds == 59
    end
  end

  test "a trunk keeps its lines over a patch and back" do
    trunk = GenServer.whereis(Exchange.name({:trunk, :national}))
    {:ok, call} = Exchange.start_call("0201")
    in_use = Exchange.Trunk.lines_in_use(:national)

    upgrade(trunk, Exchange.Trunk, "trunk")
    assert Exchange.Trunk.lines_in_use(:national) == in_use
    assert apply(Exchange.Trunk, :peak, [:national]) == in_use

    downgrade(trunk, Exchange.Trunk, "trunk")
    hang_up_and_wait(call)
    assert Exchange.Trunk.lines_in_use(:national) == in_use - 1
  end

  test "the books stay right over a patch and back" do
    end_call("0202", 59)
    {ended, cents} = Exchange.Cdr.totals()

    upgrade(Exchange.Events, Exchange.Cdr, "cdr")
    assert Exchange.Cdr.totals() == {ended, cents}
    assert apply(Exchange.Cdr, :given_away, []) >= 1
    end_call("0203", 120)

    downgrade(Exchange.Events, Exchange.Cdr, "cdr")
    assert Exchange.Cdr.totals() == {ended + 1, cents + 20}

    assert ["withheld to 0203, 120 s: 0.20", "withheld to 0202, 59 s: 0.00" | _] =
             Exchange.Cdr.lines()
  end

  test "the meter goes on counting in new code and back, without being asked" do
    before = Exchange.Meter.seconds()
    load("patched", "meter")
    Exchange.Meter.add(5)
    assert Exchange.Meter.seconds() == before + 5
    Exchange.Meter.add(3)
    assert apply(Exchange.Meter, :longest, []) == 3

    load("shipped", "meter")
    Exchange.Meter.add(1)
    assert Exchange.Meter.seconds() == before + 9
  end

  defp upgrade(process, module, file) do
    :ok = :sys.suspend(process)
    load("patched", file)
    :ok = :sys.change_code(process, module, 1, [])
    :ok = :sys.resume(process)
  end

  # The newer code converts back, before it is unloaded.
  defp downgrade(process, module, file) do
    :ok = :sys.suspend(process)
    :ok = :sys.change_code(process, module, {:down, 1}, [])
    load("shipped", file)
    :ok = :sys.resume(process)
  end

  # The next test finds the shipped build again.
  defp load(build, file) do
    on_exit({:restore, file}, fn -> compile("shipped", file) end)
    compile(build, file)
  end

  defp compile(build, file),
    do: [{_module, _binary}] = Code.compile_file("builds/#{build}/#{file}.ex")

  defp end_call(to, seconds) do
    {:ok, call} = Exchange.start_call(to)
    Exchange.talk(call, seconds)
    hang_up_and_wait(call)
  end

  defp hang_up_and_wait(call) do
    monitor = Process.monitor(call)
    Exchange.hang_up(call)
    assert_receive {:DOWN, ^monitor, :process, _pid, :normal}
  end
end
