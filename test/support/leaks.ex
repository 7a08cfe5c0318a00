defmodule HotPatch.Test.Leaks do
  @moduledoc false
  # Code that tries to reach somebody, in every way there is, and what would be seen of it.

  @witness :hot_patch_test_witness
  @table :hot_patch_test_leaks

  # What is written with `w` for a process that must hear nothing, `leak` for what it must not hear. Where it
  # says `:never`, it is not done for real, not even to see that it would be seen.
  @attempts [
    send: "send(w, leak)",
    send_3: ":erlang.send(w, leak, [:noconnect])",
    send_apply: "apply(:erlang, :send, [w, leak])",
    send_named: ~S|mod = String.to_atom("erl" <> "ang"); mod.send(w, leak)|,
    send_made: ":erlang.make_fun(:erlang, :send, 2).(w, leak)",
    send_captured: "Function.capture(:erlang, :send, 2).(w, leak)",
    send_fun: "f = Enum.at([&:erlang.send/2], 0); f.(w, leak)",
    send_packed:
      "f = :erlang.binary_to_term(:erlang.term_to_binary(&:erlang.send/2)); f.(w, leak)",
    send_each: "Enum.each([leak], &send(w, &1))",
    send_reduce: "Enum.reduce([w], leak, &:erlang.send/2)",
    send_foldl: ":lists.foldl(&:erlang.send/2, leak, [w])",
    send_nested:
      "Enum.map([1], fn _ -> Enum.map([leak], fn x -> apply(Kernel, :send, [w, x]) end) end)",
    send_caught: "try do spawn(fn -> :ok end) catch _, _ -> :ok end; send(w, leak)",
    send_after: "Process.send_after(w, leak, 0)",
    start_timer: ":erlang.start_timer(0, w, leak)",
    timer: ":timer.send_after(0, w, leak)",
    timer_apply: ":timer.apply_after(0, :erlang, :send, [w, leak])",
    cast: "GenServer.cast(w, leak)",
    call: "try do GenServer.call(w, leak, 50) catch :exit, _ -> :ok end",
    gen_reply: "GenServer.reply({w, :tag}, leak)",
    multi: "GenServer.abcast([node()], w, leak)",
    spawn: "spawn(fn -> send(w, leak) end)",
    spawn_link: "spawn_link(:erlang, :send, [w, leak])",
    spawn_opt: ":erlang.spawn_opt(fn -> send(w, leak) end, [])",
    spawn_request: ":erlang.spawn_request(:erlang, :send, [w, leak])",
    proc_lib: ":proc_lib.spawn(fn -> send(w, leak) end)",
    task: "Task.start(fn -> send(w, leak) end)",
    task_async: "Task.async(fn -> send(w, leak) end) |> Task.await()",
    agent: "Agent.start(fn -> send(w, leak) end)",
    exit: "Process.exit(Process.whereis(w), leak)",
    exit_bif: ":erlang.exit(:erlang.whereis(w), leak)",
    ets: ":ets.insert(:hot_patch_test_leaks, leak)",
    ets_apply: "m = :ets; f = :insert; apply(m, f, [:hot_patch_test_leaks, leak])",
    ets_new: ":ets.insert(:hot_patch_test_leaks, {:ets.new(:x, []), leak})",
    ets_fun: ":ets.foldl(fn _, _ -> send(w, leak) end, 0, :hot_patch_test_seed)",
    persistent_term: ":persistent_term.put(:hot_patch_test_leak, leak)",
    counter: ":counters.add(:persistent_term.get(:hot_patch_test_counter), 1, 1)",
    file: "File.write!(file, inspect(leak))",
    file_raw: ":file.write_file(file, inspect(leak))",
    file_prim: ":prim_file.write_file(file, inspect(leak))",
    file_open: "File.open!(file, [:write], fn io -> IO.write(io, inspect(leak)) end)",
    command: ~S|:os.cmd(String.to_charlist("touch " <> file))|,
    port_alone: ~S|Port.open({:spawn, "touch " <> file}, [])|,
    port:
      ~S|Port.open({:spawn, "touch " <> file}, [:exit_status]); receive do {_, {:exit_status, _}} -> :ok end|,
    system_cmd: ~S|System.cmd("touch", [file])|,
    register: "Process.register(self(), :hot_patch_test_leak)",
    put_env: "Application.put_env(:hot_patch_test_leak, :leak, leak)",
    os_env: ~S|System.put_env("HOT_PATCH_TEST_LEAK", "1")|,
    log: ~S|:logger.error("hot_patch_test_leak")|,
    eval: ~S|Code.eval_string("send(:hot_patch_test_witness, {:hot_patch_test_leak, :eval})")|,
    erl_eval:
      ~S|{:ok, t, _} = :erl_scan.string(~c"hot_patch_test_witness ! {hot_patch_test_leak, 1}."); {:ok, e} = :erl_parse.parse_exprs(t); :erl_eval.exprs(e, [])|,
    load:
      ":code.load_binary(:hot_patch_test_leak, ~c\"x\", :persistent_term.get(:hot_patch_test_beam))",
    foreign: "HotPatch.Test.Leaks.Leaky.leak(w)",
    foreign_named: "Module.concat(HotPatch.Test.Leaks, Leaky).leak(w)",
    foreign_fun: "Enum.map([w], &HotPatch.Test.Leaks.Leaky.leak/1)",
    foreign_map: ":lists.map(&HotPatch.Test.Leaks.Leaky.leak/1, [w])",
    foreign_update: "Map.update!(%{a: w}, :a, &HotPatch.Test.Leaks.Leaky.leak/1)",
    sorter: "Enum.sort([1, 2], HotPatch.Test.Leaks.Leaky)",
    sorter_pair: "Enum.sort_by([1, 2], & &1, {:desc, HotPatch.Test.Leaks.Leaky})",
    enumerable: "Enum.to_list(&HotPatch.Test.Leaks.Leaky.enumerate/2)",
    enumerable_given: "Enum.flat_map([1], fn _ -> &HotPatch.Test.Leaks.Leaky.enumerate/2 end)",
    enumerable_within: "Enum.concat([&HotPatch.Test.Leaks.Leaky.enumerate/2])",
    enumerable_new: "Map.new(&HotPatch.Test.Leaks.Leaky.enumerate/2)",
    enumerable_struct: "Enum.map(%{__struct__: HotPatch.Test.Leaks.Leaky}, & &1)",
    enumerable_member: "Enum.member?(%{__struct__: HotPatch.Test.Leaks.Leaky}, 1)",
    enumerable_map: "Map.new(%{__struct__: HotPatch.Test.Leaks.Leaky})",
    collected: "Enum.into([1], %{__struct__: HotPatch.Test.Leaks.Leaky})",
    handed_on:
      "Enum.reduce([:k], Map.put(%{}, :a, %{__struct__: HotPatch.Test.Leaks.Leaky}), &Access.get(Map.get(&2, :a), &1))",
    reversed: "Enum.reverse([1], %{__struct__: HotPatch.Test.Leaks.Leaky})",
    left_over: "Enum.chunk_every([1], 2, 2, %{__struct__: HotPatch.Test.Leaks.Leaky})",
    shown_merged:
      "try do Keyword.merge([{1, %{__struct__: HotPatch.Test.Leaks.Leaky}}], a: 1) rescue _ -> :ok end",
    shown_text:
      "try do List.to_string([%{__struct__: HotPatch.Test.Leaks.Leaky}]) rescue _ -> :ok end",
    shown_pad:
      "try do String.pad_leading(\"a\", 2, [%{__struct__: HotPatch.Test.Leaks.Leaky}]) rescue _ -> :ok end",
    shown_key:
      "try do Access.get([], {%{__struct__: HotPatch.Test.Leaks.Leaky}}) rescue _ -> :ok end",
    shown_pair:
      "try do Map.get_and_update(%{}, :a, fn _ -> {%{__struct__: HotPatch.Test.Leaks.Leaky}} end) rescue _ -> :ok end",
    text: "to_string(%{__struct__: HotPatch.Test.Leaks.Leaky})",
    access: "Access.get(%{__struct__: HotPatch.Test.Leaks.Leaky, k: 1}, :k)",
    access_deep: "get_in(%{a: %{__struct__: HotPatch.Test.Leaks.Leaky, k: 1}}, [:a, :k])",
    exception: "raise HotPatch.Test.Leaks.Leaky, w",
    message: "Exception.message(%{__struct__: HotPatch.Test.Leaks.Leaky, __exception__: true})",
    explained:
      "try do :erlang.error(:badarg, [], error_info: %{module: HotPatch.Test.Leaks.Leaky}) rescue e -> Exception.message(e) end",
    explained_more:
      "Exception.normalize(:error, :badarg, [{:lists, :nth, 2, [error_info: %{module: HotPatch.Test.Leaks.Leaky}]}])",
    inspect_fun: "inspect(leak, inspect_fun: &HotPatch.Test.Leaks.Leaky.enumerate/2)",
    struct: "struct(HotPatch.Test.Leaks.Leaky)",
    calendar:
      "Date.add(%{__struct__: Date, calendar: HotPatch.Test.Leaks.Leaky, year: 2000, month: 1, day: 1}, 1)",
    seed:
      "Process.put(:rand_seed, {%{type: :exsss, bits: 58, next: &HotPatch.Test.Leaks.Leaky.next/1}, 1}); :rand.uniform(9)",
    state_fun: "state.fun.(leak)",
    state_fun_mapped: "Enum.map([leak], state.fun)",
    state_fun_update: "Map.update!(%{a: leak}, :a, state.fun)",
    ets_kept_fun: "[{_, fun}] = :ets.lookup(:hot_patch_test_seed, :fun); fun.(leak)",
    dictionary_fun: "Process.put(:f, state.fun); Process.get(:f).(leak)",
    continue: "{:noreply, state, {:continue, {:send, w, leak}}}",
    receive: "send(self(), :go); receive do :go -> send(w, leak) after 5000 -> :ok end",
    sys:
      ":sys.replace_state(w, fn _ -> send(:hot_patch_test_witness, {:hot_patch_test_leak, 1}) end, 50)",
    inside: "Process.put(:\"$hot_patch_replay\", %{family: %{}, names: %{}}); send(w, leak)",
    inside_erased: ":erlang.erase(); :erlang.erase(:\"$hot_patch_replay_notes\"); send(w, leak)",
    inside_called: "HotPatch.Swap.Replay.Sandbox.leave(); send(w, leak)",
    telemetry: ":telemetry.execute([:hot_patch_test_leak], %{}, %{})",
    halt: :never,
    halt_system: :never,
    stop: :never,
    stop_init: :never
  ]
  @never [
    halt: ":erlang.halt(7)",
    halt_system: "System.halt(7)",
    stop: "System.stop(7)",
    stop_init: ":init.stop(7)"
  ]

  # What comes to nothing outside of a replay too, for want of who would hear it, or because it fails before.
  @nothing [:telemetry, :inside_called, :sys]
  # From Elixir 1.20 on one that its module has not made itself is shown as a map.
  @shown [:shown_merged, :shown_text, :shown_pad, :shown_key, :shown_pair]

  defmodule Leaky do
    @moduledoc false
    # Of no patch: whatever is called of it is called for real.

    @witness :hot_patch_test_witness

    def leak(to), do: send(to, {:hot_patch_test_leak, :leaky})
    def compare(_a, _b), do: said(:gt)
    def enumerate(_acc, _fun), do: said({:done, []})
    def fetch(_struct, _key), do: said({:ok, 1})
    def exception(_given), do: said(%RuntimeError{message: "x"})
    def message(_exception), do: said("x")
    def __struct__, do: said(%{__struct__: __MODULE__})
    def __struct__(_fields), do: said(%{__struct__: __MODULE__})
    def format_error(_reason, _stack), do: said(%{})
    def next(seed), do: said({1, seed})
    def naive_datetime_to_iso_days(_, _, _, _, _, _, _), do: said({0, {0, 1}})
    def date_to_string(_, _, _), do: said("")

    def said(answer) do
      leak(@witness)
      answer
    end
  end

  defimpl Enumerable, for: Leaky do
    def count(_struct), do: Leaky.said({:ok, 0})
    def member?(_struct, _element), do: Leaky.said({:ok, false})
    def slice(_struct), do: Leaky.said({:error, __MODULE__})
    def reduce(_struct, {_how, acc}, _fun), do: Leaky.said({:done, acc})
  end

  defimpl Inspect, for: Leaky do
    def inspect(_struct, _options), do: Leaky.said("")
  end

  defimpl Collectable, for: Leaky do
    def into(_struct), do: Leaky.said({[], fn acc, _given -> acc end})
  end

  defimpl String.Chars, for: Leaky do
    def to_string(_struct), do: Leaky.said("")
  end

  @doc "The names of all attempts."
  @spec names() :: [atom()]
  def names, do: Keyword.keys(@attempts)

  @doc "Those that are seen if they are made for real."
  @spec seen() :: [atom()]
  def seen do
    unseen =
      if Version.match?(System.version(), ">= 1.20.0"), do: @nothing ++ @shown, else: @nothing

    for {name, code} <- @attempts, code != :never, name not in unseen, do: name
  end

  @typedoc "What a module is that leaks: of a gen_server or an Agent, or of Phoenix."
  @type kind :: :server | :view | :channel

  @doc "The text of a server; the new one makes the attempt that it is told of."
  @spec server(module(), :old | :new, kind()) :: String.t()
  def server(module, :old, kind) do
    """
    defmodule #{inspect(module)} do
      def init(state), do: {:ok, state}
      def handle_call(:state, _from, state), do: {:reply, state, state}
      def handle_cast(_message, state), do: {:noreply, state}
      def handle_info(_message, state), do: {:noreply, state}
    #{more(kind)}
    end
    """
  end

  def server(module, :new, kind) do
    clauses =
      for {name, code} <- Keyword.merge(@attempts, @never) do
        # Each in a function of its own: one that receives and catches is left aside as a whole.
        """
          defp attempt(#{inspect(name)}, state, w, leak, file), do: try_#{name}(state, w, leak, file)

          defp try_#{name}(state, w, leak, file) do
            _ = {state, w, leak, file}
            #{code}
          end
        """
      end

    """
    defmodule #{inspect(module)} do
      def init(state), do: {:ok, state}
      def handle_call(:state, _from, state), do: {:reply, state, state}
      def handle_cast(_message, state), do: {:noreply, state}
      def handle_info({:attempt, name}, state) do
        inner = Map.get(state, :assigns, state)
        case attempt(name, inner, #{inspect(@witness)}, {:hot_patch_test_leak, name}, inner.file) do
          {:noreply, _, _} = continues -> continues
          _whatever -> {:noreply, state}
        end
      end
      def handle_info(_message, state), do: {:noreply, state}
      def handle_continue({:send, w, leak}, state), do: {:noreply, send(w, leak) && state}
    #{more(kind)}
    #{clauses}
    end
    """
  end

  # What an Agent is told comes as a fun; views and channels have what the stand-ins of their library ask for.
  defp more(:server) do
    """
      def made(state), do: state
      def order(agent, name) do
        Agent.cast(agent, fn state ->
          _ = handle_info({:attempt, name}, state)
          state
        end)
      end
    """
  end

  defp more(:view) do
    """
      def __live__, do: %{}
      def __components__, do: %{}
      def mount(_params, _session, socket), do: {:ok, socket}
      def render(_assigns), do: {:print, :text, []}
    """
  end

  defp more(:channel) do
    """
      def __socket__(:private), do: %{}
      def join(_topic, _params, socket), do: {:ok, socket}
    """
  end

  @doc "Compiles a server, and takes it out of the VM again."
  @spec compile(module(), :old | :new, kind()) :: binary()
  def compile(module, side, kind \\ :server) do
    text = server(module, side, kind)
    io = ExUnit.CaptureIO.with_io(:stderr, fn -> Code.compile_string(text) end)
    [{^module, beam}] = elem(io, 0)

    :code.delete(module)
    :code.purge(module)
    beam
  end

  @doc "The state of such a server."
  @spec state(Path.t()) :: map()
  def state(file), do: %{file: file, fun: fn leak -> send(@witness, leak) end}

  @doc """
  Sets up what would be seen: a process that hears, tables, a handler of logs. All processes that there are are
  traced, so that nothing is sent to any of them unseen.
  """
  @spec watch(Path.t()) :: pid()
  def watch(file) do
    # What is there is not ours, and would be removed.
    false = File.exists?(file)
    _ = :ets.new(@table, [:named_table, :public, :bag])
    _ = :ets.new(:hot_patch_test_seed, [:named_table, :public])
    true = :ets.insert(:hot_patch_test_seed, {:fun, state(file).fun})
    :persistent_term.put(:hot_patch_test_counter, :counters.new(1, []))

    :persistent_term.put(
      :hot_patch_test_beam,
      HotPatch.Test.Builds.versioned(:hot_patch_test_leak, 1)
    )

    :ok = :logger.add_handler(:hot_patch_test_leaks, __MODULE__, %{})
    tester = self()

    spawn(fn ->
      Process.register(self(), @witness)
      Process.flag(:trap_exit, true)
      monitor = Process.monitor(tester)
      send(tester, {:watches, self()})
      witness(monitor)
    end)

    receive do
      {:watches, pid} -> pid
    end
  end

  defp witness(monitor) do
    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} ->
        :ok

      {:seen?, from} ->
        send(from, :seen)
        witness(monitor)

      leak ->
        :ets.insert(@table, {:heard, leak})
        witness(monitor)
    end
  end

  @doc false
  def log(%{msg: msg}, _config) do
    if inspect(msg) =~ "hot_patch_test_leak", do: :ets.insert(@table, {:logged, msg})
  end

  @doc "Everything that has got out since the last look."
  @spec marks(Path.t()) :: [term()]
  def marks(file) do
    # What was sent before is handled before.
    send(@witness, {:seen?, self()})
    receive(do: (:seen -> :ok))
    found = seen_by(file)
    Enum.each(found, &clear(&1, file))
    found
  end

  defp seen_by(file) do
    counter = :persistent_term.get(:hot_patch_test_counter)

    :ets.tab2list(@table) ++
      for {what, true} <- [
            term: :persistent_term.get(:hot_patch_test_leak, nil) != nil,
            counter: :counters.get(counter, 1) > 0,
            file: File.exists?(file),
            registered: Process.whereis(:hot_patch_test_leak) != nil,
            env: Application.get_env(:hot_patch_test_leak, :leak) != nil,
            os_env: System.get_env("HOT_PATCH_TEST_LEAK") != nil,
            loaded: :erlang.module_loaded(:hot_patch_test_leak)
          ],
          do: what
  end

  # Only what was found: more may have come meanwhile.
  defp clear(:term, _file), do: :persistent_term.erase(:hot_patch_test_leak)

  defp clear(:counter, _file),
    do: :counters.put(:persistent_term.get(:hot_patch_test_counter), 1, 0)

  defp clear(:file, file), do: File.rm(file)
  defp clear(:env, _file), do: Application.delete_env(:hot_patch_test_leak, :leak)
  defp clear(:os_env, _file), do: System.delete_env("HOT_PATCH_TEST_LEAK")
  defp clear(:loaded, _file), do: HotPatch.Test.Servers.unload(:hot_patch_test_leak)
  defp clear(:registered, _file), do: :ok
  defp clear(entry, _file), do: :ets.delete_object(@table, entry)

  @doc """
  Counts what processes receive that has to do with an attempt: all that there are, but the caller and those that are left out.
  Gives a function that says how many that were; the first call ends it, and so does the end of the caller: what goes on
  to trace the whole VM would make the tests fail that come after.
  """
  @spec count([pid()]) :: (() -> non_neg_integer())
  def count(without) do
    tester = self()

    counter =
      spawn_link(fn ->
        for pid <- Process.list() -- [tester, self() | without] do
          # Some end meanwhile.
          try do
            :erlang.trace(pid, true, [:receive])
          rescue
            ArgumentError -> :gone
          end
        end

        send(tester, {:counts, self()})
        counted(0)
      end)

    receive do
      {:counts, ^counter} -> fn -> ended(counter) end
    end
  end

  defp counted(count) do
    receive do
      {:trace, _pid, :receive, message} ->
        leak? = inspect(message, limit: :infinity) =~ "hot_patch_test_leak"

        counted(if leak?, do: count + 1, else: count)

      {:enough, from} ->
        for pid <- Process.list() do
          if {:tracer, self()} == :erlang.trace_info(pid, :tracer),
            do: :erlang.trace(pid, false, [:receive])
        end

        ref = :erlang.trace_delivered(:all)
        receive(do: ({:trace_delivered, :all, ^ref} -> :ok))
        send(from, {:counted, self(), rest(count)})
    end
  end

  defp rest(count) do
    receive do
      {:trace, _pid, :receive, message} ->
        leak? = inspect(message, limit: :infinity) =~ "hot_patch_test_leak"
        rest(if leak?, do: count + 1, else: count)
    after
      0 -> count
    end
  end

  defp ended(counter) do
    send(counter, {:enough, self()})

    receive do
      {:counted, ^counter, count} -> count
    end
  end

  @doc "Takes down what was set up."
  @spec unwatch() :: :ok
  def unwatch do
    _ = :logger.remove_handler(:hot_patch_test_leaks)
    :ok
  end
end
