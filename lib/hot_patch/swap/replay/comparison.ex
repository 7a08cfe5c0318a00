defmodule HotPatch.Swap.Replay.Comparison do
  @moduledoc false
  # What old and new code make of the same message, side by side, in forms. Values are only kept where they
  # were asked for.

  alias HotPatch.Rehearsal.Form
  alias HotPatch.Rehearsal.Reason
  alias HotPatch.Swap.Replay.Callback
  alias HotPatch.Swap.Replay.Funs
  alias HotPatch.Swap.Replay.Sandbox

  @type crash :: %{
          message: String.t(),
          reason: String.t(),
          place: String.t() | nil,
          stack: [String.t()]
        }
  @type difference :: %{what: atom(), message: String.t(), from: String.t(), to: String.t()}
  @type values :: %{message: String.t(), from: String.t(), to: String.t()} | nil

  @typedoc "What is found of a message."
  @type finding ::
          :same
          | {:crash, crash(), values()}
          | {:differs, [{difference(), values()}]}
          | {:left, Sandbox.reason()}

  @typedoc "What there was before, and what is to be shown."
  @type about :: %{
          message: term(),
          old: Callback.actor(),
          new: Callback.actor(),
          values?: boolean(),
          funs: %{Sandbox.side() => Funs.table()}
        }

  @most_frames 8

  @doc "What is found; the states are those after the message."
  @spec of({Callback.outcome(), term()}, {Callback.outcome(), term()}, about()) :: finding()
  def of({old, _state}, {{:crashed, crash}, _new_state}, about) do
    case old do
      {:crashed, _as_well} -> :same
      _not_crashed -> {:crash, crash(crash, about), values(about, shown(old), shown(crash))}
    end
  end

  def of(_old, {{:left, reason}, _state}, _about), do: {:left, reason}
  def of({{:left, reason}, _state}, _new, _about), do: {:left, reason}

  def of({{:crashed, crash}, _state}, {{:done, _done} = new, _new_state}, about) do
    difference = %{
      what: :result,
      message: message(about),
      from: "a crash (#{reason(crash, about.old)})",
      to: "none"
    }

    {:differs, [{difference, values(about, shown(crash), shown(new))}]}
  end

  def of({{:done, old}, old_state}, {{:done, new}, new_state}, about) do
    {old_replies, old_sent} = Enum.split_with(old.sent, &match?({:reply, _what}, &1))
    {new_replies, new_sent} = Enum.split_with(new.sent, &match?({:reply, _what}, &1))

    differences =
      different(:reply, old_replies, new_replies, about) ++
        different(:sent, old_sent, new_sent, about) ++
        different(:next, old.next, new.next, about) ++
        state(old_state, new_state, about)

    if differences == [], do: :same, else: {:differs, differences}
  end

  defp different(_what, same, same, _about), do: []

  # Each has made its funs itself: they are compared by what they are.
  defp different(what, old, new, about) do
    if Funs.compared(old, :old, about.funs) == Funs.compared(new, :new, about.funs),
      do: [],
      else: [difference(what, old, new, about)]
  end

  defp difference(what, old, new, about) do
    difference = %{
      what: what,
      message: message(about),
      from: form(what, old),
      to: form(what, new)
    }

    {difference, values(about, shown(old), shown(new))}
  end

  # Their forms may differ, and mostly do. What counts is whether a message changes one, and not the other.
  defp state(old_state, new_state, about) do
    [old, new] = Enum.map([{about.old, old_state}, {about.new, new_state}], &turned/1)

    if elem(old, 0) == elem(new, 0) do
      []
    else
      [
        {%{
           what: :state,
           message: message(about),
           from: elem(old, 1),
           to: elem(new, 1)
         }, nil}
      ]
    end
  end

  defp turned({%{kind: :statem} = actor, {name, data}}) do
    {was, before} = actor.state
    {turn, text} = turned_to(before, data)
    # The name of a state is a word of the code.
    if is_atom(name) and was != name,
      do: {{turn, name}, "#{inspect(name)}, #{text}"},
      else: {turn, text}
  end

  defp turned({actor, state}), do: turned_to(actor.state, state)

  defp turned_to(before, state) do
    case {Form.of(before), Form.of(state)} do
      {same, same} -> {:kept, "#{same} as before"}
      {from, to} -> {:changed, "#{from} -> #{to}"}
    end
  end

  defp form(:reply, []), do: "none"
  defp form(:reply, [{:reply, {_to, reply}}]), do: Form.tagged(reply)
  defp form(:reply, replies), do: "#{length(replies)} replies"
  defp form(:sent, []), do: "nothing"

  defp form(:sent, sent) do
    sent
    |> Enum.map(fn
      {:message, {how, _to, message}} -> "#{how} #{Form.tagged(message)}"
      {kind, {function, _arguments}} -> "#{kind} #{function}"
    end)
    |> Enum.frequencies()
    |> Enum.map_join(", ", fn
      {one, 1} -> one
      {one, count} -> "#{count} times #{one}"
    end)
  end

  defp form(:next, {:go_on, :infinity}), do: "goes on"
  defp form(:next, {:go_on, {:later, _actions}}), do: "goes on with timers, or postpones it"
  defp form(:next, {:go_on, _wait}), do: "goes on after a timeout"
  defp form(:next, {:stop, reason}), do: "stops (#{Form.tagged(reason)})"

  defp crash(crash, %{new: new} = about) do
    stack = for entry <- crash.stack, named = named(entry, new), do: named

    %{
      message: message(about),
      reason: reason(crash, new),
      place: place(stack, new),
      stack: stack |> Enum.take(@most_frames) |> Enum.map(&line/1)
    }
  end

  defp reason(%{kind: :given, reason: given}, _actor),
    do: "it gives #{Form.tagged(given)}, which its behaviour does not take"

  defp reason(%{kind: :error, reason: :undef, stack: [entry | _]}, actor) do
    case named(entry, actor) do
      {module, function, arity, _location} ->
        error = %UndefinedFunctionError{module: module, function: function, arity: arity}
        Reason.caught(:error, error)

      nil ->
        "undef"
    end
  end

  defp reason(%{kind: kind, reason: reason}, _actor), do: Reason.caught(kind, reason)

  # The module's name in the place of its shadow's, and no arguments; nil for what is ours.
  defp named({module, function, arity, location}, actor) do
    arity = if is_list(arity), do: length(arity), else: arity

    case Enum.find(actor.family, fn {_module, shadow} -> shadow == module end) do
      {module, _shadow} -> {module, function, arity, location}
      nil -> if ours?(module), do: nil, else: {module, function, arity, location}
    end
  end

  defp named(_unknown, _actor), do: nil

  defp ours?(module) do
    module
    |> Atom.to_string()
    |> String.starts_with?("Elixir.HotPatch.Swap.Replay.")
  end

  defp place(stack, actor) do
    own = Enum.find(stack, List.first(stack), &is_map_key(actor.family, elem(&1, 0)))
    own && line(own)
  end

  defp line({module, function, arity, location}) do
    # Nothing that came with an error is told. A file that is not known is called as the shadow is.
    location =
      for {key, value} when key in [:file, :line] <- location, do: {key, named_as_module(value)}

    Exception.format_stacktrace_entry({module, function, arity, location})
  end

  defp named_as_module(file) when is_list(file) do
    file
    |> List.to_string()
    |> String.replace(~r/@hot_patch_(old|new)/, "")
    |> String.to_charlist()
  end

  defp named_as_module(line), do: line

  defp message(%{old: %{kind: :event}, message: told}), do: Form.told(told)
  defp message(%{message: {:phoenix_live_reload, _topic, _file}}), do: "rendering again"
  defp message(%{message: message}), do: Form.message(message)

  defp content(%{old: %{kind: :event}, message: told}), do: elem(told, tuple_size(told) - 1)
  defp content(%{message: message}), do: Form.content(message)

  defp values(%{values?: false}, _from, _to), do: nil

  defp values(about, from, to) do
    %{
      message: text(content(about), about),
      from: text(from, about),
      to: text(to, about)
    }
  end

  defp shown({:done, %{sent: sent}}), do: shown(sent)
  defp shown({:left, _reason}), do: :left_aside
  defp shown([{:reply, {_to, reply}}]), do: reply
  defp shown(%{kind: kind, reason: reason}), do: {kind, reason}
  defp shown(other), do: other

  defp text(term, about) do
    term
    |> Sandbox.swapped(self(), about.new.real)
    |> readable()
    |> inspect(limit: 20, printable_limit: 200, structs: false)
  end

  # What a browser is told is text in pieces.
  defp readable({:socket_push, kind, [_ | _] = text} = push) do
    {:socket_push, kind, IO.iodata_to_binary(text)}
  rescue
    ArgumentError -> push
  end

  defp readable([head | tail]), do: [readable(head) | readable(tail)]

  defp readable(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> readable() |> List.to_tuple()

  defp readable(other), do: other
end
