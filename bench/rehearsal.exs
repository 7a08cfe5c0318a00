# What callers notice of a rehearsal: N supervised gen_servers under calls, whose states all convert, without
# anything, rehearsed, rehearsed in a sample, beside a process of low priority that only counts, and while what ten of
# them receive is played for three seconds.
#
#     MIX_ENV=prod mix run bench/rehearsal.exs [--processes 1000,10000,100000] [--rounds 3]
#
# The servers and callers are those of bench/swap.exs. The ways take turns, figures are medians of the
# rounds; "none" waits, and "counting" counts, as long as the rehearsal of all took in the same round, and "quiet" waits as long as the replay. Of the waits of all calls that touch
# that time the longest, and the 99th and 50th percentile. Milliseconds.

for file <- ~w(table erlang swap/subject swap/callers),
    do: Code.require_file("#{file}.exs", __DIR__)

defmodule Bench.Rehearsal do
  alias Bench.Swap.Callers
  alias Bench.Swap.Subject
  alias Bench.Table
  alias HotPatch.Swap
  alias HotPatch.Swap.DynamicCalls

  @ways [:all, :sample, :counting, :none, :replay, :quiet]
  @seconds 3
  @columns [:whole, :longest, :p99, :p50, :foreseen]
  @sample 100

  def run(options) do
    root = Path.join(System.tmp_dir!(), "hot_patch-bench-#{System.pid()}")
    Subject.compile(root, 1)
    :persistent_term.put(__MODULE__, root)
    Logger.configure(level: :error)

    IO.puts(
      "OTP #{System.otp_release()}, #{System.schedulers_online()} schedulers, #{options.rounds} rounds, ms\n"
    )

    IO.puts(line(["processes", "rehearsed", "whole", "longest", "p99", "p50", "foreseen"]))
    for n <- options.processes, do: compare(root, n, options.rounds)
    File.rm_rf!(root)
  end

  defp compare(root, n, rounds) do
    results = Enum.map(1..rounds, fn _round -> round(root, n) end)

    for way <- @ways do
      figures =
        for column <- @columns,
            do: results |> Enum.map(& &1[way][column]) |> Table.median() |> Table.ms()

      IO.puts(line([n, way | figures]))
    end

    IO.puts("")
  end

  defp round(root, n) do
    modules = Subject.modules(1)
    pids = Subject.start(root, modules, n)
    job = job(root)
    callers = Callers.start(pids)
    Subject.settle()

    result =
      Enum.reduce(@ways, %{}, fn way, done ->
        callers = if done == %{}, do: callers, else: Callers.start(pids)
        started = Callers.now()
        found = carry_out(way, job, n, done)
        whole = Callers.now() - started
        waits = callers |> Callers.stop(started) |> Enum.sort()

        figures = %{
          whole: whole,
          longest: List.last(waits),
          p99: Table.percentile(waits, 0.99),
          p50: Table.percentile(waits, 0.5),
          foreseen: found
        }

        Map.put(done, way, figures)
      end)

    for {pid, i} <- pids |> Enum.with_index(1) |> Enum.take_every(97),
        do: ^i = :gen_server.call(pid, :get)

    Subject.stop(modules)
    result
  end

  defp carry_out(:none, _job, _n, done), do: wait(done.all.whole)
  defp carry_out(:quiet, _job, _n, done), do: wait(done.replay.whole)

  # What any work at low priority costs the others on this machine.
  defp carry_out(:counting, _job, _n, done) do
    until = Callers.now() + done.all.whole

    {_pid, monitor} = :erlang.spawn_opt(fn -> count(until, 0) end, [:monitor, priority: :low])

    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> nil
    end
  end

  # Nothing is converted there: only what is heard is played. Of a hundred thousand ten may get nothing.
  defp carry_out(:replay, job, n, _done) do
    without = Enum.map(job.changes, & &1.module)
    how = Map.merge(how(10), %{without: without, replay: replay(job)})
    {:ok, %{replays: [one]}} = Swap.Rehearsal.run(job, how)
    true = (one.messages > 0 or n > 10_000) and one.crashes == []
    nil
  end

  defp carry_out(way, job, n, _done) do
    how = how(if(way == :sample, do: @sample))
    {:ok, %{modules: [one], pause_us: us}} = Swap.Rehearsal.run(job, how)
    all = if(way == :sample, do: min(n, @sample), else: n)
    if one.tried != all, do: raise("#{one.tried} of #{all} tried: #{inspect(one.left_out)}")
    [] = one.failures
    us
  end

  defp how(sample) do
    %{
      within: 60_000,
      deadline: System.monotonic_time(:millisecond) + 600_000,
      sample: sample,
      without: [],
      most_bytes: 32_000_000,
      owner: self(),
      replay: nil
    }
  end

  defp replay(%{changes: [%{module: module}]}) do
    root = :persistent_term.get(__MODULE__)

    [old, new] =
      for {side, version} <- [old: 1, new: 2] do
        {:ok, [{:ok, %{name: name, bytes: bytes}}]} =
          HotPatch.Bridge.request(
            "closed_shadow",
            [Subject.beam(root, version, module)],
            Swap.Replay.naming(side),
            "bench"
          )

        [%{module: module, name: String.to_atom(name), bytes: bytes, lambdas?: false}]
      end

    %{seconds: @seconds, values?: false, old: old, new: new}
  end

  defp wait(us) do
    receive do
    after
      div(us, 1_000) -> nil
    end
  end

  defp count(until, n),
    do: if(rem(n, 1_000) != 0 or Callers.now() < until, do: count(until, n + 1), else: n)

  defp job(root) do
    module = Subject.server()
    [old, new] = for version <- [1, 2], do: Subject.beam(root, version, module)

    # Named in full: an answer is read with no atoms but those that are there.
    {:ok, [{:ok, %{by_name: _, effect: _, makes_funs: _} = shadow}]} =
      HotPatch.Bridge.request("shadow", [new], DynamicCalls.naming(), "bench")

    {:ok, {_module, [exports: exports]}} = :beam_lib.chunks(new, [:exports])
    exports = for {name, arity} <- exports, do: {Atom.to_string(name), arity}
    {:ok, {_module, old_vsn}} = :beam_lib.version(old)
    [old_vsn] = old_vsn

    %Swap.Job{
      changes: [
        %Swap.Change{
          module: module,
          kind: :replace,
          md5: :code.module_md5(new),
          exports: exports,
          arriving: exports,
          old_vsn: old_vsn
        }
      ],
      prepared: nil,
      shadows: [
        %{
          module: module,
          name: String.to_atom(shadow.name),
          bytes: shadow.bytes,
          lambdas?: shadow.lambdas
        }
      ],
      pause_timeout: 60_000
    }
  end

  defp line(cells), do: Table.line([9, 10, 9, 9, 9, 9, 9], cells)
end

{given, [], []} =
  OptionParser.parse(System.argv(), strict: [processes: :string, rounds: :integer])

Bench.Rehearsal.run(%{
  processes:
    (given[:processes] || "1000,10000,100000")
    |> String.split(",")
    |> Enum.map(&String.to_integer/1),
  rounds: given[:rounds] || 3
})
