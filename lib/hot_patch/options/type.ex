defmodule HotPatch.Options.Type do
  @moduledoc false
  # What the values of options may be: for each type the rule, its form in an `@type`, and its switch on a
  # command line. How the page shows and reads one is in HotPatch.Console.

  alias HotPatch.Options.Argument
  alias HotPatch.Options.WatchLimits

  @type t ::
          :boolean
          | :canary
          | :config
          | :count
          | :findings
          | :function
          | :milliseconds
          | :name
          | :names
          | :node_names
          | :nodes
          | :path
          | :release
          | :seconds
          | :text
          | :watch
          | :words
          | {:one_of, [atom()]}

  @longest_ms 3_600_000
  @longest_s 3_600

  @doc "The values of a type, for `@type`."
  @spec spec(t()) :: Macro.t()
  def spec({:one_of, values}), do: values |> Enum.reverse() |> Enum.reduce(&{:|, [], [&1, &2]})
  def spec(:boolean), do: quote(do: boolean())
  def spec(:canary), do: quote(do: [node()] | pos_integer() | float())
  def spec(:config), do: quote(do: [{atom(), keyword()}] | [String.t()])
  def spec(:count), do: quote(do: pos_integer())
  def spec(:findings), do: quote(do: [String.t()])

  def spec(:function),
    do: quote(do: (non_neg_integer(), non_neg_integer() -> term()))

  def spec(:milliseconds), do: quote(do: 1..unquote(@longest_ms))
  def spec(:seconds), do: quote(do: 1..unquote(@longest_s))
  def spec(:names), do: quote(do: [module() | String.t()])
  def spec(:node_names), do: quote(do: [node()])
  def spec(:nodes), do: quote(do: HotPatch.nodes())
  def spec(:path), do: quote(do: Path.t())
  def spec(:release), do: quote(do: {String.t(), String.t()} | String.t())
  def spec(:watch), do: quote(do: boolean() | keyword())
  def spec(text) when text in [:name, :text, :words], do: quote(do: String.t())

  @doc "The type of the switch, as `OptionParser` has it; nil where a command line cannot say it."
  @spec switch(t()) :: :boolean | :integer | :keep | :string | nil
  def switch(type) when type in [:boolean, :watch], do: :boolean
  def switch(type) when type in [:count, :milliseconds, :seconds], do: :integer
  def switch(type) when type in [:config, :findings], do: :keep
  def switch(:function), do: nil
  def switch(_text_or_names), do: :string

  @doc "How its value is called in the help of a command line; nil where the switch has none."
  @spec sample(t()) :: String.t() | nil
  def sample({:one_of, values}), do: Enum.join(values, "|")
  def sample(type) when type in [:boolean, :watch, :function], do: nil
  def sample(:canary), do: "N|SHARE|A,B"
  def sample(:config), do: "APP.KEY=TERM"
  def sample(:count), do: "N"
  def sample(:findings), do: "NAME[:MODULE]"
  def sample(:milliseconds), do: "MS"
  def sample(:seconds), do: "SECONDS"
  def sample(:name), do: "NAME"
  def sample(type) when type in [:names, :node_names], do: "A,B"
  def sample(:nodes), do: "A,B|role:ROLE"
  def sample(:path), do: "PATH"
  def sample(:release), do: "NAME-VERSION"
  def sample(text) when text in [:text, :words], do: "TEXT"

  @doc "A value in its usual form. Callers from Erlang write text as charlists; a release may be one text."
  @spec normal(t(), term()) :: term()
  def normal(type, value) when type in [:text, :name, :path, :words], do: Argument.text(value)
  def normal(:release, {name, version}), do: {Argument.text(name), Argument.text(version)}

  def normal(:release, text) do
    with text when is_binary(text) <- Argument.text(text),
         [name, version] when name != "" and version != "" <- String.split(text, "-", parts: 2) do
      {name, version}
    end
  end

  def normal(type, [first | _] = list)
      when type in [:names, :findings, :config] and not is_integer(first) do
    if List.improper?(list), do: list, else: Enum.map(list, &Argument.text/1)
  end

  def normal(_type, value), do: value

  @doc "Whether a value is of a type; else the rule that it breaks, and what it is."
  @spec check(t(), term()) :: :ok | {:error, String.t()}
  # What it is may be a secret.
  def check(:config, value) do
    cond do
      Keyword.keyword?(value) and Enum.all?(Keyword.values(value), &Keyword.keyword?/1) ->
        :ok

      texts?(value) ->
        Enum.find_value(value, :ok, &with({:ok, _setting} <- Argument.setting(&1), do: nil))

      true ->
        {:error, "must be a keyword list of applications, each with a keyword list of keys"}
    end
  end

  def check(:watch, value) when is_boolean(value), do: :ok

  def check(:watch, value) do
    if Keyword.keyword?(value),
      do: WatchLimits.check(value),
      else: {:error, "must be true, false or a keyword list of limits, got: #{short(value)}"}
  end

  def check(type, value) do
    if valid?(type, value), do: :ok, else: {:error, "must be #{rule(type)}, got: #{short(value)}"}
  end

  defp valid?({:one_of, allowed}, value), do: value in allowed
  defp valid?(:boolean, value), do: is_boolean(value)

  defp valid?(:canary, value) do
    names?(value) or (is_integer(value) and value > 0) or
      (is_float(value) and value > 0 and value < 1)
  end

  defp valid?(:count, value), do: is_integer(value) and value > 0
  defp valid?(:findings, value), do: texts?(value)
  defp valid?(:function, value), do: is_function(value, 2)
  defp valid?(:milliseconds, value), do: is_integer(value) and value in 1..@longest_ms
  defp valid?(:seconds, value), do: is_integer(value) and value in 1..@longest_s

  defp valid?(:name, value),
    do: is_binary(value) and value =~ ~r/\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z/

  defp valid?(:names, value), do: list?(value) and Enum.all?(value, &(is_atom(&1) or text?(&1)))
  defp valid?(:node_names, value), do: names?(value)

  defp valid?(:nodes, value) do
    names?(value) or is_function(value, 1) or match?({:role, role} when is_atom(role), value)
  end

  defp valid?(:path, value), do: text?(value) and not String.contains?(value, <<0>>)

  defp valid?(:release, value),
    do: match?({name, version} when is_binary(name) and is_binary(version), value)

  defp valid?(:text, value) do
    is_binary(value) and String.printable?(value) and byte_size(value) in 1..200
  end

  defp valid?(:words, value), do: text?(value)

  defp rule({:one_of, allowed}) do
    {last, others} = allowed |> Enum.map(&inspect/1) |> List.pop_at(-1)
    "#{Enum.join(others, ", ")} or #{last}"
  end

  defp rule(:boolean), do: "true or false"

  defp rule(:canary),
    do: "a non-empty list of node names, a positive number of nodes, or a share between 0 and 1"

  defp rule(:count), do: "a positive number"
  defp rule(:findings), do: "a list of texts"
  defp rule(:function), do: "a function of two arguments"
  defp rule(:milliseconds), do: "1 to 3,600,000 milliseconds"
  defp rule(:seconds), do: "1 to 3,600 seconds"

  defp rule(:name),
    do: "1 to 64 letters, digits, `.`, `_` or `-` and begin with a letter or digit"

  defp rule(:names), do: "a list of names"

  defp rule(:node_names),
    do: "a non-empty list of node names (atoms, such as :\"a@10.0.0.1\")"

  defp rule(:nodes),
    do: rule(:node_names) <> ", {:role, role} or a function of one argument"

  defp rule(:path), do: "a path"
  defp rule(:release), do: "{\"name\", \"version\"} or \"name-version\""
  defp rule(:text), do: "1 to 200 bytes of printable text"
  defp rule(:words), do: "text"

  defp names?(value), do: list?(value) and value != [] and Enum.all?(value, &is_atom/1)
  defp texts?(value), do: list?(value) and Enum.all?(value, &text?/1)
  defp text?(value), do: is_binary(value) and value != "" and String.valid?(value)
  defp list?(value), do: is_list(value) and not List.improper?(value)

  defp short(term), do: inspect(term, limit: 5, printable_limit: 80)
end
