defmodule HotPatch.Swap.Conversion do
  @moduledoc false
  # What runs inside a process that stands still to change its state, by way of `replace_state`
  # (sys.erl, do_replace_state/3).
  #
  # `convert` calls the new code's callback in its shadow, before any new code is current,
  # and puts the new state aside: the state itself stays. Only when that went well in every
  # process are the modules loaded, and `take` makes the states put aside the real ones; it
  # cannot fail. `drop` forgets them, which is all there is to going back.

  alias HotPatch.Swap.DynamicCalls
  alias HotPatch.Swap.Employment
  alias HotPatch.Swap.Foreign
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Tally

  @key :"$hot_patch_new_state"
  @before :"$hot_patch_state_before"
  @handlers :"$hot_patch_handlers_before"
  @by_loop :"$hot_patch_by_loop"

  @typedoc """
  One module's conversion, as it is sent to a process: the shadow in which it runs, the
  version that the process comes from, the ref under which it answers. The result of a rehearsal is
  not kept: the process will convert its state by itself, after the load. One that `keeps?` its
  state has it in the right format already. What may be done before everybody stands still is done
  `at_once?`. `works_for` says how it is made sure that the process works
  for the module still, or what it has found, nil where it need not; `loop` is that of a behaviour that is not OTP's. `gone` are the modules that the change takes away, `funs`
  those that are made anew in whatever the process holds.
  """
  @type t :: %{
          module: module(),
          shadow: module(),
          kind: kind(),
          old_vsn: term(),
          extra: term(),
          lambdas?: boolean(),
          md5: binary() | nil,
          rehearsal?: boolean(),
          keeps?: boolean(),
          at_once?: boolean(),
          works_for: Employment.t() | Employment.found() | nil,
          loop: module() | nil,
          gone: [module()],
          funs: FunRenewal.shared() | nil,
          signal: Signal.t(),
          ref: reference()
        }

  @typedoc "By which callback the state is converted."
  @type kind :: :server | :statem | :event | :special | :hosted | :supervisor | :foreign | :agent

  @doc "Makes the state that was put aside the real one; what was kept is forgotten."
  @spec take(term()) :: term()
  def take(state) do
    case Process.get(@handlers) do
      [_before | rest] -> keep_handlers(rest, state)
      nil -> take_now(state)
    end
  end

  @doc "Makes the state that was put aside the real one; what was kept stays so."
  @spec take_now(term()) :: term()
  def take_now(state) do
    :ok = FunRenewal.take_dictionary()

    case {Process.get(@key), state} do
      {{:whole, new}, state} -> keep_rest(nil, final(state, new))
      {{:kept, _before}, state} -> keep_rest(nil, state)
      {[{module, id, _} = new | rest], {module, id, _state}} -> keep_rest(rest, new)
      {[:same | rest], handler} -> keep_rest(rest, handler)
      {_nothing, state} -> state
    end
  end

  @doc "Forgets the state that was put aside; what was kept is the real one again."
  @spec drop(term()) :: term()
  def drop(state) do
    :ok = FunRenewal.drop_dictionary()

    case {Process.delete(@key), Process.get(@handlers)} do
      {_aside, [before | rest]} -> keep_handlers(rest, before)
      {{:kept, before}, nil} -> before
      _nothing -> state
    end
  end

  defp keep_handlers(rest, state) do
    if rest == [], do: Process.delete(@handlers), else: Process.put(@handlers, rest)
    state
  end

  @doc "Keeps the state that a process has before it changes by itself."
  @spec keep(state) :: state when state: term()
  def keep(state) do
    Process.put(@key, {:kept, state})
    state
  end

  @doc "The same of an event manager, whose handlers come one after the other, always in the same order."
  @spec keep_handler(handler) :: handler when handler: term()
  def keep_handler(handler) do
    Process.put(@handlers, Process.get(@handlers, []) ++ [handler])
    handler
  end

  @doc """
  Has a process in the loop of a behaviour that is not OTP's change by itself, with the code that is
  current; it answers under a ref as such a loop would.
  """
  @spec change_foreign(term, t()) :: term when term: term()
  def change_foreign(term, conversion), do: final(term, converted(term, conversion))

  @doc "Converts a state and gives the new one, the old one if that failed; it tells its end, too."
  @spec converted(state, t()) :: state when state: term()
  def converted(state, conversion) do
    result = tried(conversion, state)
    answer(conversion, :ok)
    if match?({:ok, _new}, result), do: elem(result, 1), else: state
  end

  @doc "A state as it is when the new code is current, of what a conversion has made."
  @spec final(term(), term()) :: term()
  def final(state, {@by_loop, new, %{loop: loop} = how}) do
    state
    |> Foreign.by_loop(new, loop, {how.module, how.old_vsn, how.extra})
    |> FunRenewal.renewed(how.funs)
  end

  def final(_state, new), do: new

  @doc "Notes the state that a process has before it changes in its turn."
  @spec remember_old(state) :: state when state: term()
  def remember_old(state) do
    Process.put(@before, {:old, state})
    state
  end

  @doc "Notes to what state the one before was changed: it may have to go back."
  @spec remember_new(state) :: state when state: term()
  def remember_new(state) do
    with {:old, old} when old !== state <- Process.get(@before),
         do: Process.put(@before, {:changed, old, state})

    state
  end

  @doc "Forgets the state from before."
  @spec forget(state) :: state when state: term()
  def forget(state) do
    Process.delete(@before)
    state
  end

  @doc """
  Converts a process's state and puts the result aside. One that gets to it only when the swap
  is over does nothing.
  """
  @spec convert(state, %{module() => t()}) :: state when state: term()
  def convert(state, by_module) do
    [%{kind: kind, signal: signal} = conversion | _] = Map.values(by_module)

    cond do
      not Signal.open?(signal) -> :too_late
      kind == :event -> convert_handler(state, by_module)
      true -> convert_whole(state, conversion)
    end

    state
  end

  @doc "Converts a state and gives the new one; the old one if that failed, which is told."
  @spec converted(state, t(), Tally.seat()) :: state when state: term()
  def converted(state, conversion, seat) do
    with {:not, what} <- attempt(conversion, state) do
      told(conversion, what, seat)
      state
    else
      {:ok, new} -> new
    end
  end

  @doc """
  The same before everybody stands still. It is done later where the code comes to a call that leads
  anywhere.
  """
  @spec at_once(state, t(), Tally.seat()) :: {:ok, state} | :later when state: term()
  def at_once(state, conversion, seat) do
    case DynamicCalls.without(fn -> attempt(conversion, state) end) do
      {:ok, {:ok, new}} ->
        {:ok, new}

      {:ok, {:not, what}} ->
        told(conversion, what, seat)
        {:ok, state}

      :called ->
        :ok = FunRenewal.drop_dictionary()
        told(conversion, :later, seat)
        :later
    end
  end

  defp told(conversion, what, seat) do
    tell(conversion, what)
    Tally.tell(seat)
  end

  @doc "Converts a state and gives the new one; what failed is told."
  @spec tried(t(), state) :: {:ok, state} | :told when state: term()
  def tried(conversion, state) do
    with {:not, what} <- attempt(conversion, state) do
      tell(conversion, what)
      :told
    end
  end

  @doc "Whether the code of a module that a state is converted for, or that came, is the current one."
  @spec current?(%{
          :module => module(),
          :md5 => binary() | nil,
          optional(atom()) => term()
        }) :: boolean()
  def current?(%{module: module, md5: nil}), do: not :erlang.module_loaded(module)

  def current?(%{module: module, md5: md5}) do
    :erlang.module_loaded(module) and :erlang.get_module_info(module, :md5) == md5
  end

  defp convert_whole(state, conversion) do
    case attempt(conversion, state) do
      {:ok, new} -> unless conversion.rehearsal?, do: Process.put(@key, {:whole, new})
      {:not, what} -> tell(conversion, what)
    end

    answer(conversion, :ok)
  end

  # An event manager's fun is called once for each handler, always in the same order; one
  # module may be there several times.
  defp convert_handler({module, id, state}, by_module) do
    conversion = by_module[module]

    new =
      case conversion && attempt(conversion, state) do
        {:ok, new} ->
          {module, id, new}

        {:not, what} ->
          tell(conversion, what)
          :same

        nil ->
          kept(by_module, {module, id, state})
      end

    rehearsal? = Enum.any?(by_module, fn {_module, one} -> one.rehearsal? end)
    unless rehearsal?, do: Process.put(@key, Process.get(@key, []) ++ [new])
  end

  # Whatever becomes of the state of another handler: it may hold funs.
  defp kept(by_module, {module, id, state}) do
    [%{funs: funs} | _] = Map.values(by_module)
    new = FunRenewal.renewed(state, funs)
    if new === state, do: :same, else: {module, id, new}
  end

  defp attempt(conversion, state),
    do: Signal.within(conversion.signal, fn -> attempt_all(conversion, state) end)

  # Funs come last, so that they are also those that the new code has handed on.
  defp attempt_all(conversion, state) do
    with :ok <- still_works(conversion, state),
         {{:ok, new}, written} <- apart(conversion, state),
         :ok <- lasting(conversion, written) do
      if conversion.rehearsal? do
        {:ok, new}
      else
        :ok = FunRenewal.put_dictionary_aside(conversion.funs, written)
        {:ok, renewed(new, conversion.funs)}
      end
    else
      {{:not, what}, _written} -> {:not, what}
      {:not, what} -> {:not, what}
    end
  end

  # What the callback writes into the dictionary is put aside like the state: the change may be taken back. The
  # handlers of an event manager read what others have written.
  defp apart(%{at_once?: true} = conversion, state), do: {attempt_state(conversion, state), []}
  defp apart(%{kind: :event} = conversion, state), do: {attempt_state(conversion, state), []}
  defp apart(conversion, state), do: FunRenewal.apart(fn -> attempt_state(conversion, state) end)

  defp lasting(%{lambdas?: true}, [_ | _] = written),
    do: if(shadow_fun?(written), do: {:not, :again}, else: :ok)

  defp lasting(_conversion, _written), do: :ok

  defp renewed({@by_loop, new, how}, funs), do: {@by_loop, FunRenewal.renewed(new, funs), how}
  defp renewed(new, funs), do: FunRenewal.renewed(new, funs)

  defp still_works(%{works_for: found}, _state) when found in [nil, :ok], do: :ok

  defp still_works(%{works_for: {:another, other}}, _state),
    do: {:not, {:failed, {:works_for, other}}}

  defp still_works(%{module: module, works_for: works_for} = conversion, state) do
    found = Employment.check(works_for, state, module)
    still_works(%{conversion | works_for: found}, state)
  end

  # Who has not changed its state since it was converted goes back to the very one it had.
  defp attempt_state(%{old_vsn: {:down, _vsn}} = conversion, state) do
    case Process.get(@before) do
      {:changed, old, ^state} -> {:ok, old}
      # It got to its change when nobody waited for it any more.
      {:changed, _old, _then} -> attempt_call(%{conversion | keeps?: false}, state)
      _ -> attempt_call(conversion, state)
    end
  end

  defp attempt_state(conversion, state), do: attempt_call(conversion, state)

  defp attempt_call(%{keeps?: true}, state), do: {:ok, state}

  defp attempt_call(%{kind: :foreign} = conversion, term) do
    with {:ok, form, parts} <- foreign_parts(conversion, term),
         {:ok, parts} <- check(conversion, parts) do
      made = Foreign.with_parts(term, form, parts)
      how = Map.take(conversion, [:loop, :module, :old_vsn, :extra, :funs])
      {:ok, if(form.plain?, do: made, else: {@by_loop, made, how})}
    else
      {:not, what} -> {:not, what}
      failed -> {:not, failed}
    end
  catch
    kind, reason -> {:not, {:failed, {kind, reason, __STACKTRACE__}}}
  end

  defp attempt_call(conversion, state) do
    case outcome(conversion, state) do
      {:ok, new} -> check(conversion, new)
      failed -> {:not, failed}
    end
  end

  # The new ones, and where they stand in the term.
  defp foreign_parts(conversion, term) do
    with {:ok, form} <- Foreign.form(term, conversion.loop, conversion.module),
         {:ok, parts} <-
           Foreign.converted(form, conversion.shadow, conversion.old_vsn, conversion.extra) do
      {:ok, form, parts}
    else
      :unknown -> {:failed, :works_for_another}
      other -> {:failed, other}
    end
  end

  @doc "What the callback makes of a state, or how it failed: what it gave instead, or what was caught."
  @spec outcome(t(), term()) ::
          {:ok, term()} | {:failed, term() | {:error | :exit | :throw, term(), list()}}
  def outcome(%{kind: :foreign} = conversion, term) do
    with {:ok, _form, parts} <- foreign_parts(conversion, term), do: {:ok, parts}
  catch
    kind, reason -> {:failed, {kind, reason, __STACKTRACE__}}
  end

  def outcome(conversion, state) do
    case call(conversion.kind, conversion, state) do
      {:ok, new} -> {:ok, new}
      other -> {:failed, other}
    end
  catch
    kind, reason -> {:failed, {kind, reason, __STACKTRACE__}}
  end

  defp call(kind, %{shadow: shadow, old_vsn: vsn, extra: extra}, state)
       when kind in [:server, :event, :agent],
       do: shadow.code_change(vsn, state, extra)

  defp call(:statem, %{shadow: shadow, old_vsn: vsn, extra: extra}, {state, data}) do
    with {:ok, state, data} <- shadow.code_change(vsn, state, data, extra),
         do: {:ok, {state, data}}
  end

  defp call(:special, %{shadow: shadow, module: module, old_vsn: vsn, extra: extra}, misc) do
    shadow.system_code_change(misc, module, vsn, extra)
  end

  # As the library hands it on.
  defp call(:hosted, %{shadow: shadow, module: module} = conversion, state) do
    with {:ok, inner} <- hosted(state, module),
         {:ok, new} <- shadow.code_change(conversion.old_vsn, inner, conversion.extra) do
      if Hosted.alike?(inner, new),
        do: {:ok, Hosted.outer(state, new)},
        else: {:error, {:not_its_socket, module}}
    end
  end

  # A supervisor's code_change asks init for the child specs and takes them over. Here they
  # are only looked at: the supervisor itself does it after the load. What the init of a library's supervisor is
  # given is not known, and is not tried.
  defp call(:supervisor, %{module: module} = conversion, state) do
    case supervisor_argument(state, module) do
      {:ok, argument} -> child_specs(conversion, argument, state)
      :unknown -> {:ok, state}
    end
  end

  defp child_specs(%{shadow: shadow} = conversion, argument, state) do
    case shadow.init(argument) do
      {:ok, {_flags, specs}} ->
        with :ok <- :supervisor.check_childspecs(specs),
             [] <- Enum.filter(specs, &(started_in(&1) in conversion.gone)) do
          {:ok, state}
        else
          [spec | _] -> {:error, {:child_of_a_module_that_goes, started_in(spec)}}
          error -> error
        end

      {:ok, flags} when is_map(flags) ->
        {:ok, state}

      :ignore ->
        {:ok, state}

      other ->
        other
    end
  end

  defp hosted(state, module) do
    with :error <- Hosted.inner(state, module), do: {:error, {:unknown_state_of_library, module}}
  end

  defp started_in(%{start: {module, _function, _args}}), do: module
  defp started_in({_id, {module, _function, _args}, _, _, _, _}), do: module

  # supervisor.erl's #state{} ends with the callback module and its argument on OTP 25 to 29;
  # Elixir's DynamicSupervisor is a struct.
  @doc "What the init of a supervisor's callback module is given; unknown of one that is a library's."
  @spec supervisor_argument(term(), module()) :: {:ok, term()} | :unknown
  def supervisor_argument(%{mod: module, args: argument}, module), do: {:ok, argument}

  def supervisor_argument(state, module)
      when is_tuple(state) and elem(state, tuple_size(state) - 2) == module,
      do: {:ok, elem(state, tuple_size(state) - 1)}

  def supervisor_argument(_state, _module), do: :unknown

  # A fun that a shadow made, its own or one that it calls, would be dead with it: such a state is
  # converted again, by the module itself, after the load.
  defp check(%{lambdas?: true}, new) do
    if shadow_fun?(new), do: {:not, :again}, else: {:ok, new}
  end

  defp check(_conversion, new), do: {:ok, new}

  # A fun of somebody else may have one among the values that it was made with.
  defp shadow_fun?(term) when is_function(term) do
    {:module, module} = Function.info(term, :module)
    {:env, env} = Function.info(term, :env)
    DynamicCalls.shadow?(module) or shadow_fun?(env)
  end

  defp shadow_fun?([head | tail]), do: shadow_fun?(head) or shadow_fun?(tail)
  defp shadow_fun?(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> shadow_fun?()
  defp shadow_fun?(map) when is_map(map), do: map |> :maps.to_list() |> shadow_fun?()
  defp shadow_fun?(_other), do: false

  defp tell(conversion, what), do: answer(conversion, {what, conversion.module})

  defp answer(%{ref: ref}, answer), do: SysMessage.tell(ref, ref, answer)

  defp keep_rest(rest, state) when rest in [nil, []] do
    Process.delete(@key)
    state
  end

  defp keep_rest(rest, state) do
    Process.put(@key, rest)
    state
  end
end
