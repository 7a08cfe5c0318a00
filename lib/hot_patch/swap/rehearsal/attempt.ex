defmodule HotPatch.Swap.Rehearsal.Attempt do
  @moduledoc false
  # One call of the new code's callback on a copy of a process' state, in a process of its own. It tells what
  # came of it in forms and figures; the new state ends with it.

  alias HotPatch.Rehearsal.Form
  alias HotPatch.Rehearsal.Reason
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Foreign
  alias HotPatch.Swap.SysMessage

  @typedoc "Whose state it is, and whom it tells."
  @type about :: %{process: pid(), engine: pid(), ref: reference()}

  @typedoc "What came of it; `process` is the one whose state it was."
  @type result ::
          {:made,
           %{us: non_neg_integer(), words: non_neg_integer(), from: String.t(), to: String.t()}}
          | {:failed, %{us: non_neg_integer(), reason: String.t(), place: String.t() | nil}}
          | {:own_table, %{us: non_neg_integer()}}
          | {:unasked, %{us: non_neg_integer()}}
  @type told :: {:result, process :: pid(), module(), result()}

  @doc "Runs it. When the one that leads the rehearsal is gone, this process goes too."
  @spec run(term(), Conversion.t(), [{term(), term()}], about()) :: :ok
  def run(state, conversion, dictionary, about) do
    if linked?(about.engine) do
      Enum.each(dictionary, fn {key, value} -> Process.put(key, value) end)
      started = System.monotonic_time()
      outcome = Conversion.outcome(conversion, state)
      us = System.convert_time_unit(System.monotonic_time() - started, :native, :microsecond)
      result = result(outcome, state, conversion, us)
      SysMessage.tell(about.ref, about.ref, {:result, about.process, conversion.module, result})
    end

    :ok
  end

  defp linked?(engine) do
    Process.link(engine)
  rescue
    ErlangError -> false
  end

  # The state is handed back as it was; what is tried is whether its new init gives child specs that are right.
  defp result({:ok, state}, state, %{kind: :supervisor, module: module}, us) do
    case Conversion.supervisor_argument(state, module) do
      {:ok, _argument} ->
        {:made, %{us: us, words: 0, from: "child specs", to: "those of its new init"}}

      :unknown ->
        {:unasked, %{us: us}}
    end
  end

  defp result({:ok, new}, state, %{kind: kind} = conversion, us) do
    from = form(kind, before(state, conversion))
    {:made, %{us: us, words: :erts_debug.flat_size(new), from: from, to: form(kind, new)}}
  end

  # Only the process itself may have a look at it: that is no fault of the callback.
  defp result({:failed, {:error, :badarg, [{:ets, _, _, _} | _]}}, _state, _conversion, us),
    do: {:own_table, %{us: us}}

  defp result({:failed, {kind, reason, [_ | _] = stack}}, _state, conversion, us)
       when kind in [:error, :exit, :throw] do
    reason = if kind == :error, do: named(reason, stack), else: reason
    place = Description.where(conversion.module, stack)
    {:failed, %{us: us, reason: Reason.caught(kind, reason), place: place}}
  end

  defp result({:failed, given}, _state, _conversion, us),
    do: {:failed, %{us: us, reason: Reason.given(given), place: nil}}

  # Which function is undefined stands in the stack, and shadows are nobody's business.
  defp named(:undef, [{module, function, arguments, _location} | _]) do
    arity = if is_list(arguments), do: length(arguments), else: arguments
    %UndefinedFunctionError{module: module, function: function, arity: arity}
  end

  defp named(reason, _stack), do: reason

  # What a loop that is not OTP's keeps in its own term.
  defp before(term, %{kind: :foreign, loop: loop, module: module}) do
    with {:ok, %{parts: parts}} <- Foreign.form(term, loop, module),
         do: parts,
         else: (_ -> [term])
  end

  defp before(state, _conversion), do: state

  # The library's state is as it was; what the user's module keeps in it are the assigns.
  defp form(:hosted, %{socket: socket}), do: form(:hosted, socket)
  defp form(:hosted, %{assigns: assigns}), do: Form.of(assigns)
  defp form(:foreign, parts) when is_list(parts), do: parts |> List.last() |> Form.of()

  # Of a gen_statem the data are what has a form.
  defp form(:statem, {_state, data}), do: Form.of(data)
  defp form(_kind, state), do: Form.of(state)
end
