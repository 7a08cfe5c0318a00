defmodule HotPatch.Host.BootFile do
  @moduledoc false
  # Files that a system boots by. None of them is read while it runs, so that a patch of one could
  # not be tried, and would show only when the node does not come up again. Like system libraries
  # they change with an upgrade.
  #
  #   * boot scripts (`*.boot`, `*.script`) and what they are made from (`*.rel`): a boot script
  #     that is damaged, or that names what is not there, ends the VM at once
  #   * `vm.args`, `env.sh`, `start_erl.data`, `RELEASES`, `COOKIE`, and the programs in `bin` and
  #     beside the release's version: they say which VM starts, how, and as whom
  #   * `erts-*`: the VM itself
  #   * `sys.config` and `runtime.exs`: one that cannot be read ends the boot as well, and what it
  #     sets would count only from then on; a patch sets keys with `config:`, which counts at
  #     once, is checked, and goes back with it
  #   * everything else that lies directly beside these: what configuration providers read
  #   * an application's resource file (`ebin/NAME.app`): an application whose file cannot be read
  #     does not start, nor what depends on it
  #
  # Consolidated protocols lie beside them, but are modules like others.

  alias HotPatch.Support.FileName

  @names ~w(vm.args remote.vm.args vm.args.src env.sh env.bat sys.config sys.config.src runtime.exs
            start_erl.data releases cookie)
  @extensions ~w(.boot .script .rel)

  @doc """
  What a path of an archive is, if it is known from the path alone that nodes boot by it; nil otherwise.
  """
  @spec kind(Path.t()) :: String.t() | nil
  def kind(path) do
    case Path.split(path) do
      ["bin" | [_ | _]] -> "a program of the release"
      ["erts-" <> _ | [_ | _]] -> "part of the VM"
      parts -> parts |> Enum.drop_while(&(&1 != "releases")) |> below_releases()
    end
  end

  defp below_releases(["releases", _file]), do: "what the release boots by"
  defp below_releases(["releases", _vsn | below]), do: in_version(Path.join(below))
  defp below_releases(_elsewhere), do: nil

  @doc "The same for a path below the folder of a release's version."
  @spec in_version(Path.t()) :: String.t() | nil
  def in_version(below) do
    name = below |> Path.basename() |> String.downcase()

    if match?([_file], Path.split(below)) or name in @names or Path.extname(name) in @extensions,
      do: "what the release boots by"
  end

  @doc "The same for a path below an application's folder."
  @spec in_application(String.t(), Path.t()) :: String.t() | nil
  def in_application(name, below) do
    if String.downcase(below) == String.downcase("ebin/#{name}.app"),
      do: "the application's resource file, by which it starts"
  end

  @doc "Why such a file is refused."
  @spec reason(String.t(), String.t()) :: String.t()
  def reason(what, kind) do
    "#{what} is #{kind}: boot files are never patched, they change with an upgrade; leave it out" <>
      if(Path.basename(what) in ["sys.config", "runtime.exs"],
        do: ", and set what it sets with config: or the manifest",
        else: ""
      )
  end

  @doc """
  The files by which this VM was booted, wherever they are: its boot script, the configuration
  that it was given with what that includes, and every other file that an argument of the VM names (as
  `-ssl_dist_optfile`, `-kernel inetrc`, `-args_file` do).
  """
  @spec of_this_vm() :: [Path.t()]
  def of_this_vm do
    configs = given(:config, [".config"]) ++ from_environment("RELEASE_SYS_CONFIG", ".config")

    Enum.uniq(
      given(:boot, [".boot", ".script"]) ++
        configs ++
        Enum.flat_map(configs, &included/1) ++
        from_environment("RELEASE_VM_ARGS", "") ++
        from_environment("ERL_INETRC", "") ++
        Enum.flat_map(arguments(), &named/1)
    )
  end

  # A configuration names others (application.erl, "Configuration File"), from here or from its own folder.
  defp included(path) do
    case :file.consult(path) do
      {:ok, [terms]} when is_list(terms) ->
        for name <- terms,
            not is_tuple(name),
            name = FileName.to_binary(name),
            place <- Enum.uniq([name, Path.absname(name, Path.dirname(path))]),
            file <- paths(place, [".config"]),
            do: file

      _no_configuration ->
        []
    end
  end

  # What is in the environment or in a file of arguments is an argument like others by now, but for the name of
  # that file.
  defp arguments do
    given = for {_flag, values} <- :init.get_arguments(), value <- values, do: value

    variables =
      for name <- [~c"ERL_FLAGS", ~c"ERL_AFLAGS", ~c"ERL_ZFLAGS"],
          flags = :os.getenv(name),
          flags != false,
          do: :string.lexemes(flags, ~c" ")

    given ++ Enum.concat(variables)
  end

  # As it stands there, or as an Erlang term; folders are no such files.
  defp named(argument) do
    path = argument |> FileName.to_binary() |> String.trim("\"")
    if path =~ "/" and File.regular?(path), do: [absolute(path)], else: []
  end

  defp given(flag, endings) do
    case :init.get_argument(flag) do
      {:ok, values} -> for [name | _] <- values, path <- paths(name, endings), do: path
      :error -> []
    end
  end

  defp paths(name, endings) do
    path = FileName.to_binary(name)
    for ending <- ["" | endings], do: absolute(path <> ending)
  end

  defp from_environment(variable, ending) do
    case FileName.from_environment(variable) do
      nil -> []
      path -> [absolute(path), absolute(path <> ending)]
    end
  end

  defp absolute(path) do
    Path.expand(path)
  rescue
    # There is no current folder.
    File.Error -> path
  end
end
