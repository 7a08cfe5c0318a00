defmodule HotPatch.Options do
  @moduledoc false
  # What is derived from the table of options (HotPatch.Options.Schema): the documentation and the types of
  # the public functions, validation with defaults, and what goes on from one operation to another.

  alias HotPatch.Error
  alias HotPatch.Options.Schema
  alias HotPatch.Options.Type
  alias HotPatch.Support.Suggestion

  @type call :: unquote(Enum.reduce(Schema.calls(), &{:|, [], [&1, &2]}))

  @doc "The functions of HotPatch that take options."
  @spec functions() :: [call()]
  defdelegate functions(), to: Schema

  @doc "The options of a call as a Markdown list, for its `@doc`."
  @spec docs(call()) :: String.t()
  def docs(call),
    do: Enum.map_join(Schema.options(call), "\n", &"  * `:#{&1.name}` - #{&1.doc}")

  @doc "The options of a call, each with what its value has to be; none of a call without options."
  @spec rules(atom()) :: [{atom(), Type.t()}]
  def rules(call), do: for(option <- Schema.options(call), do: {option.name, option.type})

  @doc "The option list of a call, for `@type`."
  @spec spec(call()) :: Macro.t()
  def spec(call), do: for({name, type} <- rules(call), do: {name, Type.spec(type)})

  @doc "The values of one option of a call, for `@type`."
  @spec spec(call(), atom()) :: Macro.t()
  def spec(call, name), do: call |> rules() |> Keyword.fetch!(name) |> Type.spec()

  @doc "Every option of a call with its default."
  @spec defaults(call()) :: %{atom() => term()}
  def defaults(call), do: Map.new(Schema.options(call), &{&1.name, &1.default})

  @doc "The options of a call that a form or a query may say; the page says the others by itself."
  @spec fields_of_form(atom()) :: [Schema.option()]
  def fields_of_form(call), do: Enum.reject(Schema.options(call), & &1.in_person)

  @doc "What counts in an operation that nobody has asked for."
  @spec alone() :: %{atom() => term()}
  def alone, do: Map.new(Schema.options(:apply), &{&1.name, &1.alone})

  @doc "Checks options and fills in defaults; the error names the option at fault."
  @spec validate(call(), term()) :: {:ok, map()} | {:error, Error.t()}
  def validate(call, options) do
    known = Map.new(Schema.options(call), &{&1.name, &1})

    with :ok <- keywords(call, options),
         {:ok, valid} <- each(options, defaults(call), &validate_one(&1, &2, known, call)),
         :ok <- complete(call, valid),
         do: {:ok, valid}
  end

  defp keywords(call, options) do
    if Keyword.keyword?(options) do
      :ok
    else
      text = inspect(options, limit: 5, printable_limit: 80)

      {:error,
       Error.new(:invalid_option, "#{call}: options must be a keyword list, got: #{text}")}
    end
  end

  defp each(options, valid, fun) do
    Enum.reduce_while(options, {:ok, valid}, fn option, {:ok, valid} ->
      case fun.(option, valid) do
        {:ok, valid} -> {:cont, {:ok, valid}}
        error -> {:halt, error}
      end
    end)
  end

  defp validate_one({name, value}, valid, known, call) do
    case known do
      %{^name => %{type: type}} ->
        value = Type.normal(type, value)

        case Type.check(type, value) do
          :ok -> {:ok, Map.put(valid, name, value)}
          {:error, rule} -> wrong(call, name, rule)
        end

      _ ->
        unknown(call, name)
    end
  end

  defp complete(call, valid) do
    case Enum.find(Schema.options(call), &(&1.required and valid[&1.name] == nil)) do
      nil -> :ok
      option -> wrong(call, option.name, "is missing: #{option.doc}")
    end
  end

  @doc """
  Options of a check or a plan are for the operation that it is to foresee, which may take fewer values
  than others.
  """
  @spec foresees(call(), call(), map()) :: :ok | {:error, Error.t()}
  def foresees(call, operation, options) do
    Enum.find_value(rules(operation), :ok, fn {name, type} ->
      with value when value != nil <- options[name],
           {:error, rule} <- Type.check(type, value) do
        wrong(call, name, "of a #{operation} #{rule}")
      else
        _nothing_or_possible -> nil
      end
    end)
  end

  defp unknown(call, name) do
    names = for {known, _type} <- rules(call), do: inspect(known)
    question = Suggestion.question(inspect(name), names)

    wrong(
      call,
      name,
      "is not an option of #{call}#{question}; it takes #{Enum.join(names, ", ")}"
    )
  end

  @doc "The error of an option whose value is not as the rule says."
  @spec wrong(call(), atom(), String.t()) :: {:error, Error.t()}
  def wrong(call, name, rule) do
    {:error,
     Error.new(:invalid_option, "#{call}: option #{inspect(name)} #{rule}", %{option: name})}
  end

  @doc "The options for which a manifest may say another default than ours."
  @spec declared() :: [Schema.option()]
  def declared, do: Enum.filter(Schema.options(:build), & &1.manifest)

  @doc "What a manifest says for them, from its JSON, which was checked when the archive was read."
  @spec declared(%{String.t() => term()}) :: keyword()
  def declared(content) do
    for %{name: name, type: type} <- declared(),
        do: {name, from_json(type, Map.fetch!(content, Atom.to_string(name)))}
  end

  defp from_json({:one_of, values}, text), do: Enum.find(values, &(Atom.to_string(&1) == text))
  defp from_json(:boolean, value), do: value

  @doc "What goes to the nodes with the patch, by the fields of its payload."
  @spec payload(:apply | :rollback, %{atom() => term()}) :: keyword()
  def payload(call, options) do
    for %{payload: field} = option when field != nil <- Schema.options(call) do
      # A check leaves to the operation what it was not told.
      value = Map.get(options, option.name)
      {field, if(value == nil, do: option.default, else: value)}
    end
  end

  @doc """
  The fields of a payload that come from options, each with what counts in a payload that was not told,
  and its type. A rollback leaves open what each node has in its own record.
  """
  @spec fields() :: [{atom(), term(), Macro.t()}]
  def fields do
    back = defaults(:rollback)

    for %{payload: field} = option when field != nil <- Schema.options(:apply) do
      type = Type.spec(option.type)

      case Map.get(back, option.name, option.default) do
        nil -> {field, nil, quote(do: unquote(type) | nil)}
        default -> {field, default, type}
      end
    end
  end

  @doc """
  What an operation that follows from an apply takes from that, by the fields of a payload, which are those
  of the record of an operation too.
  """
  @spec inherited(:undo | :catch_up, :apply | :rollback, %{atom() => term()}) :: keyword()
  def inherited(kind, call, from) do
    for %{payload: field} = option <- Schema.options(call),
        kind in option.inherited,
        is_map_key(from, field),
        do: {field, Map.fetch!(from, field)}
  end
end
