# Changing the code of N supervised gen_servers while they run: HotPatch's engine, OTP's
# release_handler_1 through its script evaluator, and a hundred parallel sys:suspend with
# purge and load_binary module by module.
#
#     MIX_ENV=prod mix run bench/swap.exs [--processes 1000,10000,100000] [--modules 1,100]
#                                         [--load idle,calls] [--rounds 3]
#                                         [--ways "HotPatch,release_handler_1"] [--funs] [--statems]
#                                         [--hogs 8] [--others 8] [--plots docs/assets]
#
# --hogs are processes of the VM that are always busy, --others programs beside it.
# With --funs every server's state holds a fun of its module, which HotPatch makes anew, with --statems they are gen_statems. With --plots the pause and the
# 99th percentile of the calls over the number of processes are drawn into a folder; those of docs/figures.md by
#
#     MIX_ENV=prod mix run bench/swap.exs --modules 1 --load calls --plots docs/assets \
#       --ways "release_handler_1,sys:suspend 100 wide,HotPatch"
#
# Every way changes the same two builds, whose state format differs, in fresh processes; the
# ways take turns, figures are medians of the rounds. Pauses are seen from outside, by a trace
# of what a sample of the processes receive. "gap" is the longest that one caller waited, "p99"
# of all calls that touch the time of the change; "cpu" is the processor time of this VM from the beginning of the change to
# its end, with that of the callers and hogs, and what else the machine does does not count. Milliseconds.

for file <- ~w(table plot erlang swap/subject swap/callers swap/load swap/probe swap/ways),
    do: Code.require_file("#{file}.exs", __DIR__)

defmodule Bench.Swap do
  alias Bench.Swap.Callers
  alias Bench.Swap.Load
  alias Bench.Swap.Probe
  alias Bench.Swap.Subject
  alias Bench.Swap.Ways
  alias Bench.Table

  @columns [:total, :longest, :median, :gap, :p99, :whole, :cpu]

  def run(options) do
    root = Path.join(System.tmp_dir!(), "hot_patch-bench-#{System.pid()}")
    Subject.compile(root, Enum.max(options.modules), Map.take(options, [:funs, :statems]))
    {:ok, _} = Application.ensure_all_started(:sasl)
    Logger.configure(level: :error)

    IO.puts(
      "OTP #{System.otp_release()}, #{System.schedulers_online()} schedulers, #{options.rounds} rounds, ms\n"
    )

    IO.puts(
      line([
        "processes",
        "modules",
        "load",
        "way",
        "pause",
        "longest",
        "median",
        "gap",
        "p99",
        "whole",
        "cpu"
      ])
    )

    figures =
      for n <- options.processes, modules <- options.modules, load <- options.load do
        {n, compare(root, Subject.modules(modules), n, load, options)}
      end

    if options.plots, do: plot(figures, options)

    File.rm_rf!(root)
  end

  defp plot(figures, %{plots: folder, ways: ways}) do
    for {column, file, title} <- [
          {:total, "pause.svg", "The whole pause"},
          {:p99, "p99.svg", "What callers wait, 99th percentile"}
        ] do
      series =
        for name <- ways do
          {name, for({n, medians} <- figures, us = medians[name][column], do: {n, us / 1000})}
        end

      Bench.Plot.write(Path.join(folder, file), title, series)
    end
  end

  # By way the medians of all columns.
  defp compare(root, modules, n, load, %{rounds: rounds, ways: ways} = options) do
    results =
      for _round <- 1..rounds, name <- ways do
        {name, measure(root, modules, n, load, name, options)}
      end
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

    medians =
      for name <- ways, into: %{} do
        {name,
         Map.new(
           @columns,
           &{&1, results[name] |> Enum.map(fn one -> one[&1] end) |> Table.median()}
         )}
      end

    for name <- ways do
      figures = for column <- @columns, do: Table.ms(medians[name][column])
      IO.puts(line([n, length(modules), load, name | figures]))
    end

    IO.puts("")
    medians
  end

  defp measure(root, modules, n, load, name, options) do
    pids = Subject.start(root, modules, n)
    change = Ways.prepare(name, root, modules)
    callers = if load == "calls", do: Callers.start(pids), else: []
    Subject.settle()

    stop = Load.start(options)
    probe = Probe.start(pids)
    used = Table.processor()
    started = Callers.now()
    left? = change.() == :nothing
    whole = Callers.now() - started
    cpu = Table.processor() - used
    pauses = Probe.stop(probe)
    stop.()
    waits = callers |> Callers.stop(started) |> Enum.sort()

    version = Subject.server().module_info(:attributes)[:vsn] |> hd()
    true = left? or version == 2
    true = not Ways.converts?(name) or pids |> Enum.take_every(97) |> Enum.all?(&converted?/1)

    for {pid, i} <- pids |> Enum.with_index(1) |> Enum.take_every(97),
        do: ^i = :gen_server.call(pid, :get)

    Subject.stop(modules)
    p99 = Table.percentile(waits, 0.99)
    Map.merge(pauses, %{whole: whole, cpu: cpu, gap: List.last(waits), p99: p99})
  end

  defp converted?(pid) when is_pid(pid), do: pid |> :sys.get_state() |> converted?()
  defp converted?({:on, data}), do: converted?(data)
  defp converted?(state), do: tuple_size(state) > 2 and elem(state, 2) == 2

  defp line(cells), do: Table.line([9, 7, 5, 20, 8, 8, 8, 8, 8, 8, 8], cells)
end

{given, [], []} =
  OptionParser.parse(System.argv(),
    strict: [
      processes: :string,
      modules: :string,
      load: :string,
      rounds: :integer,
      funs: :boolean,
      statems: :boolean,
      hogs: :integer,
      others: :integer,
      plots: :string,
      ways: :string
    ]
  )

numbers = fn text -> text |> String.split(",") |> Enum.map(&String.to_integer/1) end

Bench.Swap.run(%{
  processes: numbers.(given[:processes] || "1000,10000,100000"),
  modules: numbers.(given[:modules] || "1,100"),
  load: String.split(given[:load] || "idle,calls", ","),
  rounds: given[:rounds] || 3,
  funs: given[:funs] || false,
  statems: given[:statems] || false,
  hogs: given[:hogs] || 0,
  others: given[:others] || 0,
  plots: given[:plots],
  ways: if(given[:ways], do: String.split(given[:ways], ","), else: Bench.Swap.Ways.names())
})
