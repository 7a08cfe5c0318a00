defmodule HotPatch.Test.Servers do
  @moduledoc false
  # Small Erlang modules in two or more versions for tests of the swap, each version with
  # a state format of its own, and what it takes to put them before the engine.

  alias HotPatch.NodeAgent.FunMaps
  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @doc """
  A gen_server whose state is `{Version, Count}`. Calls: `get`, `add`, `{block, Pid}` (tells
  Pid and waits inside the callback until it gets `go`).
  """
  @spec server(atom(), String.t(), String.t()) :: binary()
  def server(module, version, code_change \\ "{ok, {VERSION, Count}}") do
    Builds.erlang("""
    -module(#{module}).
    -vsn("#{version}").
    -behaviour(gen_server).
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3, spin/0, enter/1]).
    init(Count) -> {ok, {#{version}, Count}}.
    handle_call(get, _From, {#{version}, _} = State) -> {reply, State, State};
    handle_call(add, _From, {#{version}, Count}) -> {reply, Count + 1, {#{version}, Count + 1}};
    handle_call({block, Pid}, _From, {#{version}, _} = State) ->
        Pid ! {blocked, self()}, receive go -> ok end, {reply, ok, State}.
    handle_cast(_, State) -> {noreply, State}.
    handle_info(_, State) -> {noreply, State}.
    code_change(OldVsn, {_, Count} = _State, Extra) -> _ = {OldVsn, Extra},
        #{String.replace(code_change, "VERSION", version)}.
    enter(Count) -> gen_server:enter_loop(#{module}, [], {#{version}, Count}).
    spin() -> receive stop -> ok; _ -> spin() end.
    """)
  end

  @doc "A gen_statem in its state `on`, whose data is `{Version, N}`."
  @spec statem(atom(), String.t(), String.t()) :: binary()
  def statem(module, version, code_change \\ "{ok, State, {VERSION, N}}") do
    Builds.erlang("""
    -module(#{module}).
    -vsn("#{version}").
    -behaviour(gen_statem).
    -export([init/1, callback_mode/0, on/3, code_change/4]).
    init(N) -> {ok, on, {#{version}, N}}.
    callback_mode() -> state_functions.
    on(_, _, Data) -> {keep_state, Data}.
    code_change(_Old, State, {_, N}, _Extra) -> _ = {State, N},
        #{String.replace(code_change, "VERSION", version)}.
    """)
  end

  @doc "A handler of an event manager, whose state is `{Version, N}`; `get` asks for it."
  @spec handler(atom(), String.t(), String.t()) :: binary()
  def handler(module, version, code_change \\ "{ok, {VERSION, N}}") do
    Builds.erlang("""
    -module(#{module}).
    -vsn("#{version}").
    -behaviour(gen_event).
    -export([init/1, handle_event/2, handle_call/2, code_change/3]).
    init(N) -> {ok, {#{version}, N}}.
    handle_event(_, State) -> {ok, State}.
    handle_call(get, State) -> {ok, State, State}.
    code_change(_, {_, N}, _) -> #{String.replace(code_change, "VERSION", version)}.
    """)
  end

  @doc "Loads a version as the running one."
  @spec load(module(), binary()) :: :ok
  def load(module, beam) do
    {:module, ^module} = :code.load_binary(module, ~c"#{module}.beam", beam)
    :ok
  end

  @doc "Puts a version where the code server finds it, as that of a release is."
  @spec on_disk(module(), binary()) :: :ok
  def on_disk(module, beam) do
    folder = Path.join([Builds.tmp(), "on_disk", "#{System.unique_integer([:positive])}", "ebin"])
    File.mkdir_p!(folder)
    File.write!(Path.join(folder, "#{module}.beam"), beam)
    Code.prepend_path(folder)
    ExUnit.Callbacks.on_exit(fn -> Code.delete_path(folder) end)
    :ok
  end

  @doc "Ends processes, and returns when they are gone: the next test shall not meet them."
  @spec kill([pid()]) :: :ok
  def kill(pids) do
    monitors = for pid <- pids, do: {pid, Process.monitor(pid)}

    for {pid, monitor} <- monitors do
      Process.exit(pid, :kill)

      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
      end
    end

    :ok
  end

  @doc "Takes a module out of the VM."
  @spec unload(module()) :: :ok
  def unload(module) do
    :code.purge(module)
    :code.delete(module)
    :code.purge(module)
    :ok
  end

  @doc """
  A swap of modules from one version to the next: `{module, old, new}`; one that is new has no old
  version, one that goes no new one. With
  `shadows: false` none can be tried before the load.
  """
  @spec job([{module(), binary() | nil, binary()}], keyword()) :: Swap.Job.t()
  def job(versions, options \\ []) do
    come = Enum.reject(versions, fn {_module, _old, new} -> new == nil end)
    {added, others} = Enum.split_with(come, fn {_module, old, _new} -> old == nil end)

    {funs, []} =
      FunMaps.of(
        for {module, <<_::binary>> = old, <<_::binary>> = new} <- versions, do: {module, old, new}
      )

    %Swap.Job{
      changes:
        for(one <- versions, change = change(one), do: %{change | funs: funs[change.module]}),
      prepared: prepared(others),
      added: if(added != [], do: {for({module, _, _} <- added, do: module), prepared(added)}),
      shadows: if(Keyword.get(options, :shadows, true), do: shadows(come), else: []),
      pause_timeout: Keyword.get(options, :pause_timeout, 5_000),
      hold_timeout: Keyword.get(options, :hold_timeout),
      transition: Keyword.get(options, :transition, :suspend),
      purge: Keyword.get(options, :purge, :soft),
      after_load: Keyword.get(options, :after_load),
      on_load: Keyword.get(options, :on_load, [])
    }
  end

  @doc "Prepares and runs a swap."
  @spec run(Swap.Job.t(), (pid() -> term())) :: {:ok, Swap.Done.t()} | {:error, Swap.Failure.t()}
  def run(job, held \\ fn _engine -> :ok end) do
    with {:ok, ready} <- Swap.prepare(job), do: Swap.run(ready, held)
  end

  @doc "Rehearses a swap."
  @spec rehearse(Swap.Job.t(), keyword()) :: {:ok, Swap.Rehearsal.found()} | {:error, String.t()}
  def rehearse(job, more \\ []) do
    how = %{
      within: 60_000,
      deadline: System.monotonic_time(:millisecond) + 120_000,
      sample: nil,
      without: [],
      most_bytes: 32_000_000,
      owner: self(),
      replay: nil
    }

    Swap.Rehearsal.run(job, Map.merge(how, Map.new(more)))
  end

  @doc "How messages are played for so many seconds, with shadows of old and new versions: `{module, old, new}`."
  @spec replay([{module(), binary(), binary()}], pos_integer(), keyword()) :: Swap.Replay.how()
  def replay(versions, seconds, options \\ []) do
    [old, new] =
      for {side, place} <- [old: 1, new: 2] do
        beams = Enum.map(versions, &elem(&1, place))

        {:ok, answers} =
          HotPatch.Bridge.request("closed_shadow", beams, Swap.Replay.naming(side), "servers")

        for {{:ok, %{name: name, bytes: bytes}}, version} <- Enum.zip(answers, versions),
            do: %{
              module: elem(version, 0),
              name: String.to_atom(name),
              bytes: bytes,
              lambdas?: false
            }
      end

    %{
      seconds: seconds,
      values?: Keyword.get(options, :values, false),
      shown: Keyword.get(options, :shown, %{}),
      coming: Keyword.get(options, :coming, %HotPatch.Swap.Replay.Coming{}),
      old: old,
      new: new
    }
  end

  @doc "Whether a process that speaks the system messages stands still, in whichever way."
  @spec suspended?(pid()) :: boolean()
  def suspended?(pid), do: Swap.Parking.standing?(pid) or suspended_by_message?(pid)

  @doc """
  Whether a process goes on. It may have been told so and not be scheduled yet; but it shall
  not go on only because it has found out by itself that the engine is gone.
  """
  @spec goes_on?(pid(), non_neg_integer()) :: boolean()
  def goes_on?(pid, looks \\ 500) do
    cond do
      not suspended?(pid) -> true
      looks == 0 -> false
      true -> receive(do: (:never -> false), after: (10 -> goes_on?(pid, looks - 1)))
    end
  end

  defp suspended_by_message?(pid) do
    {:status, ^pid, _module, [_dictionary, state | _]} = :sys.get_status(pid, 200)
    state == :suspended
  catch
    # It stands still in the other way since, or is busy.
    :exit, {:timeout, _call} -> Swap.Parking.standing?(pid)
  end

  defp shadows(versions) do
    modules = for {_module, _old, new} <- versions, do: new

    {:ok, answers} =
      HotPatch.Bridge.request("shadow", modules, Swap.DynamicCalls.naming(), "servers")

    # Named in full: an answer is read with no atoms but those that are there.
    for {{:ok, %{by_name: _} = shadow}, {module, _old, _new}} <- Enum.zip(answers, versions) do
      name = String.to_atom(shadow.name)

      %{
        module: module,
        name: name,
        bytes: shadow.bytes,
        lambdas?: lambdas?(shadow),
        effect: shadow.effect
      }
    end
  end

  # As HotPatch.Cluster.Shadows does it.
  defp lambdas?(%{effect: nil, makes_funs: false}), do: false
  defp lambdas?(shadow), do: shadow.lambdas

  defp change({module, _old, nil}),
    do: %Swap.Change{module: module, kind: :delete, md5: nil, exports: []}

  defp change({module, old, new}) do
    exports = exports(new)

    %Swap.Change{
      module: module,
      kind: if(old, do: :replace, else: :add),
      md5: :code.module_md5(new),
      exports: exports,
      arriving: exports,
      old_vsn: old && vsn(old)
    }
  end

  @doc "The exports of a module as changes have them."
  @spec exports(binary()) :: [{String.t(), arity()}]
  def exports(beam) do
    {:ok, {_module, [exports: exports]}} = :beam_lib.chunks(beam, [:exports])
    for {name, arity} <- exports, do: {Atom.to_string(name), arity}
  end

  defp vsn(beam) do
    {:ok, {_module, vsn}} = :beam_lib.version(beam)
    vsn
  end

  defp prepared(versions) do
    {:ok, prepared} =
      :code.prepare_loading(
        for {module, _old, beam} <- versions, do: {module, ~c"#{module}.beam", beam}
      )

    prepared
  end
end
