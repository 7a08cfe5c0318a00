defmodule HotPatch.Swap.Replay.Gate do
  @moduledoc false
  # The one way out of a replay: the native core has every call of another module, every call of a fun and
  # every message of the shadows lead here (native/beam/src/shadow/closed.rs). What is known to have no effect runs, what
  # reads runs, what is sent and forgotten is noted and not sent; anything else ends the replay of that message.
  #
  # Funs of shadows lead here themselves. Others do not: they are called only through this module, also by
  # a function that is given one. Those that come with a state, with a message or by reading are made anew as funs of
  # shadows before (HotPatch.Swap.Replay.Funs).

  import Kernel, except: [send: 2]

  alias HotPatch.Swap.Replay.Closed
  alias HotPatch.Swap.Replay.Coming
  alias HotPatch.Swap.Replay.Funs
  alias HotPatch.Swap.Replay.Sandbox
  alias HotPatch.Swap.Replay.Structs
  alias HotPatch.Swap.Replay.Table

  @doc "How the native core is told of it."
  @spec naming(Sandbox.side()) :: {suffix :: String.t(), gate :: String.t()}
  def naming(:old), do: {"@hot_patch_old", Atom.to_string(__MODULE__)}
  def naming(:new), do: {"@hot_patch_new", Atom.to_string(__MODULE__)}

  @most 32

  # What makes atoms.
  @makers [
    {:erlang, :binary_to_atom},
    {:erlang, :list_to_atom},
    {:erlang, :binary_to_term},
    {String, :to_atom},
    {List, :to_atom},
    {Module, :concat}
  ]

  # The arguments come first, as they stand in the registers.
  for count <- 0..@most do
    arguments = Macro.generate_arguments(count, __MODULE__)

    @doc false
    def call(unquote_splicing(arguments), module, function),
      do: through(module, function, unquote(arguments))

    @doc false
    def call_fun(unquote_splicing(arguments), fun), do: run(fun, unquote(arguments))
  end

  @doc false
  @spec send(term(), message) :: message when message: term()
  def send(to, message), do: through(:erlang, :send, [to, message])

  @doc false
  @spec receives() :: no_return()
  def receives, do: Sandbox.leave_aside(:receives)

  @doc false
  @spec makes_atoms() :: no_return()
  def makes_atoms, do: Sandbox.leave_aside(:atoms)

  @doc "A call by its name, as one of the replayed code."
  @spec through(term(), term(), term()) :: term()
  def through(module, function, arguments)
      when is_atom(module) and is_atom(function) and is_list(arguments) do
    :ok = Sandbox.go_on()

    case Sandbox.inside().family do
      %{^module => shadow} -> apply(shadow, function, arguments)
      _no_shadow -> out(module, function, arguments)
    end
  end

  # It fails as it would anywhere.
  def through(module, function, arguments),
    do: :erlang.error(:badarg, [module, function, arguments])

  @doc "A call of a fun, as one of the replayed code."
  @spec run(term(), [term()]) :: term()
  def run(fun, arguments) when is_function(fun) do
    :ok = Sandbox.go_on()
    inside = Sandbox.inside()

    case Closed.fun(fun) do
      :closed ->
        apply(fun, arguments)

      {:external, module, name} when is_function(fun, length(arguments)) ->
        through(module, name, arguments)

      {:external, _module, _name} ->
        apply(fun, arguments)

      {:local, module} when is_map_key(inside.family, module) ->
        Sandbox.leave_aside({:fun_without, module})

      {:local, module} ->
        Sandbox.leave_aside({:fun_of, module})
    end
  end

  def run(other, _arguments), do: :erlang.error({:badfun, other})

  # What goes by the name of a module, or of a function.
  defp out(:erlang, :apply, [module, function, arguments]),
    do: through(module, function, arguments)

  defp out(:erlang, :apply, [fun, arguments]) when is_list(arguments), do: run(fun, arguments)
  defp out(:erlang, :self, []), do: self()

  defp out(:erlang, :make_fun, [module, function, arity]),
    do: :erlang.make_fun(leads_to(module), function, arity)

  defp out(Function, :capture, arguments), do: out(:erlang, :make_fun, arguments)

  defp out(:erlang, :function_exported, [module, function, arity]),
    do: :erlang.function_exported(leads_to(module), function, arity)

  defp out(Code, name, [module]) when name in [:ensure_loaded, :ensure_loaded?] do
    there? = :erlang.module_loaded(leads_to(module))

    cond do
      name == :ensure_loaded? and there? -> true
      there? -> {:module, module}
      true -> Sandbox.leave_aside({:calls, {Code, name, 1}})
    end
  end

  # What Elixir from 1.17 on calls for `value.field`, where the value may be a module.
  defp out(:elixir_erl_pass, :no_parens_remote, [module, function])
       when is_atom(module) and module not in [nil, true, false],
       do: {:ok, through(module, function, [])}

  defp out(:elixir_erl_pass, :no_parens_remote, [_other, _field]), do: :error

  defp out(Kernel, name, [of]) when name in [:struct, :struct!], do: out(Kernel, name, [of, []])

  defp out(Kernel, :struct, [of, fields]) when is_atom(of),
    do: out(Kernel, :struct, [through(of, :__struct__, []), fields])

  defp out(Kernel, :struct!, [of, fields]) when is_atom(of),
    do: through(of, :__struct__, [fields])

  defp out(Kernel, name, [%{__struct__: _} = of, fields])
       when name in [:struct, :struct!] and (is_list(fields) or is_map(fields)) do
    :ok = Closed.top!([fields])
    apply(Kernel, name, [of, fields])
  end

  defp out(Map, :from_struct, [of]) when is_atom(of),
    do: of |> through(:__struct__, []) |> Map.delete(:__struct__)

  # Whether it is up is seen; who asks twice gets the same answer.
  defp out(module, :cancel_timer, [timer | options])
       when module in [:erlang, Process] and is_list(options) do
    left = read(:erlang, :read_timer, [timer])
    :ok = Sandbox.note(:timer, {:cancel, timer})
    if options == [[]] or options == [], do: left, else: cancelled(options, left)
  end

  defp out(:telemetry, :span, [event, start, fun]) do
    case run(fun, []) do
      {result, _metadata} ->
        :ok = Sandbox.note(:telemetry, {event, start})
        result

      {result, _measurements, _metadata} ->
        :ok = Sandbox.note(:telemetry, {event, start})
        result
    end
  end

  # Whoever has a stack explained has the module called that it names.
  defp out(Exception, :normalize, [kind, payload | stack]) do
    :ok = Closed.scan(payload)
    apply(Exception, :normalize, [kind, payload | Enum.map(stack, &Closed.stack/1)])
  end

  # No atom is made that was not there: they are never given back.
  defp out(module, name, arguments) when {module, name} in @makers do
    Closed.atoms(module, name, arguments)
  end

  # The seed that a process keeps holds funs that are called.
  defp out(module, function, arguments)
       when module == :rand or (module == Enum and function in [:random, :shuffle, :take_random]) do
    :ok = Closed.seed!(:erlang.get(:rand_seed))
    by_rule(module, function, arguments)
  end

  # A struct is gone by with its own code.
  defp out(Enum, function, [%{__struct__: _} = struct | rest] = arguments) do
    case Structs.elements(struct, function) do
      {:ok, elements} -> out(Enum, function, [elements | rest])
      :unknown -> by_rule(Enum, function, arguments)
    end
  end

  defp out(Access, :fetch, [%{__struct__: module} = struct, key]),
    do: through(module, :fetch, [struct, key])

  defp out(Access, :get, [%{__struct__: _} = struct, key | default]) do
    case out(Access, :fetch, [struct, key]) do
      {:ok, value} -> value
      :error -> List.first(default)
    end
  end

  defp out(String.Chars, :to_string, [%{__struct__: _} = struct]) do
    case Structs.implementation(String.Chars, struct) do
      nil -> by_rule(String.Chars, :to_string, [struct])
      copy -> copy.to_string(struct)
    end
  end

  defp out(module, function, arguments), do: by_rule(module, function, arguments)

  defp by_rule(module, function, arguments) do
    case Table.rule(module, function, length(arguments)) do
      :pure -> apply(module, function, closed(module, function, arguments))
      :read -> read(module, function, closed(module, function, arguments))
      :own -> own(module, function, arguments)
      {:record, kind, answer} -> recorded({module, function, arguments}, kind, answer)
      nil -> Sandbox.leave_aside({:calls, {module, function, length(arguments)}})
    end
  end

  defp closed(module, function, arguments),
    do: Closed.arguments(module, function, arguments, &run/2)

  defp cancelled([options], left) do
    if is_list(options) and Keyword.keyword?(options) and options[:info] == false,
      do: :ok,
      else: left
  end

  defp leads_to(module) do
    case Sandbox.inside().family do
      %{^module => shadow} -> shadow
      _no_shadow -> module
    end
  end

  defp read(module, function, arguments) do
    case Coming.answer(Sandbox.inside().coming, module, function, arguments) do
      {:ok, value} -> value
      :as_now -> read_now(module, function, arguments)
    end
  end

  # It is asked for the process that is played, and what it says of that is of the one that plays.
  defp read_now(module, function, arguments) do
    %{real: real, funs: funs} = Sandbox.inside()

    result =
      {module, function, arguments}
      |> Sandbox.read(fn -> apply(module, function, Sandbox.swapped(arguments, self(), real)) end)
      |> Funs.lent(funs, {real, self()})

    :ok = there!(module, function, arguments, {:ok, result})
    result
  rescue
    # Only the process itself may look at a protected table of its own.
    error in ArgumentError ->
      :ok = there!(module, function, arguments, :failed)

      if module == :ets and private?(arguments),
        do: Sandbox.leave_aside(:own_table),
        else: reraise(error, __STACKTRACE__)
  end

  defp there!(module, function, arguments, result) do
    if Coming.absent?(Sandbox.inside().coming, module, function, arguments, result),
      do: Sandbox.leave_aside({:not_there, {module, function, length(arguments)}}),
      else: :ok
  end

  defp private?([table | _]) do
    :ets.info(table, :protection) == :private
  rescue
    ArgumentError -> false
  end

  defp private?([]), do: false

  # What this module keeps there is not to be had.
  defp own(_module, name, [key | _] = arguments) when name in [:put, :get, :erase, :delete] do
    if Sandbox.own?(key), do: Sandbox.leave_aside({:calls, {:erlang, name, length(arguments)}})

    case {name, arguments} do
      {:put, [key, value]} -> :erlang.put(key, value)
      {:get, [key]} -> :erlang.get(key)
      {:get, [key, default]} -> Process.get(key, default)
      {_erase_or_delete, [key]} -> :erlang.erase(key)
    end
  end

  defp own(_module, :get, []) do
    for {key, _value} = entry <- :erlang.get(), not Sandbox.own?(key), do: entry
  end

  defp own(_module, :erase, []) do
    for {key, _value} = entry <- :erlang.get(), not Sandbox.own?(key) do
      :erlang.erase(key)
      entry
    end
  end

  defp own(_module, :get_keys, arguments),
    do: Enum.reject(apply(:erlang, :get_keys, arguments), &Sandbox.own?/1)

  # Nobody has that name: there it fails for real, too.
  defp recorded({:erlang, :send, [name | _] = arguments}, :message, _answer)
       when is_atom(name) and length(arguments) == 2 do
    if read(:erlang, :whereis, [name]) == :undefined,
      do: :erlang.error(:badarg, arguments),
      else: noted_and_answered({:erlang, :send, arguments}, :message, :second)
  end

  defp recorded(call, kind, answer), do: noted_and_answered(call, kind, answer)

  defp noted_and_answered({module, function, arguments} = call, kind, answer) do
    :ok = Sandbox.note(kind, noted(kind, call))

    case answer do
      :second -> Enum.at(arguments, 1)
      # Old and new get the same.
      :ref -> Sandbox.read({:ref, module, function, arguments}, &make_ref/0)
      answer -> answer
    end
  end

  # Alike where it comes to the same.
  defp noted(:reply, {_module, :reply, [to, reply]}), do: {to, reply}

  defp noted(:message, {Phoenix.PubSub, _broadcast_from, [_pubsub, from, topic, message | _by]})
       when is_pid(from),
       do: {:broadcast, topic, message}

  defp noted(:message, {Phoenix.PubSub, _broadcast, [_pubsub, topic, message | _by]}),
    do: {:broadcast, topic, message}

  defp noted(:message, {_module, how, [to, message]}) when how in [:cast, :notify],
    do: {how, to, message}

  defp noted(:message, {_module, _send, [to, message | _options]}), do: {:send, to, message}
  defp noted(_kind, {_module, function, arguments}), do: {function, arguments}
end
