defmodule HotPatch.Swap.BirthsTest do
  # Processes that are started all the time, also in the moment of the load, by parents of every sort:
  # each of them ends in the state that the code which runs knows, and none dies of another.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  @module :hot_patch_test_born
  @parents 6
  @kept 10
  @rounds "HOT_PATCH_ROUNDS" |> System.get_env("60") |> String.to_integer() |> div(6) |> max(1)

  setup do
    on_exit(fn -> unload(@module) end)
    change = "{ok, {case OldVsn of {down, _} -> v1; _ -> VERSION end, Count}}"
    %{v1: server(@module, "v1"), v2: server(@module, "v2", change)}
  end

  # Starts a server after the other, and asks each. What dies but by its own hand has died of its state.
  defmodule Parent do
    use GenServer

    @impl true
    def init(state), do: {:ok, state, 0}

    @impl true
    def handle_info(:timeout, state), do: {:noreply, step(state), 1}

    def handle_info({:DOWN, _monitor, :process, pid, _reason}, state),
      do: {:noreply, %{state | died: [pid | state.died]}, 1}

    @impl true
    def handle_call(:stop, _from, state), do: {:stop, :normal, state, state}

    def loop(state) do
      receive do
        {:stop, from} -> send(from, {self(), state})
        {:DOWN, _, :process, pid, _} -> loop(%{state | died: [pid | state.died]})
      after
        1 -> state |> step() |> loop()
      end
    end

    defp start(:itself, module), do: :gen_server.start(module, 0, [])

    # By one that has never started one before, and is dead afterwards.
    defp start(:another, module) do
      {pid, monitor} = spawn_monitor(fn -> exit(:gen_server.start(module, 0, [])) end)
      receive(do: ({:DOWN, ^monitor, :process, ^pid, started} -> started))
    end

    defp step(state) do
      {:ok, pid} = start(state.by, state.module)
      {kept, old} = Enum.split([{pid, Process.monitor(pid)} | state.children], state.keep)

      for {pid, monitor} <- old do
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
      end

      :counters.add(state.born, 1, 1)
      %{state | children: kept}
    end
  end

  defp start_parent(:server, state), do: GenServer.start(Parent, state) |> elem(1)
  defp start_parent(:bare, state), do: spawn(fn -> Parent.loop(state) end)
  defp start_parent(:gone, state), do: spawn(fn -> Parent.loop(%{state | by: :another}) end)
  defp start_parent(:task, state), do: Task.start(fn -> Parent.loop(state) end) |> elem(1)

  defp stop_parent(:server, pid), do: GenServer.call(pid, :stop, 30_000)

  defp stop_parent(_bare, pid) do
    send(pid, {:stop, self()})
    assert_receive {^pid, state}
    state
  end

  for kind <- [:server, :bare, :task] do
    test "by a parent that is a #{kind}: #{@rounds} times there and back", %{v1: v1, v2: v2} do
      load(@module, v1)

      for _round <- 1..@rounds do
        assert {[], [], []} == churn(unquote(kind), {v1, v2}, :v2)
        assert {[], [], []} == churn(unquote(kind), {v2, v1}, :v1, :down)
      end
    end
  end

  # There nobody can be held. Up, their form tells; on the way back they are named.
  test "by parents of which nothing is known: settled afterwards, or named", %{v1: v1, v2: v2} do
    load(@module, v1)

    for _round <- 1..@rounds do
      assert {[], [], []} == churn(:gone, {v1, v2}, :v2)
      {died, other, unsure} = churn(:gone, {v2, v1}, :v1, :down)
      assert (died ++ other) -- unsure == []
    end
  end

  describe "one that is started in the very moment of the load, by nobody who is known" do
    # As if it had been started a moment before.
    defp born(parent, state) do
      {pid, monitor} = spawn_monitor(fn -> exit(:gen_server.start(@module, 0, [])) end)
      {:ok, born} = receive(do: ({:DOWN, ^monitor, :process, ^pid, started} -> started))
      :sys.replace_state(born, fn _ -> state end)
      send(parent, {:born, born})
    end

    defp with_newborn(versions, state, direction \\ :up) do
      test = self()
      {:ok, known} = :gen_server.start(@module, 5, [])
      job = job([versions], after_load: fn -> born(test, state) end)
      assert {:ok, %{unsure: unsure}} = run(directed(job, direction))
      assert_receive {:born, born}
      on_exit(fn -> kill([known, born]) end)
      assert {_version, 5} = :gen_server.call(known, :get)
      {born, unsure}
    end

    test "with the state of before it is changed", %{v1: v1, v2: v2} do
      load(@module, v1)
      {born, unsure} = with_newborn({@module, v1, v2}, {:v1, 7})
      assert {unsure, :gen_server.call(born, :get)} == {[], {:v2, 7}}
    end

    test "with the new one it is left alone", %{v1: v1, v2: v2} do
      load(@module, v1)
      {born, unsure} = with_newborn({@module, v1, v2}, {:v2, 7})
      assert {unsure, :gen_server.call(born, :get)} == {[], {:v2, 7}}
    end

    test "with one of another form it is named", %{v1: v1, v2: v2} do
      load(@module, v1)
      {born, unsure} = with_newborn({@module, v1, v2}, :other)
      assert {unsure, :sys.get_state(born)} == {[born], :other}
    end

    test "that its code cannot change it is named", %{v1: v1} do
      load(@module, v1)

      v2 = server(@module, "v2", "case Count of 7 -> error(no); _ -> {ok, {VERSION, Count}} end")

      {born, unsure} = with_newborn({@module, v1, v2}, {:v1, 7})
      assert {unsure, :sys.get_state(born)} == {[born], {:v1, 7}}
    end

    test "on the way back nobody can change it, and it is named", %{v1: v1, v2: v2} do
      load(@module, v2)
      {born, unsure} = with_newborn({@module, v2, v1}, {:v2, 7}, :down)
      assert {unsure, :sys.get_state(born)} == {[born], {:v2, 7}}
    end

    test "on the way back with the state of the code that comes it is left alone", context do
      load(@module, context.v2)
      {born, unsure} = with_newborn({@module, context.v2, context.v1}, {:v1, 7}, :down)
      assert {unsure, :sys.get_state(born)} == {[], {:v1, 7}}
    end
  end

  # Back, by the code that goes.
  defp directed(job, :up), do: job

  defp directed(%{changes: [change]} = job, :down),
    do: %{job | shadows: [], changes: [%{change | direction: :down, old_vsn: {:down, ~c"v1"}}]}

  # Who has died of the state that it had, who has another than the code that runs, who is named.
  defp churn(kind, {from, to}, version, direction \\ :up) do
    born = :counters.new(1, [])
    state = %{module: @module, keep: @kept, by: :itself, born: born, children: [], died: []}
    parents = for _ <- 1..@parents, do: start_parent(kind, state)
    until(fn -> :counters.get(born, 1) >= @parents * @kept end, "they start")
    done = swap(kind, [{@module, from, to}] |> job() |> directed(direction), 50)
    ended = Enum.map(parents, &stop_parent(kind, &1))
    children = for %{children: children} <- ended, {pid, _monitor} <- children, do: pid
    other = for pid <- children, state(pid) != {version, 0}, do: pid
    kill(Enum.filter(children, &Process.alive?/1))
    {Enum.flat_map(ended, & &1.died), other, done.unsure}
  end

  defp swap(kind, job, tries) do
    case run(job) do
      # By nobody who could be held they may come faster than they are found.
      {:error, %{reason: :busy, loaded?: false}} when kind == :gone and tries > 0 ->
        swap(kind, job, tries - 1)

      result ->
        assert {:ok, done} = result
        done
    end
  end

  defp state(pid) do
    :sys.get_state(pid)
  catch
    :exit, reason -> reason
  end
end
