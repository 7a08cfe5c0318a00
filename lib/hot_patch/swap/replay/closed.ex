defmodule HotPatch.Swap.Replay.Closed do
  @moduledoc false
  # Whether what a function is given lets it out of a replay. A function that only works something out calls the
  # funs that it is given, and goes by the structs and modules that it finds: by a protocol, by a sorter, by a calendar. So
  # a fun is wrapped, so that it is called through the gate, and a struct whose code is not known leaves the
  # message aside.

  alias HotPatch.Swap.Replay.Sandbox

  # Structs that Elixir's own functions know how to go by, with their own code.
  @structs [
    Range,
    MapSet,
    Date,
    Date.Range,
    Time,
    NaiveDateTime,
    DateTime,
    Regex,
    URI,
    Version,
    RuntimeError,
    ArgumentError,
    ArithmeticError,
    KeyError,
    MatchError,
    CaseClauseError,
    WithClauseError,
    BadMapError,
    ErlangError
  ]
  # OTP's modules that explain errors.
  @explaining [:erl_erts_errors, :erl_stdlib_errors, :erl_kernel_errors]
  # Elixir's modules that can compare.
  @sorters [Date, Time, NaiveDateTime, DateTime, Version]
  @words [:asc, :desc, nil, true, false]

  # Their functions know nothing of protocols, calendars or modules. What they are given is only data.
  @plain [
    :lists,
    :maps,
    :sets,
    :ordsets,
    :orddict,
    :dict,
    :gb_trees,
    :gb_sets,
    :queue,
    :proplists,
    :string,
    :binary,
    :math,
    :unicode,
    :array,
    :erlang,
    :ets,
    :persistent_term,
    :application,
    :os,
    :counters,
    :atomics,
    :calendar,
    :rand,
    :crypto,
    :global,
    :pg,
    :logger,
    :re,
    :io_lib,
    :base64,
    :timer,
    String,
    Integer,
    Float,
    Atom,
    Base,
    Bitwise,
    System,
    Application,
    Process,
    Node,
    Registry,
    Logger,
    Regex,
    Version,
    IO,
    Tuple,
    Function
  ]
  # Of these only the arguments themselves are gone by, and not what is in them, and of some only those at these
  # places: what is put into a map, or handed on from step to step, is nothing but handed on,
  @keys [take: [1], drop: [1], split: [1]]
  @pairs [
    concat: [0, 1],
    into: [0, 1],
    zip: [0, 1],
    zip_with: [0, 1],
    zip_reduce: [0, 1],
    reverse: [0, 1],
    chunk_every: [0, 3]
  ]
  @shallow %{
    Enum => {[0], @pairs},
    Map => {[], [{:new, [0]} | @keys]},
    Keyword => {:all, []},
    List => {[], zip: [0]},
    MapSet => {[0], []},
    Access => {[0, 1], []},
    String.Chars => {:all, []},
    List.Chars => {:all, []},
    Date => {:all, []},
    Time => {:all, []},
    NaiveDateTime => {:all, []},
    DateTime => {:all, []},
    Range => {:all, []}
  }
  # but for these. Where they refuse something they show it as text:
  @showing [
    {Keyword, :merge},
    {Keyword, :validate},
    {Keyword, :validate!},
    {List, :keyfind!},
    {List, :to_string},
    {List, :to_charlist},
    {String, :pad_leading},
    {String, :pad_trailing},
    {System, :convert_time_unit},
    {Application, :fetch_env!}
  ]
  # as they do with a fun's result that is no pair, and Access with a key.
  @pair [:get_and_update, :get_and_update!]
  # They go by the elements of their arguments,
  @elements [
    {Enum, :concat},
    {Enum, :join},
    {Enum, :map_join},
    {Enum, :zip},
    {Enum, :zip_with},
    {Enum, :zip_reduce},
    {List, :zip}
  ]
  # what the fun gives,
  @results [{Enum, :flat_map}, {Enum, :flat_map_reduce}, {Enum, :map_join}]
  # and by what is sorted, which may be a module.
  @sorting [
    {Enum, :sort},
    {Enum, :sort_by},
    {Enum, :min},
    {Enum, :max},
    {Enum, :min_by},
    {Enum, :max_by},
    {Enum, :min_max_by},
    {List, :keysort}
  ]

  @doc "Where a fun leads: it is closed where all that it does goes through the gate."
  @spec fun(fun()) :: :closed | {:external, module(), atom()} | {:local, module()}
  def fun(fun) do
    {:module, module} = Function.info(fun, :module)
    %{names: names} = Sandbox.inside()

    case Function.info(fun, :type) do
      _any_type when is_map_key(names, module) ->
        :closed

      {:type, :local} when module == __MODULE__ ->
        :closed

      {:type, :external} ->
        {:name, name} = Function.info(fun, :name)
        {:external, module, name}

      {:type, :local} ->
        {:local, module}
    end
  end

  @doc "A fun that collects what is gone along, and leads nowhere."
  @spec collector() :: (term(), list() -> {:cont, list()})
  def collector, do: fn element, elements -> {:cont, [element | elements]} end

  @typedoc "How a fun is called that is wrapped."
  @type run :: (fun(), [term()] -> term())

  @doc "The arguments of a function that is run, with their funs wrapped: `run` calls them."
  @spec arguments(module(), atom(), [term()], run()) :: [term()]
  def arguments(module, function, arguments, run) do
    # It may be set for the whole system.
    if function == :inspect and Inspect.Opts.default_inspect_fun() != (&Inspect.inspect/2),
      do: Sandbox.leave_aside(:unknown_fun)

    cond do
      {module, function} in @showing -> Enum.map(arguments, &deep(&1, run))
      module in @plain -> Enum.map(arguments, &wrapped(&1, :any, run))
      is_map_key(@shallow, module) -> shallow(arguments, {module, function}, run)
      true -> Enum.map(arguments, &deep(&1, run))
    end
  end

  defp shallow(arguments, {module, function} = about, run) do
    {usual, others} = Map.fetch!(@shallow, module)
    places = Keyword.get(others, function, usual)

    if module == Access, do: arguments |> Enum.drop(1) |> Enum.take(1) |> scan()

    for {argument, place} <- Enum.with_index(arguments) do
      if is_function(argument) or places == :all or place in places,
        do: shallow_one(argument, about, run),
        else: handed_on(argument, about)
    end
  end

  defp handed_on(argument, about) do
    if about in @sorting, do: sorter(argument)
    argument
  end

  @doc "Refuses arguments that are gone by and are none that are known."
  @spec top!([term()]) :: :ok
  def top!(arguments), do: Enum.each(arguments, &top/1)

  defp shallow_one(fun, {_module, function}, run) when is_function(fun) and function in @pair,
    do: wrapped(fun, :pair, run)

  defp shallow_one(fun, about, run) when is_function(fun),
    do: wrapped(fun, if(about in @results, do: :flat, else: :any), run)

  defp shallow_one(argument, about, _run) do
    :ok = top(argument)
    if about in @elements, do: elements(argument)
    handed_on(argument, about)
  end

  defp elements([head | tail]) do
    :ok = given(head)
    elements(tail)
  end

  defp elements(%MapSet{} = set), do: set |> MapSet.to_list() |> elements()
  defp elements(_other), do: :ok

  # What is gone by although it was not an argument.
  defp given(fun) when is_function(fun) do
    if fun(fun) == :closed, do: :ok, else: Sandbox.leave_aside(:unknown_fun)
  end

  defp given(other), do: top(other)

  defp top(%{__struct__: module} = struct) when module in @structs do
    case struct do
      %{calendar: calendar} when calendar != Calendar.ISO -> unknown(calendar)
      %Date.Range{first: first, last: last} -> Enum.each([first, last], &top/1)
      _of_elixir -> :ok
    end
  end

  defp top(%{__struct__: module}), do: unknown(module)
  defp top(%{calendar: calendar}) when calendar != Calendar.ISO, do: unknown(calendar)
  defp top(_other), do: :ok

  defp sorter({order, module}) when order in [:asc, :desc] and module in @sorters, do: :ok
  defp sorter({_order, module}), do: unknown(module)

  defp sorter(atom) when is_atom(atom) and atom not in @words and atom not in @sorters,
    do: unknown(atom)

  defp sorter(_other), do: :ok

  @spec unknown(term()) :: no_return()
  defp unknown(module), do: Sandbox.leave_aside({:struct_of, module})

  @doc "A stack in which only OTP's own modules are named to explain an error."
  @spec stack(term()) :: term()
  def stack(stack) when is_list(stack) do
    for entry <- stack do
      case entry do
        {module, function, arity, [_ | _] = location} ->
          {module, function, arity, Enum.reject(location, &explained?/1)}

        other ->
          other
      end
    end
  end

  def stack(_other), do: []

  defp explained?({:error_info, %{module: module}}) when module in @explaining, do: false
  defp explained?({:error_info, _by_another}), do: true
  defp explained?(_place), do: false

  @doc "What a function that makes atoms gives, where these are there already."
  @spec atoms(module(), atom(), [term()]) :: term()
  def atoms(module, name, arguments) do
    made(module, name, arguments)
  rescue
    ArgumentError -> Sandbox.leave_aside(:atoms)
  end

  defp made(:erlang, :binary_to_atom, [text]), do: :erlang.binary_to_existing_atom(text)

  defp made(:erlang, :binary_to_atom, [text, encoding]),
    do: :erlang.binary_to_existing_atom(text, encoding)

  defp made(:erlang, :list_to_atom, [text]), do: :erlang.list_to_existing_atom(text)

  defp made(:erlang, :binary_to_term, [bytes | options]),
    do: :erlang.binary_to_term(bytes, [:safe | List.first(options, [])])

  defp made(String, :to_atom, [text]), do: String.to_existing_atom(text)
  defp made(List, :to_atom, [text]), do: List.to_existing_atom(text)

  defp made(Module, :concat, parts) do
    :ok = scan(parts)
    apply(Module, :safe_concat, parts)
  end

  @doc "Refuses a seed that OTP has not made."
  @spec seed!(term()) :: :ok
  def seed!(:undefined), do: :ok

  def seed!({%{} = algorithm, _state}) do
    of_otp? = fn
      fun when is_function(fun) -> Function.info(fun, :module) == {:module, :rand}
      _other -> true
    end

    if algorithm |> Map.values() |> Enum.all?(of_otp?),
      do: :ok,
      else: Sandbox.leave_aside(:unknown_fun)
  end

  def seed!(_other), do: Sandbox.leave_aside(:unknown_fun)

  defp deep(fun, run) when is_function(fun), do: wrapped(fun, :deep, run)

  defp deep(argument, _run) do
    :ok = scan(argument)
    argument
  end

  @doc "Refuses a term that holds, however deep, a struct whose code is not known, or a fun that is not closed."
  @spec scan(term()) :: :ok
  def scan(%{__struct__: _module} = struct) do
    :ok = top(struct)
    struct |> Map.delete(:__struct__) |> scan()
  end

  def scan(map) when is_map(map) do
    :ok = top(map)
    map |> :maps.to_list() |> scan()
  end

  def scan([head | tail]) do
    :ok = scan(head)
    scan(tail)
  end

  def scan(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> scan()

  def scan(fun) when is_function(fun) do
    case fun(fun) do
      :closed -> :ok
      # Elixir's own paths into what is nested.
      {:local, Access} -> fun |> Function.info(:env) |> elem(1) |> scan()
      _leads_out -> Sandbox.leave_aside(:unknown_fun)
    end
  end

  def scan(_other), do: :ok

  # The one that is given calls through the gate; what it gives is looked at where that is gone by.
  defp wrapped(fun, results, run) when is_function(fun) do
    if results == :any and fun(fun) == :closed, do: fun, else: wrap(fun, results, run)
  end

  defp wrapped(other, _results, _run), do: other

  for arity <- 0..12 do
    arguments = Macro.generate_arguments(arity, __MODULE__)

    defp wrap(fun, results, run) when is_function(fun, unquote(arity)) do
      fn unquote_splicing(arguments) ->
        result = run.(fun, unquote(arguments))
        :ok = looked_at(result, results)
        result
      end
    end
  end

  defp wrap(_fun, _results, _run), do: Sandbox.leave_aside(:many_arguments)

  defp looked_at(_result, :any), do: :ok
  defp looked_at({_gets, _new}, :pair), do: :ok
  defp looked_at(result, :pair), do: scan(result)
  defp looked_at({list, _acc}, :flat), do: given(list)
  defp looked_at(result, :flat), do: given(result)
  defp looked_at(result, :deep), do: scan(result)
end
