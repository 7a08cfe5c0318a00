defmodule HotPatch.Swap.Replay.Statem do
  @moduledoc false
  # One event, handled as gen_statem handles it. What was postponed before and which timers run is not known of a
  # process: an event that is postponed, or begins or ends a timer, is the last that is played on a copy.

  alias HotPatch.Swap.Replay.Sandbox

  @type result :: {:go_on, term(), term()} | {:stop, term(), term()} | {:bad, term()}

  @doc "Plays a message on `{state, data}`, by a copy of the callback module."
  @spec handle(module(), {term(), term()}, term()) :: result()
  def handle(module, {name, data}, message) do
    {mode, enters?} = mode(module.callback_mode())
    events([event(message)], {name, data}, %{module: module, mode: mode, enters?: enters?}, [])
  end

  defp mode(mode) when is_atom(mode), do: {mode, false}

  defp mode(modes) when is_list(modes),
    do: {Enum.find(modes, &(&1 != :state_enter)), :state_enter in modes}

  defp event({:"$gen_call", from, content}), do: {{:call, from}, content}
  defp event({:"$gen_cast", content}), do: {:cast, content}
  defp event(content), do: {:info, content}

  defp events([], state, _how, []), do: {:go_on, state, :infinity}
  defp events([], state, _how, later), do: {:go_on, state, {:later, Enum.reverse(later)}}

  defp events([{type, content} | rest], {name, _data} = state, how, later) do
    with {:on, new, actions, again?} <- how |> called(type, content, state) |> given(state),
         {more, later} = actions(actions, later),
         enters? = how.enters? and (again? or elem(new, 0) != name),
         {:on, new, actions, _again?} <- entered(enters?, how, name, new) do
      {inner, later} = actions(actions, later)
      events(inner ++ more ++ rest, new, how, later)
    end
  end

  defp entered(false, _how, _from, state), do: {:on, state, [], false}

  defp entered(true, how, from, state),
    do: how |> called(:enter, from, state) |> given(state)

  defp called(%{mode: :handle_event_function, module: module}, type, content, {name, data}),
    do: Sandbox.given(fn -> module.handle_event(type, content, name, data) end)

  defp called(%{module: module}, type, content, {name, data}) when is_atom(name),
    do: Sandbox.given(fn -> apply(module, name, [type, content, data]) end)

  # What a callback gives: the next state with actions, and whether it is entered anew.
  defp given({:next_state, name, data}, _state), do: {:on, {name, data}, [], false}
  defp given({:next_state, name, data, actions}, _state), do: {:on, {name, data}, actions, false}
  defp given({:keep_state, data}, {name, _data}), do: {:on, {name, data}, [], false}
  defp given({:keep_state, data, actions}, {name, _data}), do: {:on, {name, data}, actions, false}
  defp given(:keep_state_and_data, state), do: {:on, state, [], false}
  defp given({:keep_state_and_data, actions}, state), do: {:on, state, actions, false}
  defp given({:repeat_state, data}, {name, _data}), do: {:on, {name, data}, [], true}

  defp given({:repeat_state, data, actions}, {name, _data}),
    do: {:on, {name, data}, actions, true}

  defp given(:repeat_state_and_data, state), do: {:on, state, [], true}
  defp given({:repeat_state_and_data, actions}, state), do: {:on, state, actions, true}
  defp given(:stop, state), do: {:stop, :normal, state}
  defp given({:stop, reason}, state), do: {:stop, reason, state}
  defp given({:stop, reason, data}, {name, _data}), do: {:stop, reason, {name, data}}

  defp given({:stop_and_reply, reason, replies}, state) do
    {_no_events, _later} = actions(replies, [])
    {:stop, reason, state}
  end

  defp given({:stop_and_reply, reason, replies, data}, {name, _data}),
    do: given({:stop_and_reply, reason, replies}, {name, data})

  defp given(other, _state), do: {:bad, other}

  # The events that come next, and what is to be done later.
  defp actions(actions, later) do
    {events, later} = actions |> List.wrap() |> Enum.reduce({[], later}, &action/2)
    {Enum.reverse(events), later}
  end

  defp action({:reply, to, reply}, done) do
    :ok = Sandbox.note(:reply, {to, reply})
    done
  end

  defp action({:next_event, type, content}, {events, later}),
    do: {[{type, content} | events], later}

  defp action(nothing, done) when nothing in [:hibernate, {:postpone, false}], do: done
  defp action({:hibernate, _whether}, done), do: done
  defp action(later, {events, others}), do: {events, [later | others]}
end
