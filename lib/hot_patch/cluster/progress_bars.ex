defmodule HotPatch.Cluster.ProgressBars do
  @moduledoc false
  # Shows an operation on the terminal of whoever called it: a bar for each node, drawn anew in
  # place. A process of its own hears the events; the call goes on as without it.

  alias HotPatch.Cluster.Progress
  alias HotPatch.Event
  alias HotPatch.Support.Printable

  # Milliseconds: before anything is shown by itself, and between two drawings at least.
  @patience 1_000
  @width 20

  # How far along a node is when a phase is over.
  @share %{
    reserve: 1,
    send: 6,
    prepare: 10,
    commit: 14,
    decide: 18,
    restart: 18,
    watch: 20,
    rehearse: 20
  }
  @begins %{
    reserve: 0,
    send: 1,
    prepare: 6,
    commit: 10,
    decide: 14,
    restart: 10,
    watch: 18,
    rehearse: 6
  }

  @doc "Runs a call that carries an operation out, shown in the way that was asked for."
  @spec during(String.t(), :auto | :bar | :none, (() -> result)) :: result when result: term()
  def during(operation, how, fun) do
    case patience(how) do
      nil ->
        fun.()

      patience ->
        device = Process.group_leader()
        {pid, monitor} = spawn_monitor(fn -> listen(operation, device, patience) end)
        result = fun.()
        send(pid, :finish)

        receive do
          {:DOWN, ^monitor, :process, ^pid, _reason} -> result
        end
    end
  end

  defp patience(:bar), do: 0
  defp patience(:none), do: nil
  defp patience(:auto), do: if(in_iex?(), do: @patience)

  # Whoever evaluates what was typed there, also in a remote shell.
  defp in_iex?, do: match?({IEx.Evaluator, :init, _}, Process.get(:"$initial_call"))

  defp listen(operation, device, patience) do
    :ok = Progress.subscribe()
    show_from = System.monotonic_time(:millisecond) + patience
    loop(%{operation: operation, device: device, show_from: show_from, nodes: %{}, drawn: 0})
  end

  defp loop(state) do
    receive do
      {_tag, %Event{} = event} -> state |> heard(event) |> draw() |> loop()
      :finish -> state |> drain() |> draw()
    end
  end

  # What has come before the end is shown.
  defp drain(state) do
    receive do
      {_tag, %Event{} = event} -> state |> heard(event) |> drain()
    after
      0 -> state
    end
  end

  defp heard(%{operation: id} = state, %Event{operation: id, node: node} = event)
       when node != nil,
       do: put_in(state.nodes[node], event)

  defp heard(state, _of_another), do: state

  defp draw(state) do
    if System.monotonic_time(:millisecond) < state.show_from or state.nodes == %{} do
      state
    else
      up = if state.drawn > 0, do: "\e[#{state.drawn}A", else: ""

      lines =
        for {_node, event} <- Enum.sort(state.nodes),
            do: ["\e[2K", line(event, Map.keys(state.nodes)), "\n"]

      IO.write(state.device, [up | lines])
      %{state | drawn: length(lines)}
    end
  end

  @doc "A node's line."
  @spec line(Event.t(), [node()]) :: String.t()
  def line(event, nodes) do
    widest = nodes |> Enum.map(&String.length("#{&1}")) |> Enum.max()
    filled = filled(event)
    bar = String.duplicate("#", filled) <> String.duplicate(".", @width - filled)

    "#{String.pad_trailing("#{event.node}", widest)} [#{bar}] #{event.phase} #{word(event)}"
    |> Printable.line()
    |> String.slice(0, 100)
  end

  defp filled(%Event{state: :running, done: done, total: total} = event)
       when is_integer(total) and total > 0 do
    from = @begins[event.phase]
    from + div((@share[event.phase] - from) * min(done, total), total)
  end

  defp filled(%Event{state: :running} = event), do: @begins[event.phase]
  defp filled(%Event{state: :failed} = event), do: @begins[event.phase]
  defp filled(%Event{phase: :decide}), do: @width
  defp filled(event), do: @share[event.phase]

  defp word(%Event{state: :failed, text: text}), do: "failed: #{text}"
  defp word(%Event{state: :done}), do: "done"
  defp word(%Event{state: :running}), do: ""
end
