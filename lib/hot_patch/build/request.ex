defmodule HotPatch.Build.Request do
  @moduledoc false
  # The options of a build: checked, and as the native library takes them.

  alias HotPatch.Error
  alias HotPatch.Options.Argument
  alias HotPatch.Support.OSUser
  alias HotPatch.Support.Suggestion

  @options [
    from:
      "the build that runs: a release or its tar, a `_build/ENV` folder, or a folder of " <>
        "applications (`APP/ebin`)",
    to: "the repaired build, of any of these kinds",
    out: "where to write the archive",
    modules: "only these modules, whether they differ or not; then `from` may be left out",
    all_differences:
      "`true`: also modules that differ only in line numbers, debug information or documentation",
    for: "the release that it is for, as `\"my_app-1.2.0\"`, where `from` does not say it",
    name: "the patch's name. Default: that of `out`",
    author: "who makes it. Default: the operating system's user",
    text: "what it is for",
    transition: "`:suspend` (default), `:none` or `:compatible`, see `HotPatch.apply/2`",
    on_load: "`:restart` (default) or `:load`",
    cumulative: "`true`: it takes the place of all patches before it",
    config:
      "changes of applications' environments: a list of `\"my_app.limit=100\"`, the value an Erlang " <>
        "term",
    accept:
      "findings that are accepted: a list of `\"name\"` or `\"name:Module\"`, see " <>
        "`HotPatch.Analysis.Finding`; each must match something that is found",
    sign: "the path of a secret key, see `mix hot_patch.keygen`",
    dry_run: "`true`: nothing is written",
    progress:
      "a function of the number of files that are compared and the number of all; called now " <>
        "and then in another process, and once more when it is done"
  ]

  @own %{out: nil, sign: nil, dry_run: false, progress: nil}

  @doc "The options as a Markdown list."
  @spec docs() :: String.t()
  def docs, do: Enum.map_join(@options, "\n", fn {name, doc} -> "  * `:#{name}` - #{doc}" end)

  @doc "The request, and what is not the library's: where to write, the key, who hears."
  @spec new(keyword()) :: {:ok, map(), map()} | {:error, Error.t()}
  def new(options) do
    options = for {option, value} <- options, do: {option, text(value)}

    with :ok <- known(options),
         :ok <- lists(options),
         {:ok, to} <- path(options, :to),
         {:ok, out} <- if(options[:dry_run], do: {:ok, nil}, else: path(options, :out)),
         :ok <- something(options),
         {:ok, name} <- checked_name(options[:name] || name(options[:out] || "patch")),
         {:ok, release} <- release(options[:for]),
         {:ok, transition} <- one_of(options, :transition, [:suspend, :none, :compatible]),
         {:ok, on_load} <- one_of(options, :on_load, [:restart, :load]),
         {:ok, config} <- each(options[:config], &config/1),
         {:ok, accepted} <- each(options[:accept], &finding/1) do
      request = %{
        "from" => options[:from] && Path.expand(options[:from]),
        "to" => to,
        "modules" => options[:modules] && Enum.map(options[:modules], &module_name/1),
        "all_differences" => options[:all_differences] == true,
        "release" => release,
        "name" => name,
        "author" => options[:author] || OSUser.name(),
        "text" => options[:text],
        "cumulative" => options[:cumulative] == true,
        "transition" => transition,
        "on_load" => on_load,
        "config" => config,
        "accepted_findings" => accepted,
        "otp" => System.otp_release(),
        "elixir" => System.version()
      }

      own = Map.merge(@own, Map.new(Keyword.take(options, [:sign, :dry_run])))
      {:ok, request, %{own | out: out, progress: options[:progress] || fn _, _ -> :ok end}}
    end
  end

  @doc "The name of a patch that is written to `path`."
  @spec name(Path.t()) :: String.t()
  def name(path) do
    path
    |> Path.basename(".zip")
    |> String.replace(~r/[^A-Za-z0-9._-]/, "_")
    |> String.replace(~r/\A[^A-Za-z0-9]+/, "")
    |> String.slice(0, 64)
    |> then(&if(&1 == "", do: "patch", else: &1))
  end

  # Callers from Erlang write text as charlists, of which some options have a list.
  defp text([first | _] = list) when not is_integer(first), do: Enum.map(list, &Argument.text/1)
  defp text(value), do: Argument.text(value)

  defp lists(options) do
    wrong =
      for option <- [:modules, :config, :accept],
          value = options[option],
          not (is_list(value) and Enum.all?(value, &(is_atom(&1) or is_binary(&1)))),
          do: {option, value}

    case wrong do
      [] -> :ok
      [{option, value} | _] -> invalid(option, "must be a list of names, got: #{inspect(value)}")
    end
  end

  defp known(options) do
    case Enum.find(Keyword.keys(options), &(not Keyword.has_key?(@options, &1))) do
      nil ->
        :ok

      option ->
        names = for {name, _doc} <- @options, do: inspect(name)
        question = Suggestion.question(inspect(option), names)
        invalid(option, "is none of a build#{question}; it takes #{Enum.join(names, ", ")}")
    end
  end

  defp path(options, option) do
    case options[option] do
      path when is_binary(path) and path != "" -> {:ok, Path.expand(path)}
      nil -> invalid(option, "is missing")
      other -> invalid(option, "must be a path, got: #{inspect(other)}")
    end
  end

  defp something(options) do
    if options[:from] || options[:modules],
      do: :ok,
      else: invalid(:from, "is missing: give the build that runs, or choose :modules by hand")
  end

  defp checked_name(name) do
    if name =~ ~r/\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z/,
      do: {:ok, name},
      else: invalid(:name, "must be 1 to 64 letters, digits, `.`, `_` or `-`, got: #{name}")
  end

  defp release(nil), do: {:ok, nil}

  defp release(text) do
    case String.split(text, "-", parts: 2) do
      [name, version] when name != "" and version != "" ->
        {:ok, %{"name" => name, "version" => version}}

      _ ->
        invalid(:for, "must be NAME-VERSION, as my_app-1.2.0, got: #{text}")
    end
  end

  defp one_of(options, option, [default | _] = allowed) do
    value = Keyword.get(options, option, default)

    if value in allowed,
      do: {:ok, Atom.to_string(value)},
      else: invalid(option, "must be one of #{inspect(allowed)}, got: #{inspect(value)}")
  end

  defp each(nil, _read), do: {:ok, []}

  defp each(texts, read) do
    Enum.reduce_while(texts, {:ok, []}, fn text, {:ok, read_before} ->
      case read.(text) do
        {:ok, value} -> {:cont, {:ok, read_before ++ [value]}}
        error -> {:halt, error}
      end
    end)
  end

  # The value is read here only to say at once what is wrong with it.
  defp config(text) do
    case Argument.setting(text) do
      {:ok, {application, key, value, _term}} ->
        {:ok, %{"application" => application, "key" => key, "value" => value}}

      {:error, text} ->
        invalid(:config, text)
    end
  end

  defp finding(text) do
    case String.split(text, ":", parts: 2) do
      [rule, module] -> {:ok, %{"rule" => rule, "module" => module, "reason" => nil}}
      [rule] -> {:ok, %{"rule" => rule, "module" => nil, "reason" => nil}}
    end
  end

  defp module_name(module) when is_atom(module), do: Atom.to_string(module)
  defp module_name(module) when is_binary(module), do: module

  defp invalid(option, text) do
    {:error,
     Error.new(:invalid_option, "build: option #{inspect(option)} #{text}", %{option: option})}
  end
end
