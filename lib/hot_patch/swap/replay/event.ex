defmodule HotPatch.Swap.Replay.Event do
  @moduledoc false
  # One message to an event manager, handled as gen_event has one of its handlers handle it (gen_event.erl). What is
  # for another handler, or has the manager itself do something, is none of this one's business.

  alias HotPatch.Swap.Replay.Sandbox

  @typedoc "What a message is to a handler."
  @type told :: {:event, term()} | {:call, from :: term(), term()} | {:info, term()}
  @type result :: {:go_on, term(), :infinity} | {:stop, term(), term()} | {:bad, term()}

  # Handlers come and go.
  @changes [:add_handler, :add_sup_handler, :delete_handler, :swap_handler, :swap_sup_handler]

  @doc "What a message is to the handler of a module under an id; `:lost` where the manager's handlers may change."
  @spec told(term(), module(), term()) :: {:ok, told()} | :others | :lost
  def told({:notify, event}, _module, _id), do: {:ok, {:event, event}}

  def told({pid, from, request}, module, id) when is_pid(pid) and is_tuple(from) do
    case request do
      {:sync_notify, event} -> {:ok, {:event, event}}
      {:call, handler, query} -> call(handler, from, query, {module, id})
      looks when looks in [:get_modules, :which_handlers] -> :others
      :stop -> :lost
      change when is_tuple(change) and elem(change, 0) in @changes -> :lost
      _of_somebody -> {:ok, {:info, {pid, from, request}}}
    end
  end

  # The manager ends, or takes handlers away whose owner has ended.
  def told({:EXIT, _from, _reason}, _module, _id), do: :lost
  def told(message, _module, _id), do: {:ok, {:info, message}}

  # gen_event keeps the id only where there is one.
  defp call(module, from, query, {module, false}), do: {:ok, {:call, from, query}}
  defp call({module, id}, from, query, {module, id}), do: {:ok, {:call, from, query}}
  defp call(_another, _from, _query, _own), do: :others

  @doc "Plays it on a handler's state, by a copy of its module."
  @spec handle(module(), term(), told()) :: result()
  def handle(module, state, {:event, event}),
    do: given(Sandbox.given(fn -> module.handle_event(event, state) end), state)

  def handle(module, state, {:call, from, query}) do
    case Sandbox.given(fn -> module.handle_call(query, state) end) do
      {:ok, reply, new} ->
        replied(from, reply, {:ok, new}, state)

      {:ok, reply, new, :hibernate} ->
        replied(from, reply, {:ok, new}, state)

      {:swap_handler, reply, a, new, b, c} ->
        replied(from, reply, {:swap_handler, a, new, b, c}, state)

      {:remove_handler, reply} ->
        replied(from, reply, :remove_handler, state)

      other ->
        {:bad, other}
    end
  end

  # Where there is none, gen_event logs it.
  def handle(module, state, {:info, message}) do
    if :erlang.function_exported(module, :handle_info, 2),
      do: given(Sandbox.given(fn -> module.handle_info(message, state) end), state),
      else: {:go_on, state, :infinity}
  end

  defp replied(from, reply, given, state) do
    :ok = Sandbox.note(:reply, {from, reply})
    given(given, state)
  end

  defp given({:ok, new}, _state), do: {:go_on, new, :infinity}
  defp given({:ok, new, :hibernate}, _state), do: {:go_on, new, :infinity}

  defp given({:swap_handler, _, new, handler, _}, _state),
    do: {:stop, {:swap_handler, handler}, new}

  defp given(:remove_handler, state), do: {:stop, :remove_handler, state}
  defp given(other, _state), do: {:bad, other}
end
