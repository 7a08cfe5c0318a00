# From one version of a release to the next, on three nodes under calls: HotPatch, and OTP's release_handler with
# the relup that `mix hot_patch.relup` makes of the same two releases.
#
#     MIX_ENV=prod mix run bench/upgrade.exs [--processes 1000,10000] [--modules 1,100] [--nodes 3]
#                                            [--rounds 3] [--failing]
#
# The release has one application that changes, with N gen_servers whose states convert and so many modules, one
# that comes and one that goes. Both ways begin in fresh nodes and take turns; figures are medians of the rounds, of the
# worst node each. "bring" is `unpack_release` on each node, or `upload` on one; "install" is `install_release`
# on all nodes at once, or `apply`; "pause" is from the first process of a node that is told to stand still to the last that goes
# on; "longest" what one caller waited. Milliseconds; the last line is the ratio of both.
#
# With --failing one server of the second node has a state that the new `code_change` does not take, and it is
# counted what is left a moment later: nodes by the release that they run, processes that have lost their state, and "away" is
# the longest time in which the second node did not answer. A VM that has ended is started again at once.

for file <- ~w(table erlang hidden_node upgrade/subject upgrade/nodes upgrade/ways),
    do: Code.require_file("#{file}.exs", __DIR__)

# These run on the nodes too.
helpers =
  for file <- ~w(swap/callers swap/probe upgrade/side),
      module <- Code.require_file("#{file}.exs", __DIR__),
      do: module

