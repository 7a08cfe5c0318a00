defmodule HotPatch.Build.Settings do
  @moduledoc false
  # What two builds are configured with, and where that differs: a patch carries no sys.config, but can
  # set what another one sets. Both are builds of whoever asks: their terms are read as the VM would.
  #
  # Values may be secrets; nothing here puts one into a text but those that are to be taken along.

  alias HotPatch.Support.ConfigMerge
  alias HotPatch.Support.Folder
  alias HotPatch.Support.TermText

  @typedoc """
  `differences` as `--config` takes them, with the name of each; `notes` what is to be known of the rest.
  """
  @type t :: %{
          differences: [%{name: String.t(), setting: map()}],
          notes: [String.t()]
        }

  # What a release tells its own start.
  @of_the_start [{:elixir, :config_provider_init}, {:elixir, :config_provider_booted}]

  @doc "The differences between two builds; none where one of them has no settings, as no release."
  @spec between(Path.t() | nil, Path.t()) :: t()
  def between(nil, _to), do: %{differences: [], notes: []}

  def between(from, to) do
    case {read(from, "sys.config"), read(to, "sys.config")} do
      {nil, _} -> %{differences: [], notes: []}
      {_, nil} -> %{differences: [], notes: []}
      {same, same} -> %{differences: [], notes: script(from, to)}
      {one, other} -> differences(terms(one), terms(other), script(from, to))
    end
  end

  @doc "Whether they are two versions of a release."
  @spec versions?(Path.t() | nil, Path.t()) :: boolean()
  def versions?(nil, _to), do: false
  def versions?(from, to), do: version(from) != version(to)

  @doc "What an upgrade changes of what the release is started with: names, and no values."
  @spec told(Path.t(), Path.t()) :: [String.t()]
  def told(from, to) do
    for {file, text} <- [
          {"sys.config", &keys/2},
          {"runtime.exs", fn _, _ -> ": each node's plan shows what it sets there" end},
          {"vm.args", &at_the_next_start/2},
          {"env.sh", &at_the_next_start/2}
        ],
        {one, other} = {read(from, file), read(to, file)},
        one != other,
        rest = text.(one, other),
        do: "#{file} differs#{rest}"
  end

  defp at_the_next_start(_one, _other), do: ": what it says counts from a node's next start"

  defp keys(one, other) do
    with {:ok, from} <- terms(one || "[]."),
         {:ok, to} <- terms(other || "[]."),
         [_ | _] = names <- differing(from, to) do
      " in #{Enum.map_join(names, ", ", &text/1)}"
    else
      :error -> ", and one of both cannot be read as a list of applications"
      [] -> nil
    end
  end

  defp differing(from, to) do
    names = Enum.uniq(names(from) ++ names(to)) -- @of_the_start
    for name <- names, fetch(from, name) != fetch(to, name), do: name
  end

  # What a script sets is known where it runs.
  defp script(from, to) do
    if read(from, "runtime.exs") == read(to, "runtime.exs"),
      do: [],
      else: [
        "runtime.exs differs: what it sets is decided on the node where it runs, so name what is to " <>
          "change there with --config APP.KEY=TERM"
      ]
  end

  defp differences({:ok, from}, {:ok, to}, notes) do
    names = Enum.uniq(names(from) ++ names(to)) -- @of_the_start
    found = for name <- names, one = difference(name, fetch(from, name), fetch(to, name)), do: one
    {notes_of_found, differences} = Enum.split_with(found, &is_binary/1)
    %{differences: differences, notes: notes ++ notes_of_found}
  end

  defp differences(_one, _other, notes),
    do: %{
      differences: [],
      notes: ["a sys.config cannot be read as a list of applications" | notes]
    }

  defp names(config),
    do: for({application, keys} <- config, {key, _} <- keys, do: {application, key})

  defp fetch(config, {application, key}) do
    with {^application, keys} <- List.keyfind(config, application, 0, :error),
         {^key, value} <- List.keyfind(keys, key, 0, :error) do
      {:ok, value}
    end
  end

  defp difference(name, from, to) do
    case way(from, to) do
      :same -> nil
      {:ok, value} -> setting(name, value)
      :impossible -> "#{text(name)} has lost something: #{why_not()}"
    end
  end

  defp way({:ok, from}, {:ok, to}), do: ConfigMerge.difference(from, to)
  defp way(:error, to), do: to
  defp way({:ok, _from}, :error), do: :impossible

  defp why_not, do: "a patch sets and takes nothing away, so that needs an upgrade or a restart"

  defp setting({application, key} = name, value) do
    written = "~tw" |> :io_lib.format([value]) |> IO.chardata_to_string()

    if TermText.parse(written) == {:ok, value},
      do: %{
        name: text(name),
        setting: %{
          "application" => Atom.to_string(application),
          "key" => Atom.to_string(key),
          "value" => written
        }
      },
      else: "#{text(name)} differs, and its value cannot be written as a term: #{why_not()}"
  end

  defp text({application, key}), do: "#{application}: #{inspect(key)}"

  defp terms(bytes) do
    with {:ok, tokens, _line} <- :erl_scan.string(String.to_charlist(bytes)),
         {:ok, config} <- :erl_parse.parse_term(tokens),
         true <- is_list(config) do
      # Names of further files may stand among them.
      {:ok, for({application, keys} <- config, is_list(keys), do: {application, keys})}
    else
      _ -> :error
    end
  end

  # Of a folder, or a tar of it.
  defp read(build, name) do
    path = version(build) |> Path.join(name)
    file(build, Path.join("releases", path))
  end

  defp version(build) do
    with bytes when bytes != nil <- file(build, "releases/start_erl.data"),
         [_erts, version] <- String.split(bytes) do
      version
    else
      _ -> build |> versions() |> List.first("none")
    end
  end

  defp versions(build) do
    if File.dir?(build),
      do: for(["releases", version, _] <- settings(build), do: version),
      else: for(["releases", version, "sys.config"] <- tabled(build), do: version)
  end

  defp settings(build),
    do: build |> Folder.matching("releases/*/sys.config") |> Enum.map(&Path.split/1)

  defp tabled(tar) do
    case :erl_tar.table(String.to_charlist(tar), [:compressed]) do
      {:ok, names} -> for name <- names, do: name |> to_string() |> relative() |> Path.split()
      {:error, _reason} -> []
    end
  end

  defp relative("./" <> name), do: name
  defp relative(name), do: name

  defp file(build, path) do
    if File.dir?(build) do
      with {:error, _posix} <- File.read(Path.join(build, path)), do: nil, else: ({:ok, b} -> b)
    else
      files = [String.to_charlist(path), String.to_charlist("./" <> path)]

      case :erl_tar.extract(String.to_charlist(build), [:memory, :compressed, files: files]) do
        {:ok, [{_name, bytes} | _]} -> bytes
        _none -> nil
      end
    end
  end

  @doc "What is not in a patch though it differs, and what to do."
  @spec offered(t()) :: [String.t()]
  def offered(%{differences: []} = settings), do: settings.notes

  def offered(%{differences: differences} = settings) do
    [
      "sys.config differs in #{Enum.map_join(differences, ", ", & &1.name)}: --config-differences takes that " <>
        "along, with its values, which whoever has the patch can read"
      | settings.notes
    ]
  end
end
