# What it costs a running system to be looked at: `HotPatch.plan/2` and `HotPatch.check/2` of a patch of one
# module and `HotPatch.drift/1` on a system of 400 modules and N processes that serves clients, against the
# plain way: reading the files of all modules, comparing each with the code that runs by what
# `Module.module_info/0` says, and analysing all of them.
#
#     MIX_ENV=prod mix run --no-start bench/plan.exs [--processes 2000,100000] [--rounds 5]
#                                                    [--ways "plan,check,drift,counting,nothing"]
#
# The ways take turns; figures are medians. Calls are those of the clients while a way is at work: each waits
# a millisecond between two. "counting" is a process of low priority for each scheduler that only counts for as long
# as the plan of the round took, which is what any work costs there; "nothing" is as long without it. "first" is the
# first plan, for which no file was measured yet.

Code.require_file("table.exs", __DIR__)
Code.require_file("erlang.exs", __DIR__)
Code.require_file("swap/callers.exs", __DIR__)

defmodule Bench.Plan do
  alias Bench.Swap.Callers
  alias Bench.Table

  @modules 400
  # Calls from each module to others, and functions besides, so that a file has some 20 kB.
  @calls 20
  @functions 60

  def run(options) do
    root = Path.join(System.tmp_dir!(), "hot_patch_bench-#{System.pid()}")

    try do
      modules = system(root)
      patch = patch(hd(modules))

      IO.puts(
        "OTP #{System.otp_release()}, Elixir #{System.version()}, #{System.schedulers_online()} schedulers, " <>
          "#{options.rounds} rounds, #{@modules} modules\n"
      )

      IO.puts(line(["processes", "way", "ms", "calls p99", "worst"]))
      for n <- options.processes, do: series(n, modules, patch, options)
    after
      File.rm_rf!(root)
    end
  end

  defp series(n, modules, patch, options) do
    servers = for i <- 1..n, do: start(Enum.at(modules, rem(i, @modules)))
    settle()
    write(n, "first", [measure(servers, fn -> HotPatch.plan(patch.id) end)])

    runs =
      for _round <- 1..options.rounds, name <- options.ways, reduce: [] do
        runs ->
          settle()
          lasts = Enum.find_value(runs, 500, fn {name, {ms, _, _}} -> name == "plan" && ms end)
          [{name, measure(servers, way(name, modules, patch, round(lasts)))} | runs]
      end

    for name <- options.ways, do: write(n, name, for({^name, figures} <- runs, do: figures))
    for pid <- servers, do: Process.exit(pid, :kill)
  end

  defp way("plain way", modules, patch, _ms), do: fn -> plain(modules, patch) end

  defp way("plan", _modules, patch, _ms),
    do: fn -> {:ok, %{status: :ok}} = HotPatch.plan(patch.id) end

  defp way("check", _modules, patch, _ms),
    do: fn -> {:ok, %{status: :ok}} = HotPatch.check(patch.id) end

  defp way("drift", _modules, _patch, _ms), do: fn -> {:ok, _none} = HotPatch.drift() end
  defp way("counting", _modules, _patch, ms), do: fn -> count(ms) end
  defp way("nothing", _modules, _patch, ms), do: fn -> wait(ms) end

  defp count(ms) do
    until = System.monotonic_time(:millisecond) + ms

    counters =
      for _ <- 1..System.schedulers_online(),
          do: :erlang.spawn_opt(fn -> count_until(until) end, [:monitor, priority: :low])

    for {pid, monitor} <- counters do
      receive do
        {:DOWN, ^monitor, :process, ^pid, :normal} -> :ok
      end
    end
  end

  defp count_until(until),
    do: if(System.monotonic_time(:millisecond) < until, do: count_until(until))

  defp wait(ms) do
    receive do
    after
      ms -> :ok
    end
  end

  # Nothing that came before is still to be collected.
  defp settle do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    wait(300)
  end

  defp write(n, name, runs) do
    figures = for place <- 0..2, do: runs |> Enum.map(&elem(&1, place)) |> Table.median()
    IO.puts(line([n, name | Enum.map(figures, &Table.decimal(&1, 1))]))
  end

  # Milliseconds: the way itself, and what clients waited meanwhile.
  defp measure(servers, way) do
    callers = Callers.start(servers)
    wait(100)
    since = Callers.now()
    {us, _result} = :timer.tc(way)
    waits = callers |> Callers.stop(since) |> Enum.sort()
    {us / 1000, Table.percentile(waits, 0.99) / 1000, List.last(waits) / 1000}
  end

  defp plain(modules, patch) do
    before =
      for module <- modules do
        bytes = File.read!(:code.which(module))
        true = :code.module_md5(bytes) == module.module_info()[:md5]
        bytes
      end

    {:ok, composition} = HotPatch.composition(patch.id)
    later = for %{beam: %{}} = file <- composition.files, do: file.bytes
    {:ok, _analysis} = HotPatch.Analysis.run(before, later)
  end

  defp system(root) do
    ebin = Path.join(root, "lib/bench_system-1.0.0/ebin")
    File.mkdir_p!(ebin)
    Code.prepend_path(ebin)
    names = for n <- 1..@modules, do: :"bench_system_#{n}"

    names
    |> Enum.with_index()
    |> Task.async_stream(
      fn {name, n} -> File.write!(Path.join(ebin, "#{name}.beam"), compile(name, n, 1)) end,
      timeout: :infinity
    )
    |> Stream.run()

    Application.put_env(:hot_patch, :data_dir, Path.join(root, "data"))
    Application.put_env(:hot_patch, :release, {"bench_system", "1.0.0"})
    {:ok, _started} = Application.ensure_all_started(:hot_patch)
    :ok = :code.ensure_modules_loaded(names)
    names
  end

  defp patch(name) do
    file = {~c"bench_system-1.0.0/ebin/#{name}.beam", compile(name, 0, 2)}
    {:ok, {_name, zip}} = :zip.create(~c"patch.zip", [file], [:memory])
    {:ok, patch} = HotPatch.upload(zip, name: "bench")
    patch
  end

  defp start(module) do
    {:ok, pid} = :gen_server.start(module, [], [])
    pid
  end

  # A gen_server that calls others, with functions that make and take apart some data.
  defp compile(name, n, vsn) do
    calls =
      for c <- 1..@calls do
        other = :"bench_system_#{rem(n * 7 + c * 13, @modules) + 1}"
        {"c#{c}", "c#{c}(X) -> #{other}:f#{c}(X, X)"}
      end

    functions =
      for f <- 1..@functions do
        {"f#{f}",
         "f#{f}({a, X}, Y) when X > #{f} -> [{Z, \#{key#{f} => Y, text => <<\"text #{n} #{f}\">>}} || Z <- X, Z =/= Y]; " <>
           "f#{f}(\#{key#{f} := X}, _) -> {ok, X, [one, #{f}, \"more of it\"]}; f#{f}(X, Y) -> {other, X, Y, #{f}}"}
      end

    text = """
    -module(#{name}).
    -vsn(#{vsn}).
    -behaviour(gen_server).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
    -export([#{Enum.map_join(calls, ", ", fn {name, _} -> "#{name}/1" end)}]).
    -export([#{Enum.map_join(functions, ", ", fn {name, _} -> "#{name}/2" end)}]).
    init(_) -> {ok, 0}.
    handle_call(get, _From, N) -> {reply, N, N + #{vsn}}.
    handle_cast(_, N) -> {noreply, N}.
    code_change(_, N, _) -> {ok, N}.
    #{Enum.map_join(calls ++ functions, "\n", fn {_name, text} -> text <> "." end)}
    """

    Bench.Erlang.compile(text, [:debug_info])
  end

  defp line(cells), do: Table.line([9, 10, 9, 10, 8], cells)
end

{given, [], []} =
  OptionParser.parse(System.argv(), strict: [processes: :string, rounds: :integer, ways: :string])

Bench.Plan.run(%{
  processes:
    for(n <- String.split(given[:processes] || "2000,100000", ","), do: String.to_integer(n)),
  rounds: given[:rounds] || 5,
  ways: String.split(given[:ways] || "plain way,plan,check,drift,counting,nothing", ",")
})
