defmodule Bench.Swap.Subject do
  # What is swapped: an application whose supervisor has N gen_servers, or gen_statems, of one module, and
  # pure modules beside it to fill a patch. Two versions of each, on disk in the layout of a
  # release, because release_handler reads them from there.

  @server :bench_server
  @app :bench_app

  def server, do: @server
  def app, do: @app

  @doc """
  Compiles both versions of `count` modules below `root`. Of `as`, `funs`: each state holds a fun; `statems`:
  they are gen_statems.
  """
  def compile(root, count, as \\ %{funs: false, statems: false}) do
    for version <- [1, 2] do
      ebin = ebin(root, version)
      File.mkdir_p!(ebin)
      write(ebin, @server, server_text(version, as))
      write(ebin, :bench_sup, supervisor_text())
      for n <- 1..(count - 1)//1, do: write(ebin, pure(n), pure_text(n, version))
    end

    :ok
  end

  @doc "The modules of a patch of `count` modules, the server first."
  def modules(count), do: [@server | for(n <- 1..(count - 1)//1, do: pure(n))]

  def ebin(root, version), do: Path.join([root, "bench_app-#{version}", "ebin"])

  def beam(root, version, module),
    do: File.read!(Path.join(ebin(root, version), "#{module}.beam"))

  @doc "Loads version 1 of everything, starts the application and its servers."
  def start(root, modules, n) do
    for module <- [:bench_sup | modules] do
      path = Path.join(ebin(root, 1), "#{module}.beam")
      {:module, ^module} = :code.load_binary(module, String.to_charlist(path), File.read!(path))
    end

    app =
      {:application, @app,
       [
         vsn: ~c"1",
         modules: modules,
         registered: [],
         applications: [:kernel, :stdlib],
         mod: {:bench_sup, []}
       ]}

    :ok = :application.load(app)
    :ok = :application.start(@app)
    for i <- 1..n, do: :supervisor.start_child(:bench_sup, [i]) |> elem(1)
  end

  # Garbage of the start is collected, callers are at their pace.
  def settle do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)

    receive do
    after
      300 -> :ok
    end
  end

  def stop(modules) do
    _ = :application.stop(@app)
    _ = :application.unload(@app)

    for module <- modules do
      :code.purge(module)
      :code.delete(module)
      :code.purge(module)
    end

    :ok
  end

  defp pure(n), do: :"bench_pure_#{n}"

  defp write(ebin, module, text) do
    File.write!(Path.join(ebin, "#{module}.beam"), Bench.Erlang.compile(text))
  end

  # The state's format differs: {s, N} and {s, N, Version}. Calls take both, as the transition
  # that is declared compatible needs.
  defp server_text(version, as) do
    {fun, first} = if as.funs, do: {", F", "F = fun() -> {#{version}, N} end, "}, else: {"", ""}
    {one, two} = {"{s, N#{fun}}", "{s, N, 2#{fun}}"}
    {state, pattern} = if version == 1, do: {one, two}, else: {two, one}

    text =
      if as.statems,
        do: statem_text(first, state, pattern),
        else: server_text(first, state, pattern)

    "-module(#{@server}).\n-vsn(#{version}).\n" <> String.replace(text, "?MODULE", "#{@server}")
  end

  defp server_text(first, state, pattern) do
    """
    -behaviour(gen_server).
    -export([start_link/1, init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
    start_link(N) -> gen_server:start_link(?MODULE, N, []).
    init(N) -> #{first}{ok, #{state}}.
    handle_call(get, _From, S) -> {reply, element(2, S), S}.
    handle_cast(_, S) -> {noreply, S}.
    handle_info(_, S) -> {noreply, S}.
    code_change(_Vsn, #{pattern}, _Extra) -> {ok, #{state}}.
    """
  end

  # A gen_server's calls are its, too.
  defp statem_text(first, state, pattern) do
    """
    -behaviour(gen_statem).
    -export([start_link/1, init/1, callback_mode/0, handle_event/4, code_change/4]).
    start_link(N) -> gen_statem:start_link(?MODULE, N, []).
    init(N) -> #{first}{ok, on, #{state}}.
    callback_mode() -> handle_event_function.
    handle_event({call, From}, get, on, S) -> {keep_state_and_data, [{reply, From, element(2, S)}]}.
    code_change(_Vsn, on, #{pattern}, _Extra) -> {ok, on, #{state}}.
    """
  end

  defp supervisor_text do
    """
    -module(bench_sup).
    -behaviour(supervisor).
    -export([start/2, stop/1, init/1]).
    start(_, _) -> supervisor:start_link({local, bench_sup}, bench_sup, []).
    stop(_) -> ok.
    init([]) ->
        {ok, {\#{strategy => simple_one_for_one, intensity => 1000000},
              [\#{id => server, start => {#{@server}, start_link, []}, shutdown => brutal_kill}]}}.
    """
  end

  # About 20 kB, with exports, funs and literals, as real modules have them.
  defp pure_text(n, version) do
    functions =
      for i <- 1..60 do
        """
        f#{i}(X) when X > #{i} -> {#{version}, #{n}, "literal #{i} of #{n}", fun(Y) -> f#{i}(Y - X) end};
        f#{i}(X) -> lists:map(fun(Z) -> {Z, X, #{i}} end, lists:seq(1, X)).
        """
      end

    exports = Enum.map_join(1..60, ", ", &"f#{&1}/1")
    "-module(#{pure(n)}).\n-vsn(#{version}).\n-export([#{exports}]).\n" <> Enum.join(functions)
  end
end
