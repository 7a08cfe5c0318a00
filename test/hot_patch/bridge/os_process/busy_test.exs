defmodule HotPatch.Bridge.OSProcess.BusyTest do
  # Not async: it takes memory.
  use ExUnit.Case, async: false

  import HotPatch.Test.Until

  alias HotPatch.Bridge.OSProcess.Server

  # More than a pipe and the VM's buffer hold.
  @large :binary.copy("x", 1_500_000)

  setup do
    server = start_supervised!({Server, [grace: 60_000]})
    assert {:ok, _} = request(server, "start", "")
    {:os_pid, os} = Port.info(:sys.get_state(server).program, :os_pid)
    signal("STOP", os)
    # One that is stopped does not notice that nobody owns it any more.
    on_exit(fn -> System.cmd("kill", ["-KILL", "#{os}"], stderr_to_stdout: true) end)
    %{server: server, os: os}
  end

  test "a program that takes nothing in is asked by one timer, however many wait", context do
    %{server: server, os: os} = context
    callers = for n <- 1..50, do: Task.async(fn -> request(server, "large #{n}", @large) end)
    until(fn -> :queue.len(:sys.get_state(server).waiting) == 49 end, "the others wait")

    # What comes to a process that is held up stays in its mailbox.
    :sys.suspend(server)
    Process.send_after(server, :later, 100)
    until(fn -> :later in mailbox(server) end, "all timers have gone off")
    assert Enum.count(mailbox(server), &(&1 == :feed)) == 1

    :sys.resume(server)
    signal("CONT", os)
    assert Enum.all?(Task.await_many(callers, 120_000), &match?({:ok, _}, &1))
  end

  test "a cancel waits until the program takes it in", %{server: server, os: os} do
    {gone, _} = spawn_monitor(fn -> request(server, "large", @large) end)
    until(fn -> map_size(:sys.get_state(server).running) == 1 end, "it is being sent")
    [id] = Map.keys(:sys.get_state(server).running)
    :erlang.trace(server, true, [:receive])
    Process.exit(gone, :kill)
    # It is tried again as long as it takes; how often, before the program goes on, is no matter.
    for _ <- 1..3, do: assert_receive({:trace, ^server, :receive, {:cancel, ^id}})
    assert :sys.get_state(server).running[id].from == nil

    signal("CONT", os)
    until(fn -> :sys.get_state(server).running == %{} end, "it has ended")
    assert {:ok, _} = request(server, "next", "")
  end

  defp request(server, about, blob) do
    message = {:request, "read_archive", [blob], :erlang.term_to_binary([]), about}
    GenServer.call(server, message, :infinity)
  end

  defp mailbox(server), do: server |> Process.info(:messages) |> elem(1)

  defp signal(name, os), do: {_, 0} = System.cmd("kill", ["-#{name}", "#{os}"])
end
