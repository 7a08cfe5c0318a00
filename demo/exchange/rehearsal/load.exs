defmodule Exchange.RehearsalLoad do
  @moduledoc false
  # Subscribers who talk all the time, for `mix hot_patch.rehearse`: one client a node, with calls of its own, so
  # that it knows what each must answer. Used by script/test.

  @behaviour HotPatch.Proving.Load

  @calls 30
  @numbers ["7654321", "0301234", "0044123"]
  @between_ms 2
  @within_ms 30_000

  @impl true
  def start(nodes), do: Map.new(nodes, &{&1, spawn_link(fn -> &1 |> calls() |> talk() end)})

  # Each client answers between two turns of its own: so all that was asked until now has been answered.
  @impl true
  def check(_nodes, clients) do
    case for {node, client} <- clients, problem <- problems(client), do: "#{node}: #{problem}" do
      [] -> :ok
      problems -> {:error, Enum.join(problems, "; ")}
    end
  end

  @impl true
  def stop(nodes, clients) do
    answers = for {_node, client} <- clients, do: ask(client, :answers)
    checked = check(nodes, clients)
    for {_node, client} <- clients, do: Process.unlink(client) && Process.exit(client, :kill)

    if 0 in answers, do: {:error, "nobody has answered on one of the nodes"}, else: checked
  end

  defp problems(client), do: ask(client, :problems)

  defp ask(client, what) do
    reference = make_ref()
    send(client, {what, self(), reference})

    receive do
      {^reference, answer} -> answer
    after
      @within_ms -> if what == :problems, do: ["the client is stuck"], else: 0
    end
  end

  # What a client knows: its calls, and what each has said last.
  defp calls(node) do
    pairs = for index <- 1..@calls, do: {"1234567", Enum.at(@numbers, rem(index, 3))}
    boot = boot(node)
    pids = :erpc.call(node, Exchange, :start_calls, [pairs])

    %{
      node: node,
      boot: boot,
      calls: Map.new(pids, &{&1, {0, 0}}),
      answers: 0,
      problems: []
    }
  end

  # Another process after each restart of the node.
  defp boot(node), do: :erpc.call(node, :erlang, :whereis, [:application_controller])

  defp talk(client) do
    receive do
      {:problems, asker, reference} -> send(asker, {reference, client.problems})
      {:answers, asker, reference} -> send(asker, {reference, client.answers})
    after
      @between_ms -> :nobody_asks
    end

    client |> turn() |> talk()
  end

  # Most turns are talk; some ask for the price, which is what the repair changes, and some are calls of their own,
  # from which trunks and books get something to do.
  defp turn(client) do
    client =
      case :rand.uniform(10) do
        1 -> short_call(client)
        2 -> charge(client)
        _more -> talk_on(client)
      end

    %{client | answers: client.answers + 1}
  catch
    :exit, reason -> lost(client, Exception.format_exit(reason))
    :error, {:erpc, reason} -> lost(client, inspect(reason))
    :error, {:exception, reason, _stack} -> lost(client, inspect(reason))
  end

  # As Exchange.talk/2 does it, whose module is not here; so the others.
  defp talk_on(client) do
    {call, {seconds, requests}} = Enum.random(client.calls)
    wanted = {seconds + 1, requests + 1}

    case GenServer.call(call, {:talk, 1}) do
      %{seconds: seconds, requests: requests} when {seconds, requests} == wanted ->
        %{client | calls: %{client.calls | call => wanted}}

      other ->
        problem(client, "#{inspect(other)} where #{inspect(wanted)} is right")
    end
  end

  # To ask is a request, too.
  defp charge(client) do
    {call, {seconds, requests}} = Enum.random(client.calls)
    cents = GenServer.call(call, :charge)
    client = %{client | calls: %{client.calls | call => {seconds, requests + 1}}}

    if is_integer(cents) and cents >= 0,
      do: client,
      else: problem(client, "#{inspect(cents)} cents")
  end

  defp short_call(client) do
    {:ok, call} = :erpc.call(client.node, Exchange, :start_call, ["0201"])

    case GenServer.call(call, :hang_up) do
      %{seconds: 0} -> client
      other -> problem(client, "#{inspect(other)} where no second was talked")
    end
  end

  # A node that is restarted loses its calls, as with any restart; every other loss is a fault.
  defp lost(client, why) do
    {:started, _status} = :erpc.call(client.node, :init, :get_status, [])

    if boot(client.node) == client.boot,
      do: problem(client, "a call did not answer: #{why}"),
      else: Map.merge(calls(client.node), Map.take(client, [:answers, :problems]))
  catch
    _kind, _stopping_away_or_not_started_yet -> client
  end

  defp problem(client, text), do: %{client | problems: Enum.take([text | client.problems], 5)}
end
