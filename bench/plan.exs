# What it costs a running system to be looked at: `HotPatch.plan/2` of a patch of one module and
# `HotPatch.drift/1` on a system of 400 modules and 2,000 processes that serves clients, against the
# plain way: reading the files of all modules, comparing each with the code that runs by what
# `Module.module_info/0` says, and analysing all of them.
#
#     MIX_ENV=prod mix run --no-start bench/plan.exs [ROUNDS]
#
# The ways take turns; figures are medians. Calls are those of the clients while a way is at work;
# the last line has what they wait when nothing is looked at.

Code.require_file("table.exs", __DIR__)
Code.require_file("swap/callers.exs", __DIR__)

defmodule Bench.Plan do
  alias Bench.Swap.Callers
  alias Bench.Table

  @modules 400
  @processes 2_000
  # Calls from each module to others, and functions besides, so that a file has some 20 kB.
  @calls 20
  @functions 60

  def run(rounds) do
    root = Path.join(System.tmp_dir!(), "hot_patch_bench-#{System.pid()}")

    try do
      modules = system(root)
      servers = for n <- 1..@processes, do: start(Enum.at(modules, rem(n, @modules)))
      patch = patch(hd(modules))

      IO.puts(
        "OTP #{System.otp_release()}, Elixir #{System.version()}, #{System.schedulers_online()} schedulers, " <>
          "#{rounds} rounds, #{@modules} modules, #{@processes} processes\n"
      )

      compare(rounds, servers, [
        {"plain way", fn -> plain(modules, patch) end},
        {"plan", fn -> {:ok, _plan} = HotPatch.plan(patch.id) end},
        {"drift", fn -> {:ok, _none} = HotPatch.drift() end},
        {"nothing", fn -> receive after: (500 -> :ok) end}
      ])
    after
      File.rm_rf!(root)
    end
  end

  defp compare(rounds, servers, ways) do
    IO.puts(line(["way", "ms", "ratio", "calls p99", "worst"]))
    runs = for _round <- 1..rounds, {name, way} <- ways, do: {name, measure(servers, way)}
    figures = Enum.group_by(runs, &elem(&1, 0), &elem(&1, 1))
    median = fn name, place -> figures[name] |> Enum.map(&elem(&1, place)) |> Table.median() end
    base = median.("plain way", 0)

    for {name, _way} <- ways do
      ratio = if name == "nothing", do: "", else: Table.decimal(base / median.(name, 0))
      [p99, worst] = for place <- [1, 2], do: Table.decimal(median.(name, place), 2)
      IO.puts(line([name, Table.decimal(median.(name, 0)), ratio, p99, worst]))
    end
  end

  # Milliseconds: the way itself, and what clients waited meanwhile.
  defp measure(servers, way) do
    callers = Callers.start(servers)
    since = Callers.now()
    {us, _result} = :timer.tc(way)
    waits = callers |> Callers.stop(since) |> Enum.sort()
    p99 = Enum.at(waits, div(length(waits) * 99, 100))
    {us / 1000, p99 / 1000, List.last(waits) / 1000}
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

    {:ok, _module, beam} = text |> forms() |> :compile.forms([:debug_info])
    beam
  end

  defp forms(text) do
    {:ok, tokens, _end} = text |> String.to_charlist() |> :erl_scan.string()

    tokens
    |> Enum.chunk_while([], &chunk/2, fn [] -> {:cont, []} end)
    |> Enum.map(fn form ->
      {:ok, parsed} = :erl_parse.parse_form(form)
      parsed
    end)
  end

  defp chunk({:dot, _} = token, form), do: {:cont, Enum.reverse([token | form]), []}
  defp chunk(token, form), do: {:cont, [token | form]}

  defp line(cells), do: Table.line([10, 9, 7, 10, 8], cells)
end

rounds =
  case System.argv() do
    [text] -> String.to_integer(text)
    [] -> 5
  end

Bench.Plan.run(rounds)
