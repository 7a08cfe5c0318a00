defmodule HotPatch.Swap.Replay.Callback do
  @moduledoc false
  # One message, handled as gen_server handles it (a gen_statem as that does, see HotPatch.Swap.Replay.Statem, an
  # event manager's handler as HotPatch.Swap.Replay.Event says, an Agent as HotPatch.Swap.Replay.Agent does), by a copy of
  # the callback module inside the sandbox.

  alias HotPatch.Swap.Replay.Agent
  alias HotPatch.Swap.Replay.Coming
  alias HotPatch.Swap.Replay.Event
  alias HotPatch.Swap.Replay.Funs
  alias HotPatch.Swap.Replay.Sandbox
  alias HotPatch.Swap.Replay.Statem

  @typedoc """
  A version of the code on its state. `module` is the shadow, `family` all of them; `real` is the process
  that is played, `funs` what its funs are in the shadows.
  """
  @type kind :: :server | :statem | :event | :agent
  @type actor :: %{
          side: Sandbox.side(),
          kind: kind(),
          module: module(),
          family: Sandbox.family(),
          coming: Coming.t(),
          real: pid(),
          funs: Funs.table(),
          state: term(),
          dictionary: [{term(), term()}]
        }

  @typedoc """
  What came of it. `next` is what the process would do: go on, wait for so long, or end.
  """
  @type outcome ::
          {:done, %{sent: [{atom(), term()}], next: term()}}
          | {:crashed, %{kind: :error | :exit | :throw | :given, reason: term(), stack: list()}}
          | {:left, Sandbox.reason()}

  @doc "Plays a message; an event handler gets what that is to it. The actor that comes back has the next state, where there is one."
  @spec run(actor(), term(), reads :: map()) :: {outcome(), actor(), reads :: map()}
  def run(%{kind: :statem} = actor, message, reads) do
    called(actor, reads, fn -> Statem.handle(actor.module, actor.state, message) end)
  end

  def run(%{kind: :event} = actor, told, reads) do
    called(actor, reads, fn -> Event.handle(actor.module, actor.state, told) end)
  end

  def run(actor, message, reads) do
    called(actor, reads, fn -> handle(actor, message) |> continued(actor) end)
  end

  @doc "Converts the state by the module's own code_change."
  @spec convert(actor(), term(), term()) :: {outcome(), actor()}
  def convert(actor, old_vsn, extra) do
    {outcome, actor, _reads} =
      called(actor, %{}, fn ->
        case changed(actor, old_vsn, extra) do
          {:ok, new} -> {:go_on, new, :infinity}
          {:ok, name, data} when actor.kind == :statem -> {:go_on, {name, data}, :infinity}
          other -> {:bad, other}
        end
      end)

    {outcome, actor}
  end

  defp changed(%{kind: :statem, module: module, state: {name, data}}, old_vsn, extra),
    do: module.code_change(old_vsn, name, data, extra)

  defp changed(%{module: module, state: state}, old_vsn, extra),
    do: module.code_change(old_vsn, state, extra)

  defp called(actor, reads, fun) do
    :ok = Sandbox.enter(actor, reads)
    result = caught(fun)
    {notes, dictionary, reads} = Sandbox.leave()
    actor = %{actor | dictionary: dictionary}

    case {notes.left, result} do
      {nil, {:go_on, state, wait}} ->
        {done(notes, {:go_on, wait}), %{actor | state: state}, reads}

      {nil, {:stop, reason, state}} ->
        {done(notes, {:stop, reason}), %{actor | state: state}, reads}

      {nil, {:bad, given}} ->
        {{:crashed, %{kind: :given, reason: given, stack: []}}, actor, reads}

      {nil, {:caught, kind, reason, stack}} ->
        {{:crashed, %{kind: kind, reason: reason, stack: stack}}, actor, reads}

      {reason, _whatever} ->
        {{:left, reason}, actor, reads}
    end
  end

  # Logs and measurements are not what anybody is sent.
  defp done(notes, next) do
    sent = for {kind, _what} = one <- notes.sent, kind not in [:log, :telemetry], do: one
    {:done, %{sent: Enum.reverse(sent), next: next}}
  end

  defp caught(fun) do
    fun.()
  catch
    kind, reason -> {:caught, kind, reason, __STACKTRACE__}
  end

  defp handle(%{kind: :agent, state: state}, {:"$gen_call", from, request}),
    do: from |> tried(fn -> Agent.call(request, state) end)

  defp handle(%{kind: :agent, state: state}, {:"$gen_cast", request}),
    do: tried(nil, fn -> Agent.cast(request, state) end)

  defp handle(%{kind: :agent, state: state}, _message), do: {:go_on, state, :infinity}

  defp handle(%{module: module, state: state}, {:"$gen_call", from, request}),
    do: from |> tried(fn -> module.handle_call(request, from, state) end)

  defp handle(%{module: module, state: state}, {:"$gen_cast", request}),
    do: tried(nil, fn -> module.handle_cast(request, state) end)

  # Where there is none, gen_server logs it.
  defp handle(%{module: module, state: state}, message) do
    if :erlang.function_exported(module, :handle_info, 2),
      do: tried(nil, fn -> module.handle_info(message, state) end),
      else: {:go_on, state, :infinity}
  end

  defp tried(from, fun), do: fun |> Sandbox.given() |> given(from)

  defp given({:reply, reply, state}, from) when from != nil, do: replied(from, reply, state, [])

  defp given({:reply, reply, state, action}, from) when from != nil,
    do: replied(from, reply, state, action)

  defp given({:noreply, state}, _from), do: next(state, [])
  defp given({:noreply, state, action}, _from), do: next(state, action)

  defp given({:stop, reason, reply, state}, from) when from != nil do
    :ok = Sandbox.note(:reply, {from, reply})
    {:stop, reason, state}
  end

  defp given({:stop, reason, state}, _from), do: {:stop, reason, state}
  defp given(other, _from), do: {:bad, other}

  defp replied(from, reply, state, action) do
    :ok = Sandbox.note(:reply, {from, reply})
    next(state, action)
  end

  defp next(state, {:continue, argument}), do: {:continue, argument, state}
  defp next(state, wait) when is_integer(wait), do: {:go_on, state, wait}
  defp next(state, _nothing_or_hibernate), do: {:go_on, state, :infinity}

  defp continued({:continue, argument, state}, %{module: module} = actor) do
    nil
    |> tried(fn -> module.handle_continue(argument, state) end)
    |> continued(actor)
  end

  defp continued(result, _actor), do: result
end
