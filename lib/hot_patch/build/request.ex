defmodule HotPatch.Build.Request do
  @moduledoc false
  # The options of a build, as the native library takes them.

  alias HotPatch.Error
  alias HotPatch.Options
  alias HotPatch.Options.Argument
  alias HotPatch.Support.OSUser
  alias HotPatch.Support.TermText

  @doc "The request, and what is not the library's: where to write, the key, who hears."
  @spec new(keyword()) :: {:ok, map(), map()} | {:error, Error.t()}
  def new(options) do
    with {:ok, options} <- Options.validate(:build, options),
         :ok <- something(options),
         :ok <- splittable(options),
         {:ok, config} <- config(options.config) do
      request = %{
        "from" => options.from && Path.expand(options.from),
        "to" => Path.expand(options.to),
        "modules" => options.modules && Enum.map(options.modules, &module_name/1),
        "all_differences" => options.all_differences,
        "in_place" => options.in_place,
        "restart" => Enum.map(options.restart, &to_string/1),
        "release" => release(options.for),
        "name" => options.name || name(options.out || "patch"),
        "author" => options.author || OSUser.name(),
        "text" => options.text,
        "config" => config,
        "accepted_findings" => Enum.map(options.accept, &finding/1),
        "otp" => System.otp_release(),
        "elixir" => System.version()
      }

      own = Map.take(options, [:sign, :dry_run, :config_differences, :split])
      out = if options.dry_run, do: nil, else: Path.expand(options.out)
      progress = options.progress || fn _done, _all -> :ok end

      {:ok, Map.merge(request, declared(options)),
       Map.merge(own, %{out: out, progress: progress})}
    end
  end

  # What the manifest is to say of how the patch is applied.
  defp declared(options),
    do: Map.new(Options.declared(), &{Atom.to_string(&1.name), Map.fetch!(options, &1.name)})

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

  defp something(%{out: nil, dry_run: false}), do: wrong(:out, "is missing")

  defp something(%{from: nil, modules: nil}),
    do: wrong(:from, "is missing: give the build that runs, or choose :modules by hand")

  defp something(_options), do: :ok

  defp splittable(%{split: true, cumulative: true}),
    do: wrong(:split, "makes two patches, and a cumulative one would take the first away again")

  defp splittable(%{split: true, modules: [_ | _]}),
    do: wrong(:split, "chooses the modules of the two by itself, so that :modules cannot")

  defp splittable(_options), do: :ok

  defp release(nil), do: nil
  defp release({name, version}), do: %{"name" => name, "version" => version}

  # The value is read here only to say at once what is wrong with it.
  defp config(settings) do
    Enum.reduce_while(settings, {:ok, []}, fn setting, {:ok, before} ->
      case setting(setting) do
        {:ok, setting} -> {:cont, {:ok, before ++ [setting]}}
        error -> {:halt, error}
      end
    end)
  end

  defp setting(text) when is_binary(text) do
    with {:ok, {application, key, value}} <- Argument.setting(text),
         {:ok, _term} <- TermText.parse(value) do
      {:ok, %{"application" => application, "key" => key, "value" => value}}
    else
      _ -> wrong(:config, "must be APP.KEY=TERM, the value an Erlang term, got: #{text}")
    end
  end

  defp setting(_application_and_keys),
    do: wrong(:config, "of a build is a list of texts, as [\"my_app.key=value\"]")

  defp finding(text) do
    case String.split(text, ":", parts: 2) do
      [rule, module] -> %{"rule" => rule, "module" => module, "reason" => nil}
      [rule] -> %{"rule" => rule, "module" => nil, "reason" => nil}
    end
  end

  defp module_name(module) when is_atom(module), do: Atom.to_string(module)
  defp module_name(module) when is_binary(module), do: module

  defp wrong(option, rule), do: Options.wrong(:build, option, rule)
end
