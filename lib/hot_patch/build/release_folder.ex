defmodule HotPatch.Build.ReleaseFolder do
  @moduledoc false
  # A release as `mix release`, rebar3 or reltool lay it out: a folder with `lib` and `releases`. What it
  # is made of says its `.rel` file, which is OTP's own; whatever else lies in `lib` is not part of it.

  alias HotPatch.Error
  alias HotPatch.Support.Folder

  @typedoc "An application of a release, with the folder of its modules."
  @type application :: %{name: String.t(), version: String.t(), ebin: Path.t()}

  @type t :: %__MODULE__{
          name: String.t(),
          version: String.t(),
          erts: String.t(),
          root: Path.t(),
          folder: Path.t(),
          resource: tuple(),
          applications: [application()]
        }
  @enforce_keys [:name, :version, :erts, :root, :folder, :resource, :applications]
  defstruct @enforce_keys

  # Boot scripts that release tools add for themselves.
  @not_the_system ~w(start_clean.rel no_dot_erlang.rel)

  @doc "The release in a folder: the one that it boots. Or that of a `.rel` file, where a folder has several."
  @spec read(Path.t()) :: {:ok, t()} | {:error, Error.t()}
  def read(path) do
    with {:ok, file} <- resource_file(Path.expand(path)),
         {:ok, resource} <- resource(file),
         root = file |> Path.dirname() |> Path.dirname() |> Path.dirname(),
         {:ok, applications} <- applications(resource, root, file) do
      {:release, {name, version}, {:erts, erts}, _applications} = resource

      {:ok,
       %__MODULE__{
         name: to_string(name),
         version: to_string(version),
         erts: to_string(erts),
         root: root,
         folder: Path.dirname(file),
         resource: resource,
         applications: applications
       }}
    end
  end

  @doc "Name and version, as people say them."
  @spec text(t()) :: String.t()
  def text(release), do: "#{release.name} #{release.version}"

  @doc "The modules of a folder, by name, as files."
  @spec modules(Path.t()) :: %{String.t() => Path.t()}
  def modules(folder),
    do:
      for(
        file <- Folder.files(folder, ".beam"),
        into: %{},
        do: {Path.basename(file, ".beam"), file}
      )

  @doc "The consolidated protocols that it runs with."
  @spec protocols(t()) :: %{String.t() => Path.t()}
  def protocols(release), do: modules(Path.join(release.folder, "consolidated"))

  @doc "What an application's resource file says."
  @spec properties(application()) :: {:ok, keyword()} | {:error, Error.t()}
  def properties(%{name: name, ebin: ebin}) do
    file = Path.join(ebin, name <> ".app")

    case :file.consult(file) do
      {:ok, [{:application, _name, properties}]} -> {:ok, properties}
      _damaged -> error("#{file} is no application resource file: build the release again")
    end
  end

  defp resource_file(path) do
    cond do
      Path.extname(path) == ".rel" and File.regular?(path) ->
        {:ok, path}

      File.dir?(Path.join(path, "releases")) ->
        booting(path)

      File.regular?(path) ->
        error(
          "#{path} is a file: unpack it, and give the folder that has `lib` and `releases` in it"
        )

      true ->
        error("#{path} is no release: give the folder that has `lib` and `releases` in it")
    end
  end

  defp booting(root) do
    folders =
      case File.read(Path.join(root, "releases/start_erl.data")) do
        {:ok, text} ->
          for version <- text |> String.split() |> Enum.drop(1) |> Enum.take(1),
              do: Path.join([root, "releases", version])

        {:error, _posix} ->
          Folder.folders(Path.join(root, "releases"))
      end

    folders
    |> Enum.flat_map(&Folder.files(&1, ".rel"))
    |> Enum.reject(&(Path.basename(&1) in @not_the_system))
    |> case do
      [file] ->
        {:ok, file}

      [] ->
        error("#{root} is no release: there is no .rel file in releases/VERSION")

      several ->
        error("#{root} has several releases: name one of #{Enum.join(several, ", ")}")
    end
  end

  defp resource(file) do
    case :file.consult(file) do
      {:ok, [{:release, {_name, _version}, {:erts, _erts}, list} = resource]}
      when is_list(list) ->
        {:ok, resource}

      _damaged ->
        error("#{file} does not describe a release: build it again")
    end
  end

  defp applications({:release, _id, _erts, list}, root, file) do
    Enum.reduce_while(list, {:ok, []}, fn entry, {:ok, before} ->
      {name, version} = {Atom.to_string(elem(entry, 0)), to_string(elem(entry, 1))}

      case Enum.find(places(root, name, version), &version?(&1, name, version)) do
        nil -> {:halt, error(missing(name, version, root, file))}
        ebin -> {:cont, {:ok, before ++ [%{name: name, version: version, ebin: ebin}]}}
      end
    end)
  end

  # A release without ERTS has OTP's own applications from the host.
  defp places(root, name, version) do
    folder = "#{name}-#{version}/ebin"

    own =
      for lib <- [Path.join(root, "lib"), to_string(:code.lib_dir())], do: Path.join(lib, folder)

    case :code.where_is_file(to_charlist(name <> ".app")) do
      :non_existing -> own
      file -> own ++ [Path.dirname(to_string(file))]
    end
  end

  defp version?(ebin, name, version) do
    case :file.consult(Path.join(ebin, name <> ".app")) do
      {:ok, [{:application, _name, properties}]} -> to_string(properties[:vsn]) == version
      _none -> false
    end
  end

  defp missing(name, version, root, file) do
    "#{name} #{version}, which #{file} names, is neither in #{root}/lib nor in this Erlang/OTP: " <>
      "give the whole release, or run this with the Erlang/OTP that the release is for"
  end

  defp error(text), do: {:error, Error.new(:build, "relup: " <> text)}
end
