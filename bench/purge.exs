# Taking the old code of M modules out of a node with N processes, none of which runs it:
# what stands before the second change of the same modules.
#
#     MIX_ENV=prod mix run bench/purge.exs [--processes 10000,100000] [--modules 1,100]
#                                          [--load calls,busy] [--rounds 3]
#
# Two steps, each in the way that OTP offers and in ours: finding who runs old code, and the
# purge. A third is what no purge of the VM does: asking each process for all modules at once, against one module
# after the other; it purges nothing, and says what the order of the questions costs. The ways take turns, figures are medians of the rounds, "ratio" is to OTP's way in
# the same run. Meanwhile one process asks the code server and others call the gen_servers,
# once a millisecond: "server" and "call" are the longest that one of them waited. On a
# busy node twice as many processes as there are schedulers compute without end.
# Milliseconds.

for file <- ~w(table swap/subject swap/callers), do: Code.require_file("#{file}.exs", __DIR__)

defmodule Bench.Purge do
  alias Bench.Swap.Callers
  alias Bench.Swap.Subject
  alias Bench.Table
  alias HotPatch.Swap

  # The first of each step is what the others are measured against.
  @steps [
    find: ["check_process_code", "HotPatch"],
    purge: ["code:soft_purge", "HotPatch"],
    asks: ["module by module", "process by process"]
  ]

  def run(options) do
    root = Path.join(System.tmp_dir!(), "hot_patch-bench-#{System.pid()}")
    Subject.compile(root, Enum.max(options.modules) + 1)
    Logger.configure(level: :error)

    IO.puts(
      "OTP #{System.otp_release()}, #{System.schedulers_online()} schedulers, #{options.rounds} rounds, ms\n"
    )

    IO.puts(line(~w(processes modules load step way time ratio server call)))

    for n <- options.processes, modules <- options.modules, load <- options.load do
      # The first of the subject's modules is the one that the processes run.
      [_server | pure] = all = Subject.modules(modules + 1)
      pids = Subject.start(root, all, n)

      for {step, ways} <- @steps,
          do: compare(root, {pure, pids, load}, step, ways, options.rounds)

      Subject.stop(all)
      IO.puts("")
    end

    File.rm_rf!(root)
  end

  defp spin do
    for _ <- 1..(2 * System.schedulers_online()), do: spawn(fn -> spin(0) end)
  end

  defp spin(n), do: spin(:erlang.phash2(n))

  defp compare(root, {modules, pids, load}, step, [first | _] = ways, rounds) do
    results =
      for _round <- 1..rounds, way <- ways do
        make_old(root, modules)
        {way, measure(pids, load, fn -> do_step(step, way, modules) end)}
      end
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

    median = fn way, column -> results[way] |> Enum.map(& &1[column]) |> Table.median() end

    for way <- ways do
      ratio = median.(way, :time) / max(1, median.(first, :time))
      times = for column <- [:time, :server, :call], do: text(median.(way, column))
      ratio = Table.decimal(ratio, 3)

      IO.puts(
        line([length(pids), length(modules), load, step, way | List.insert_at(times, 1, ratio)])
      )
    end
  end

  defp do_step(:find, "check_process_code", modules) do
    for module <- modules, pid <- Process.list(), pid != self() do
      false = :erlang.check_process_code(pid, module)
    end
  end

  defp do_step(:find, "HotPatch", modules), do: %{} = Swap.holders(modules)

  defp do_step(:purge, "code:soft_purge", modules),
    do: for(module <- modules, do: true = :code.soft_purge(module))

  defp do_step(:purge, "HotPatch", modules), do: :ok = Swap.OldCode.Purge.all(modules)

  defp do_step(:asks, "module by module", modules),
    do: for(module <- modules, do: ask_all(for pid <- others(), do: {pid, module}))

  defp do_step(:asks, "process by process", modules),
    do: ask_all(for pid <- others(), module <- modules, do: {pid, module})

  defp others, do: List.delete(Process.list(), self())

  # As the VM's own purger asks: so many questions are under way.
  @under_way 64

  defp ask_all(questions) do
    {first, rest} = Enum.split(questions, @under_way)
    Enum.each(first, &ask_one/1)

    for question <- rest do
      answered()
      ask_one(question)
    end

    for _ <- first, do: answered()
  end

  defp ask_one({pid, module}), do: :erlang.check_process_code(pid, module, async: module)

  defp answered do
    receive do
      {:check_process_code, _module, false} -> :ok
    end
  end

  defp measure(pids, load, fun) do
    settle()
    spinning = if load == "busy", do: spin(), else: []
    callers = Callers.start(pids)
    asker = spawn_link(fn -> ask(0) end)
    started = Callers.now()
    fun.()
    time = Callers.now() - started
    for pid <- spinning, do: Process.exit(pid, :kill)
    send(asker, {:stop, self()})

    receive do
      {^asker, longest} ->
        %{time: time, server: longest, call: Enum.max(Callers.stop(callers, started))}
    end
  end

  # A request that only the code server itself can answer.
  defp ask(longest) do
    at = Callers.now()
    _ = :code.get_path()
    longest = max(longest, Callers.now() - at)

    receive do
      {:stop, from} -> send(from, {self(), longest})
    after
      1 -> ask(longest)
    end
  end

  defp make_old(root, modules) do
    for module <- modules do
      :code.purge(module)
      path = String.to_charlist(Path.join(Subject.ebin(root, 1), "#{module}.beam"))
      {:module, ^module} = :code.load_binary(module, path, Subject.beam(root, 1, module))
      true = :erlang.check_old_code(module)
    end
  end

  # Garbage is collected, and the VM is through with the literals of what was purged.
  defp settle do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)

    receive do
    after
      1_000 -> :ok
    end
  end

  defp text(us), do: Table.decimal(us / 1000)

  defp line(cells), do: Table.line([9, 7, 5, 5, 20, 9, 7, 8, 8], cells)
end

{given, [], []} =
  OptionParser.parse(System.argv(),
    strict: [processes: :string, modules: :string, load: :string, rounds: :integer]
  )

numbers = fn text -> text |> String.split(",") |> Enum.map(&String.to_integer/1) end

Bench.Purge.run(%{
  processes: numbers.(given[:processes] || "10000,100000"),
  modules: numbers.(given[:modules] || "1,100"),
  load: String.split(given[:load] || "calls", ","),
  rounds: given[:rounds] || 3
})
