defmodule HotPatch.Test.Loops do
  @moduledoc false
  # Loops of behaviours that are not OTP's: those of libraries that Debian has (p1_utils, RabbitMQ's
  # gen_server2), and one made for tests with the habits of gen_server2.

  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.Support.Folder
  alias HotPatch.Test.Builds

  # Installed, or as script/debian-libraries unpacks them; the first run needs the network.
  @script Path.expand("../../script/debian-libraries", __DIR__)
  @unpacked Path.expand("../../tmp/debian", __DIR__)

  @doc "Where a library's modules are; nil where it is not here."
  @spec ebin(String.t()) :: Path.t() | nil
  def ebin(library) do
    case :persistent_term.get({__MODULE__, library}, :unknown) do
      :unknown ->
        ebin = find(library)
        :persistent_term.put({__MODULE__, library}, ebin)
        ebin

      known ->
        known
    end
  end

  defp find(library) do
    {_output, _status} = System.cmd(@script, [@unpacked], stderr_to_stdout: true)
    folders = [to_string(:code.lib_dir()), "#{@unpacked}/bookworm/lib"]
    named = &for ebin <- Folder.matching(&1, "#{library}-*/ebin"), do: Path.join(&1, ebin)
    folders |> Enum.flat_map(named) |> List.first()
  end

  @doc """
  Begins as gen_server does, keeps one record, keeps what it has made of the callback module, becomes
  another's, and puts a list around its record when it changes code. Calls have a tag: with that of gen_server
  its calls do.
  """
  @spec own(module(), String.t()) :: binary()
  def own(module, tag \\ "$own_call") do
    Builds.erlang("""
    -module(#{module}).
    -export([start/3, init_it/6, call/2, call/3, reply/2, loop/1]).
    -export([system_continue/3, system_terminate/4, system_code_change/4]).
    -record(own, {parent, name, state, mod, priority}).
    start(M, Arg, Options) -> gen:start(#{module}, nolink, M, Arg, Options).
    init_it(Starter, self, Name, M, Arg, Options) -> init_it(Starter, self(), Name, M, Arg, Options);
    init_it(Starter, Parent, Name, M, Arg, _) ->
        {ok, State} = M:init(Arg),
        proc_lib:init_ack(Starter, {ok, self()}),
        loop(made(#own{parent = Parent, name = Name, state = State, mod = M})).
    made(#own{mod = M} = Own) ->
        Own#own{priority = case erlang:function_exported(M, priority, 0) of true -> fun() -> M:priority() end; false -> fun() -> 0 end end}.
    call(Pid, What) -> call(Pid, What, 5000).
    call(Pid, What, Timeout) -> {ok, R} = gen:call(Pid, '#{tag}', What, Timeout), R.
    reply({To, Tag}, R) -> To ! {Tag, R}, ok.
    loop(#own{parent = Parent, mod = M} = Own) ->
        receive
            {system, From, Req} -> sys:handle_system_msg(Req, From, Parent, #{module}, [], Own);
            {'#{tag}', From, priority} -> reply(From, (Own#own.priority)()), loop(Own);
            {'#{tag}', From, What} ->
                case M:handle_call(What, From, Own#own.state) of
                    {reply, R, S} -> reply(From, R), loop(Own#own{state = S});
                    {reply, R, S, hibernate} -> reply(From, R), proc_lib:hibernate(#{module}, loop, [Own#own{state = S}]);
                    {become, M2, S} -> loop(made(Own#own{mod = M2, state = S}))
                end
        end.
    system_continue(_, _, #own{} = Own) -> loop(Own).
    system_terminate(Reason, _, _, _) -> exit(Reason).
    system_code_change(#own{mod = M, state = S} = Own, _, Vsn, Extra) ->
        case catch M:code_change(Vsn, S, Extra) of
            {ok, New} -> {ok, [made(Own#own{state = New})]};
            Else -> Else
        end.
    """)
  end

  @doc """
  Stops a loop when an operation on this node has found it in the way, in old code. Tells the tester when it looks out
  for that, and when it was.
  """
  @spec stop_when_in_the_way(pid(), pid()) :: :ok
  def stop_when_in_the_way(loop, tester) do
    {:module, _} = Code.ensure_loaded(Prepare)
    1 = :erlang.trace_pattern({Prepare, :old_code?, 1}, true, [:local])
    _ = :erlang.trace(:new_processes, true, [:call])
    send(tester, {self(), :watches})

    receive do
      {:trace, _pid, :call, {Prepare, :old_code?, _verdicts}} -> send(loop, :stop)
    end

    send(tester, {self(), :stopped})
    :ok
  end
end
