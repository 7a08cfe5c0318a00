defmodule HotPatch.NodeAgent.Upgrade.Evaluation do
  @moduledoc false
  # The configuration of a release as its boot would make it: `sys.config`, then the configuration providers
  # that it names (`runtime.exs` is one), over what the applications' resource files say. It runs in a VM of its own,
  # which may end: providers are code of the release that comes, and may do whatever they like.
  #
  # Names and values are given as text and as External Term Format: whoever only looks makes no atom of them.

  @typedoc """
  Where a release lies, and where it will; `resources` are the files of the applications whose own environment counts.
  """
  @type side :: %{
          root: Path.t(),
          stands_for: Path.t(),
          version: String.t(),
          resources: [Path.t()]
        }

  @typedoc "By application, by key: the value in External Term Format."
  @type configuration :: %{String.t() => %{String.t() => binary()}}

  @doc """
  What the VM runs that was started for it: reads what is asked from the first file that its command
  line names, and leaves the answer in the second.
  """
  @spec main() :: no_return()
  def main do
    _ = spawn(&end_with_input/0)
    [request, answer] = for path <- :init.get_plain_arguments(), do: List.to_string(path)
    sides = request |> File.read!() |> :erlang.binary_to_term()
    # Without an application controller's word nothing of Elixir is started here.
    {:ok, _started} = :application.ensure_all_started(:elixir)
    File.write!(answer, :erlang.term_to_binary(Enum.map(sides, &tried/1)))
    :erlang.halt(0)
  end

  # Which is the node's.
  @spec end_with_input() :: no_return()
  defp end_with_input do
    port = Port.open({:fd, 0, 0}, [:in, :eof])

    receive do
      {^port, :eof} -> :erlang.halt(1)
    end
  end

  defp tried(side) do
    {:ok, of(side)}
  rescue
    error -> {:error, Exception.message(error)}
  catch
    kind, reason -> {:error, inspect({kind, reason}, limit: 20)}
  end

  @doc "The configuration of one side."
  @spec of(side()) :: configuration()
  def of(%{root: root, version: version, resources: resources} = side) do
    folder = Path.join([root, "releases", version])

    System.put_env(%{
      "RELEASE_ROOT" => root,
      "RELEASE_VSN" => version,
      "RELEASE_SYS_CONFIG" => Path.join(folder, "sys")
    })

    folder
    |> template()
    |> read()
    |> provided()
    |> over(Enum.map(resources, &own/1))
    |> there(root, side.stands_for)
    |> as_text()
  end

  # What is made of the folder of the release (`RELEASE_ROOT`) is to be of that in which it runs.
  defp there(term, same, same), do: term

  defp there(text, root, real) when is_binary(text),
    do: :binary.replace(text, root, real, [:global])

  defp there([_ | _] = list, root, real) do
    if :io_lib.char_list(list),
      do: list |> List.to_string() |> there(root, real) |> String.to_charlist(),
      else: parts(list, root, real)
  end

  defp there(tuple, root, real) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> parts(root, real) |> List.to_tuple()

  defp there(map, root, real) when is_map(map),
    do:
      Map.new(Map.to_list(map), fn {key, value} ->
        {there(key, root, real), there(value, root, real)}
      end)

  defp there(other, _root, _real), do: other

  defp parts([head | tail], root, real), do: [there(head, root, real) | parts(tail, root, real)]
  defp parts([], _root, _real), do: []
  defp parts(tail, root, real), do: there(tail, root, real)

  # The script of relx makes the one of the other at every start.
  defp template(folder) do
    file = Path.join(folder, "sys.config")
    if File.regular?(file <> ".src"), do: file <> ".src", else: file
  end

  # It may name other files, as the release handler reads them.
  defp read(file) do
    case consult(file) do
      {:ok, [entries]} -> Enum.reduce(entries, [], &entry(&1, &2, Path.dirname(file)))
      {:error, :enoent} -> []
      {:error, reason} -> raise "#{file} cannot be read: #{:file.format_error(reason)}"
    end
  end

  # Names of variables in it are replaced, as that script replaces them: `${NAME}`, `${NAME:-or this}`.
  defp consult(file) do
    if Path.extname(file) == ".src" or System.get_env("RELX_REPLACE_OS_VARS", "") != "" do
      with {:ok, text} <- File.read(file), do: text |> replaced() |> terms()
    else
      :file.consult(file)
    end
  end

  defp replaced(text) do
    Regex.replace(~r/\$\{([^}\n]*)\}/, text, fn _whole, inside ->
      [name | default] = String.split(inside, ":-", parts: 2)
      value = System.get_env(name, "")
      if value == "" and default != [], do: hd(default), else: value
    end)
  end

  defp terms(text) do
    with {:ok, tokens, _line} <- :erl_scan.string(String.to_charlist(text)),
         {:ok, term} <- :erl_parse.parse_term(tokens) do
      {:ok, [term]}
    else
      {:error, {line, module, what}} -> {:error, {line, module, what}}
      {:error, {_, module, what}, line} -> {:error, {line, module, what}}
    end
  end

  defp entry({application, environment}, config, _folder),
    do: merge(config, [{application, environment}])

  defp entry(other, config, folder) do
    path = Path.expand(List.to_string(other), folder)
    merge(config, read(if Path.extname(path) == "", do: path <> ".config", else: path))
  end

  defp provided(config) do
    case config[:elixir][:config_provider_init] do
      %{providers: providers} ->
        config = Keyword.update!(config, :elixir, &Keyword.delete(&1, :config_provider_init))

        Enum.reduce(providers, config, fn {provider, state}, so_far ->
          provider.load(so_far, state)
        end)

      nil ->
        config
    end
  end

  # What a resource file says is below all else, each key as a whole.
  defp over(config, own) do
    Enum.reduce(own, config, fn {application, environment}, config ->
      Keyword.update(config, application, environment, &Keyword.merge(environment, &1))
    end)
  end

  defp own(file) do
    {:ok, [{:application, name, properties}]} = :file.consult(file)
    {name, Keyword.get(properties, :env, [])}
  end

  defp merge(below, above) do
    Keyword.merge(below, above, fn _application, a, b -> Keyword.merge(a, b) end)
  end

  defp as_text(config) do
    for {application, environment} <- config, into: %{} do
      {Atom.to_string(application),
       for({key, value} <- environment, into: %{}, do: {Atom.to_string(key), etf(value)})}
    end
  end

  defp etf(value), do: :erlang.term_to_binary(value, [:deterministic, minor_version: 2])
end
