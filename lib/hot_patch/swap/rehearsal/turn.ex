defmodule HotPatch.Swap.Rehearsal.Turn do
  @moduledoc false
  # What a process does in its own turn when it is rehearsed: it hands out a copy of its state, and keeps it.
  # An event manager does so for each of its handlers that the change has to do with.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Employment
  alias HotPatch.Swap.Rehearsal.Attempt
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage

  @typedoc "What is asked of a process. It answers under `ref`, as long as the signal is open."
  @type order :: %{
          ref: reference(),
          signal: Signal.t(),
          engine: pid(),
          conversions: %{module() => Conversion.t()},
          most_words: pos_integer()
        }

  @typedoc "When it came to it, and who tries it; or how many words are too many."
  @type told ::
          {:turn, at :: integer(),
           {:tries, pid(), module()} | {:too_large | :works_for_another, module()}}

  # Words that an attempt may take besides some times the state.
  @room 2_000_000
  @times 4

  @doc "Runs inside the process; gives the state as it is."
  @spec run(state, order()) :: state when state: term()
  def run(state, order) do
    if Signal.open?(order.signal), do: hand_out(state, order)
    state
  catch
    # Whatever it is, it is none of the process' business.
    _kind, _reason -> state
  end

  # The state of a handler comes with its module and its id; of all others it comes by itself.
  defp hand_out(state, %{conversions: conversions} = order) do
    case {Map.values(conversions), state} do
      {[%{kind: kind} = conversion], _state} when kind != :event ->
        copy(state, conversion, order)

      {_of_handlers, {module, _id, state}} when is_map_key(conversions, module) ->
        copy(state, conversions[module], order)

      _another_handler ->
        :ok
    end
  end

  defp copy(state, conversion, order) do
    at = System.monotonic_time()
    # It may look at its own dictionary.
    dictionary = Process.get()
    words = :erts_debug.flat_size([state | dictionary])

    told =
      cond do
        another?(conversion, state) ->
          {:works_for_another, conversion.module}

        words > order.most_words ->
          {:too_large, conversion.module}

        true ->
          {:tries, attempt({state, dictionary, words}, conversion, order), conversion.module}
      end

    SysMessage.tell(order.ref, order.ref, {:turn, at, told})
  end

  # Only the process itself can tell.
  defp another?(%{works_for: nil}, _state), do: false

  defp another?(%{works_for: works_for, module: module}, state),
    do: match?({:another, _other}, Employment.check(works_for, state, module))

  defp attempt({state, dictionary, words}, conversion, order) do
    about = %{process: self(), engine: order.engine, ref: order.ref}
    most = %{size: @times * words + @room, kill: true, error_logger: false}

    :erlang.spawn_opt(
      fn -> Attempt.run(state, conversion, dictionary, about) end,
      priority: :low,
      max_heap_size: most
    )
  end
end
