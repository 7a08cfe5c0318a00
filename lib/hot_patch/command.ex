defmodule HotPatch.Command do
  @moduledoc false
  # The functions of HotPatch as commands of a terminal. What a command is about stands here; its
  # options come from the one table of options, so that an option is there as soon as a function
  # has it. Names of nodes and the like become atoms: this is for a VM that lives for one call, of
  # the operator who wrote them.

  alias HotPatch.Options
  alias HotPatch.Options.Argument
  alias HotPatch.Support.Suggestion

  @typedoc "What a command is about: an archive on this machine, a patch, a node, or nothing."
  @type subject :: :file | :patch | :node | nil

  @typedoc "A call of a function of HotPatch. Of `upload` the first argument is a path."
  @type call :: %{function: atom(), subject: subject(), arguments: [term()]}

  @commands [
    upload: {:file, "takes an archive in; prints the patch with its id"},
    list: {nil, "all patches"},
    composition: {:patch, "what is in a patch"},
    check: {:patch, "what applying would give, by file and node; changes nothing"},
    plan: {:patch, "load order, who will pause, risks; changes nothing"},
    apply: {:patch, "makes a patch current on all nodes"},
    rollback: {:patch, "takes it back"},
    export_antipatch: {:patch, "what it has replaced, as a zip in the file that `--to` names"},
    cancel: {:patch, "stops what is under way, and takes back what was done of it"},
    delete: {:patch, "forgets its archive"},
    nodes: {nil, "all nodes: release, patches, whether a restart is needed"},
    journal: {nil, "who did what, when, and how it ended"},
    drift: {nil, "code that differs from its file, or between the nodes"},
    stragglers: {nil, "who still runs old code"},
    progress: {nil, "how far what is under way has come"},
    restart: {:node, "restarts a node and waits for it"},
    dismiss: {:node, "a node has left the system for good"},
    attach: {:node, "brings HotPatch to a node that does not have it"},
    detach: {:node, "takes it away again"}
  ]

  # Functions that mean something only within a VM.
  @left_out [:subscribe, :unsubscribe, :to_json]

  # Beside those of the functions.
  @own [cookie: :string, json: :boolean, watch_for: :integer, limit: :keep]

  @doc "All functions that are commands."
  @spec functions() :: [atom()]
  def functions, do: Keyword.keys(@commands)

  @doc "Functions that are no commands, because they mean nothing outside the VM."
  @spec left_out() :: [atom()]
  def left_out, do: @left_out

  @doc "The commands as a Markdown table."
  @spec docs() :: String.t()
  def docs do
    rows =
      for {function, {subject, text}} <- @commands,
          do: "| `#{Enum.join([name(function) | argument(subject)], " ")}` | #{text} |"

    Enum.join(["| command | what it does |", "|---|---|" | rows], "\n")
  end

  defp argument(nil), do: []
  defp argument(subject), do: [subject |> Atom.to_string() |> String.upcase()]

  @doc "The switches of all commands, for `OptionParser`."
  @spec switches() :: keyword()
  def switches do
    for({_function, rules} <- all_rules(), {option, check} <- rules, do: {option, type(check)})
    |> Enum.uniq()
    |> Keyword.merge(@own)
  end

  defp all_rules, do: for({function, _} <- @commands, do: {function, Options.rules(function)})

  defp type({:one_of, [true, false]}), do: :boolean
  defp type(:watch), do: :boolean
  defp type(:config), do: :keep
  defp type(check) when check in [:milliseconds, :count], do: :integer
  defp type(_text_or_names), do: :string

  @doc "The call that a command line asks for; `given` are its options as they were parsed."
  @spec parse(String.t(), [String.t()], keyword()) :: {:ok, call()} | {:error, String.t()}
  def parse(command, arguments, given) do
    with {:ok, function} <- function(command),
         {subject, _text} = @commands[function],
         {:ok, arguments} <- subject(subject, arguments, command),
         {:ok, options} <- options(function, given) do
      arguments = if Options.rules(function) == [], do: arguments, else: arguments ++ [options]
      {:ok, %{function: function, subject: subject, arguments: arguments}}
    end
  end

  @doc "What a command is called."
  @spec name(atom()) :: String.t()
  def name(function), do: function |> Atom.to_string() |> String.replace("_", "-")

  defp function(command) do
    names = Enum.map(functions(), &name/1)

    case Enum.find(functions(), &(name(&1) == command)) do
      nil ->
        question = Suggestion.question(command, names)
        {:error, "there is no command #{command}#{question}; there are #{Enum.join(names, ", ")}"}

      function ->
        {:ok, function}
    end
  end

  defp subject(nil, [], _command), do: {:ok, []}
  defp subject(:node, [name], _command), do: {:ok, [String.to_atom(name)]}
  defp subject(subject, [text], _command) when subject != nil, do: {:ok, [text]}

  defp subject(subject, arguments, command) do
    wanted = Enum.join([command | argument(subject)], " ")
    {:error, "#{Enum.join([command | arguments], " ")} is not understood: it is #{wanted}"}
  end

  defp options(function, given) do
    rules = Options.rules(function)
    given = given |> watch() |> Keyword.drop([:cookie, :json])

    case Enum.find(given, fn {option, _value} -> not Keyword.has_key?(rules, option) end) do
      nil -> values(given, rules)
      {option, _value} -> {:error, unknown(option, function, rules)}
    end
  end

  defp unknown(option, function, rules) do
    switches = for {name, _check} <- rules, do: "--" <> name(name)
    list = if switches == [], do: "none", else: Enum.join(switches, ", ")
    "--#{name(option)} is no option of #{name(function)}, which takes #{list}"
  end

  # Limits of a watch are options of their own.
  defp watch(given) do
    limits = Enum.map(Keyword.get_values(given, :limit), &{:limit, &1})
    duration = if ms = given[:watch_for], do: [{:duration, ms}], else: []
    given = Keyword.drop(given, [:limit, :watch_for])

    if limits ++ duration == [],
      do: given,
      else: Keyword.put(given, :watch, {:limits, duration ++ limits})
  end

  defp values(given, rules) do
    given
    |> Keyword.keys()
    |> Enum.uniq()
    |> Enum.reduce_while({:ok, []}, fn option, {:ok, options} ->
      case value(rules[option], Keyword.get_values(given, option)) do
        {:ok, value} -> {:cont, {:ok, [{option, value} | options]}}
        {:error, rule} -> {:halt, {:error, "--#{name(option)} #{rule}"}}
      end
    end)
  end

  defp value(:config, texts), do: each(texts, &setting/1, &together/1)
  defp value(:watch, [{:limits, limits}]), do: each(limits, &limit/1, & &1)
  defp value(check, texts), do: {:ok, one(check, List.last(texts))}

  defp one({:one_of, allowed}, text) when is_binary(text),
    do: Enum.find(allowed, text, &(Atom.to_string(&1) == text))

  defp one(:nodes, "role:" <> role), do: {:role, String.to_atom(role)}
  defp one(:nodes, names), do: names(names)

  defp one(:release, text) do
    case String.split(text, "-", parts: 2) do
      [name, version] -> {name, version}
      # What is wrong with it says HotPatch.
      [text] -> text
    end
  end

  defp one(:canary, text) do
    case {Integer.parse(text), Float.parse(text)} do
      {{number, ""}, _} -> number
      {_, {share, ""}} -> share
      _ -> names(text)
    end
  end

  defp one(_check, value), do: value

  defp names(text), do: text |> String.split(",") |> Enum.map(&String.to_atom/1)

  defp each(texts, read, finish) do
    Enum.reduce_while(texts, {:ok, []}, fn text, {:ok, before} ->
      case read.(text) do
        {:ok, value} -> {:cont, {:ok, before ++ [value]}}
        error -> {:halt, error}
      end
    end)
    |> then(fn result -> with {:ok, values} <- result, do: {:ok, finish.(values)} end)
  end

  # As `mix hot_patch.build` takes them.
  defp setting(text) do
    with {:ok, {application, key, _value, term}} <- Argument.setting(text),
         do: {:ok, {String.to_atom(application), String.to_atom(key), term}}
  end

  defp together(settings) do
    settings
    |> Enum.group_by(&elem(&1, 0), fn {_application, key, value} -> {key, value} end)
    |> Enum.to_list()
  end

  defp limit({:duration, ms}), do: {:ok, {:duration, ms}}

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
