defmodule HotPatch.Options.CommandLine do
  @moduledoc false
  # Options as the switches of a command line, and back. Names of nodes and roles become atoms: this is
  # for a VM that lives for one call, of the operator who wrote them.

  alias HotPatch.Options.Argument
  alias HotPatch.Options.Schema
  alias HotPatch.Options.Type

  # Limits of a watch are switches of their own.
  @limits [
    watch_for: {:integer, "MS", "how long nodes are watched afterwards"},
    limit:
      {:keep, "SIGN=NUMBER",
       "up to which limit they are watched, see `HotPatch.Watch`; may be given several times"}
  ]

  @doc "The switches of a call, for `OptionParser`."
  @spec switches(atom()) :: keyword()
  def switches(call) do
    for option <- Schema.options(call), switch <- switches_of(option), do: switch
  end

  defp switches_of(%{name: name, type: :watch}),
    do: [{name, Type.switch(:watch)} | for({limit, {type, _, _}} <- @limits, do: {limit, type})]

  defp switches_of(%{name: name, type: type}),
    do: if(switch = Type.switch(type), do: [{name, switch}], else: [])

  @doc "How an option is called on a command line."
  @spec name(atom()) :: String.t()
  def name(option), do: option |> Atom.to_string() |> String.replace("_", "-")

  @doc "The switches of these calls as a Markdown list; one that means different things is there for each."
  @spec docs([atom()]) :: String.t()
  def docs(calls) do
    for(call <- calls, option <- Schema.options(call), do: {option, call})
    |> Enum.filter(fn {option, _call} -> Type.switch(option.type) end)
    |> Enum.group_by(fn {option, _call} -> line(option) end)
    |> Enum.sort_by(fn {_line, [{option, _call} | _]} -> option.name end)
    |> Enum.map_join("\n", fn {{switch, doc}, found} ->
      where = for({_option, call} <- found, do: name(call)) |> Enum.uniq() |> where(calls)
      "  * #{switch} - #{where}#{doc}"
    end)
  end

  # Where all is of one call nothing has to be said of that.
  defp where(_found, [_call]), do: ""
  defp where(found, _calls), do: "(#{Enum.join(found, ", ")}) "

  defp line(%{type: :watch} = option) do
    limits =
      for {limit, {_type, sample, text}} <- @limits, do: {"`#{written(limit, sample)}`", text}

    more = for {switch, text} <- limits, do: "#{switch}: #{text}"

    {"`--#{name(option.name)}`, `--no-#{name(option.name)}`",
     Enum.join([option.doc | more], "; ")}
  end

  defp line(option) do
    several = if Type.switch(option.type) == :keep, do: "; may be given several times", else: ""
    {"`#{switch(option)}`", option.doc <> several}
  end

  defp switch(option), do: written(option.name, option.sample || Type.sample(option.type))

  defp written(option, nil), do: "--#{name(option)}"
  defp written(option, sample), do: "--#{name(option)} #{sample}"

  @doc "The options of a call from its switches, as they were parsed; or which is none, or what is wrong with it."
  @spec read(atom(), keyword()) ::
          {:ok, keyword()} | {:unknown, atom()} | {:error, String.t()}
  def read(call, given) do
    types = Map.new(Schema.options(call), &{&1.name, &1.type})

    given
    |> watch()
    |> Enum.reduce_while({:ok, []}, fn {option, values}, {:ok, options} ->
      case types do
        %{^option => type} -> add(value(type, values), option, options)
        _ -> {:halt, {:unknown, option}}
      end
    end)
  end

  @doc "Whether nothing is missing that a call cannot do without, in the words of a command line."
  @spec complete(atom(), keyword()) :: :ok | {:error, String.t()}
  def complete(call, options) do
    missing? = &(&1.required and not Keyword.has_key?(options, &1.name))

    case Enum.find(Schema.options(call), missing?) do
      nil -> :ok
      option -> {:error, "#{switch(option)} is needed"}
    end
  end

  defp add({:ok, value}, option, options), do: {:cont, {:ok, [{option, value} | options]}}
  defp add({:error, rule}, option, _options), do: {:halt, {:error, "--#{name(option)} #{rule}"}}

  # By option, with all that was given for it.
  defp watch(given) do
    {limits, given} = Keyword.split(given, Keyword.keys(@limits))
    all = given |> Keyword.keys() |> Enum.uniq() |> Enum.map(&{&1, Keyword.get_values(given, &1)})
    if limits == [], do: all, else: Keyword.put(all, :watch, {:limits, limits})
  end

  defp value(:watch, {:limits, limits}), do: each(limits, &limit/1)

  # What is wrong with a word says the call.
  defp value(type, texts) do
    case {Type.switch(type), type} do
      {:keep, :config} -> each(texts, &setting/1)
      {:keep, _type} -> {:ok, texts}
      _once -> {:ok, one(type, List.last(texts))}
    end
  end

  defp one({:one_of, allowed}, text), do: Enum.find(allowed, text, &(Atom.to_string(&1) == text))
  defp one(:nodes, "role:" <> role), do: {:role, String.to_atom(role)}
  defp one(type, names) when type in [:nodes, :node_names], do: atoms(names)
  defp one(:names, names), do: String.split(names, ",", trim: true)

  defp one(:canary, text) do
    case {Integer.parse(text), Float.parse(text)} do
      {{number, ""}, _} -> number
      {_, {share, ""}} -> share
      _ -> atoms(text)
    end
  end

  defp one(_type, value), do: value

  defp atoms(text), do: text |> String.split(",") |> Enum.map(&String.to_atom/1)

  defp each(texts, read) do
    Enum.reduce_while(texts, {:ok, []}, fn text, {:ok, before} ->
      case read.(text) do
        {:ok, value} -> {:cont, {:ok, before ++ [value]}}
        error -> {:halt, error}
      end
    end)
  end

  defp setting(text), do: with({:ok, _setting} <- Argument.setting(text), do: {:ok, text})

  defp limit({:watch_for, ms}), do: {:ok, {:duration, ms}}

  defp limit({:limit, text}) do
    with [sign, number] <- String.split(text, "=", parts: 2),
         {number, ""} <- Float.parse(number) do
      whole = trunc(number)
      {:ok, {String.to_atom(sign), if(whole == number, do: whole, else: number)}}
    else
      _ -> {:error, "must be SIGN=NUMBER, as in crashes=0, got: #{text}"}
    end
  end
end
