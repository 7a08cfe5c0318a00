defmodule HotPatch.NodeAgent.VitalsTest do
  # The filter of the logger is one for the whole node.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias HotPatch.NodeAgent.Vitals

  @moduletag capture_log: true
  @name Atom.to_string(__MODULE__)

  setup do
    level = Logger.level()

    on_exit(fn ->
      Logger.configure(level: level)
      Vitals.stop()
    end)

    :ok = Vitals.start(%{coordinator: self(), modules: [@name], health: nil})
  end

  # The one that dies writes its own report.
  defp crash do
    {pid, monitor} = :proc_lib.spawn_opt(fn -> raise "broken" end, [:monitor])
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}
  end

  defp restart(reason) do
    report = %{label: {:supervisor, :child_terminated}, report: [reason: reason]}
    :logger.error(report)
  end

  defp value(sign), do: Enum.find(Vitals.figures(), &(&1.sign == sign))

  test "what crashes before the node says that it has changed counts" do
    :ok = Vitals.counts()
    for _ <- 1..4, do: crash()
    :ok = Vitals.changed(0)
    assert value(:crashes).value == 4
    crash()
    assert value(:crashes).value == 5
  end

  test "what crashes before it counts does not, and is no rate that hides what follows" do
    crash()
    :ok = Vitals.counts()
    :ok = Vitals.changed(0)
    assert value(:crashes).value == 0
    for _ <- 1..4, do: crash()
    assert value(:crashes).value == 4
  end

  test "who was ended with the change as the operator has allowed is no sign" do
    :ok = Vitals.counts()
    for _ <- 1..3, do: restart(:killed)
    :ok = Vitals.changed(3)
    assert %{value: 0} = value(:restarts)
    assert %{value: 0} = value(:errors)
    restart(:killed)
    assert %{value: 1} = value(:restarts)
  end

  test "a node that makes no events of errors says that they are not counted" do
    :ok = Vitals.counts()
    assert value(:crashes).text == nil
    Logger.configure(level: :critical)
    assert capture_log(fn -> crash() end) == ""
    assert %{value: 0, text: "not counted" <> _} = value(:crashes)
    assert value(:mailboxes).text == nil
  end
end