defmodule Bench.Upgrade do
  alias Bench.Table
  alias Bench.Upgrade.Nodes
  alias Bench.Upgrade.Side
  alias Bench.Upgrade.Subject
  alias Bench.Upgrade.Ways

  # Microseconds for which a node is looked at when the install has ended.
  @afterwards 10_000_000

  @columns [:bring, :install, :pause, :longest]

  def run(options, helpers) do
    Bench.HiddenNode.start()
    root = Path.join(System.tmp_dir!(), "hot_patch-bench-#{System.pid()}")
    {:ok, _} = Application.ensure_all_started(:sasl)
    Logger.configure(level: :error)

    IO.puts(
      "OTP #{System.otp_release()}, #{System.schedulers_online()} schedulers, #{options.nodes} nodes, " <>
        "#{options.rounds} rounds, ms\n"
    )

    IO.puts(
      if options.failing,
        do: failing_line(),
        else: line(["processes", "modules", "way" | @columns])
    )

    try do
      for modules <- options.modules do
        folder = Path.join(root, "m#{modules}")
        made = Subject.make(folder, modules)

        for n <- options.processes do
          measure = if options.failing, do: &fail/5, else: &compare/5
          measure.(folder, made, {n, modules}, options, helpers)
        end
      end
    after
      File.rm_rf!(root)
    end
  end

  ## Both, without a fault

  defp compare(folder, made, {n, modules}, options, helpers) do
    results =
      for _round <- 1..options.rounds, way <- Ways.names() do
        {way, with_nodes(folder, made, options, helpers, &install(&1, made, way, n))}
      end
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

    medians =
      for {way, rounds} <- results, into: %{} do
        {way,
         Map.new(@columns, fn column -> {column, Table.median(Enum.map(rounds, & &1[column]))} end)}
      end

    for way <- Ways.names(),
        do:
          IO.puts(line([n, modules, way | for(one <- @columns, do: Table.ms(medians[way][one]))]))

    [theirs, ours] = for way <- Ways.names(), do: medians[way]
    ratios = for one <- @columns, do: Table.decimal(theirs[one] / max(ours[one], 1), 2)
    IO.puts(line([n, modules, "ratio" | ratios]) <> "\n")
  end

  defp with_nodes(folder, made, options, helpers, fun) do
    nodes = Nodes.start(options.nodes, folder, made, helpers)

    try do
      fun.(nodes)
    after
      Nodes.stop(nodes)
    end
  end

  defp install(nodes, made, way, n) do
    pids = for node <- nodes, do: Nodes.call(node, Side, :servers, [n])
    {bring, brought} = :timer.tc(fn -> Ways.bring(way, nodes, made) end)

    watched =
      for {node, servers} <- Enum.zip(nodes, pids), do: Nodes.call(node, Side, :watch, [servers])

    {install, answers} = :timer.tc(fn -> Ways.install(way, nodes, brought) end)
    if Enum.any?(answers, &(&1 != :ok)), do: raise("#{way}: #{inspect(answers, limit: 50)}")
    seen = for {node, pid} <- Enum.zip(nodes, watched), do: Nodes.call(node, Side, :seen, [pid])

    for {node, servers} <- Enum.zip(nodes, pids),
        do: %{3 => ^n} = Nodes.call(node, Side, :audit, [servers])

    worst = fn fun -> seen |> Enum.map(fun) |> Enum.max() end

    %{
      bring: bring,
      install: install,
      pause: worst.(fn {pauses, _waits} -> pauses.total end),
      longest: worst.(fn {_pauses, waits} -> List.last(waits) end)
    }
  end

  ## One code_change fails

  defp fail(folder, made, {n, modules}, options, helpers) do
    for way <- Ways.names() do
      rounds =
        for _round <- 1..options.rounds,
            do: with_nodes(folder, made, options, helpers, &poisoned(&1, made, way, n))

      [old, new, lost, away] =
        for one <- [:old, :new, :lost, :away], do: Table.median(Enum.map(rounds, & &1[one]))

      IO.puts(failing_line([n, modules, way, old, new, lost, Table.ms(away)]))
    end
  end

  defp poisoned(nodes, made, way, n) do
    pids = for node <- nodes, do: Nodes.call(node, Side, :servers, [n])
    [_first, victim | _] = nodes
    victims = Enum.at(pids, 1)
    :ok = Nodes.call(victim, :gen_server, :call, [Enum.at(victims, div(n, 2)), :poison])
    brought = Ways.bring(way, nodes, made)
    looks = Task.async(fn -> look(victim, System.monotonic_time(:microsecond), 0) end)
    answers = Ways.install(way, nodes, brought)
    true = Enum.any?(answers, &(&1 != :ok))
    {victim, away} = Task.await(tell(looks), :infinity)
    nodes = List.replace_at(nodes, 1, victim)

    counts =
      for {node, servers} <- Enum.zip(nodes, pids) do
        # Those who look may have gone with their VM.
        audit(node, servers)
      end

    %{
      old: Enum.count(nodes, &(release(&1) == Subject.old())),
      new: Enum.count(nodes, &(release(&1) == Subject.new())),
      lost: n * length(nodes) - Enum.sum(for count <- counts, {_form, some} <- count, do: some),
      away: away
    }
  end

  defp audit(node, servers) do
    Nodes.call(node, Side, :audit, [servers])
  catch
    :error, {:exception, :undef, _} -> %{}
    :error, {:erpc, _} -> %{}
  end

  defp release(node) do
    {:shop, _, version} =
      List.keyfind(Nodes.call(node, :application, :which_applications, []), :shop, 0)

    to_string(version)
  end

  defp tell(task) do
    send(task.pid, :installed)
    task
  end

  # The longest time without an answer of the node; until some seconds after the install, for it may be about to end.
  defp look(node, answered, longest, until \\ nil) do
    now = System.monotonic_time(:microsecond)
    until = until || if(installed?(), do: now + @afterwards)

    cond do
      not Nodes.serves?(node) ->
        look(if(alive?(node), do: node, else: Nodes.revive(node)), answered, longest, until)

      until != nil and now > until ->
        {node, longest}

      true ->
        answer = System.monotonic_time(:microsecond)
        receive(after: (1 -> look(node, answer, max(longest, answer - answered), until)))
    end
  end

  defp installed? do
    receive do
      :installed -> true
    after
      0 -> false
    end
  end

  defp alive?(node), do: File.dir?("/proc/#{node.os_pid}")

  defp failing_line,
    do:
      failing_line([
        "processes",
        "modules",
        "way",
        "on 1.0.0",
        "on 1.1.0",
        "states lost",
        "away"
      ])

  defp failing_line(cells), do: Table.line([9, 7, 16, 8, 8, 11, 8], cells)
  defp line(cells), do: Table.line([9, 7, 16, 8, 8, 8, 8], cells)
end

{given, [], []} =
  OptionParser.parse(System.argv(),
    strict: [
      processes: :string,
      modules: :string,
      nodes: :integer,
      rounds: :integer,
      failing: :boolean
    ]
  )

numbers = fn text -> text |> String.split(",") |> Enum.map(&String.to_integer/1) end

Bench.Upgrade.run(
  %{
    processes: numbers.(given[:processes] || "1000,10000"),
    modules: numbers.(given[:modules] || "1,100"),
    nodes: given[:nodes] || 3,
    rounds: given[:rounds] || 3,
    failing: given[:failing] || false
  },
  helpers
)
