defmodule HotPatch.Store.ReleaseFiles do
  @moduledoc false
  # The two files by which a system knows its releases, in the folder `releases`:
  #
  #   * `start_erl.data` names the one that the next start boots: "ERTS VERSION". It changes by one rename, so that a
  #     start finds the one or the other. Where relx has made the release that is the rename of its script, behind the
  #     other (HotPatch.Host.NextBoot).
  #   * `RELEASES` is what OTP's release handler knows, one `{release, Name, Version, Erts, Libs, Status}` each. Whether
  #     that runs or not it is kept, because `mix release` writes none and nobody else would know what is old.

  alias HotPatch.Host.NextBoot
  alias HotPatch.Store
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  @typedoc "As OTP has it: texts are lists of characters."
  @type entry ::
          {:release, name :: charlist(), vsn :: charlist(), erts :: charlist(),
           libs :: [{atom(), charlist(), charlist()}], status :: atom()}

  @readable 0o644

  @doc "Whether `start_erl.data` is there, and names no release that is: no start finds its way by it."
  @spec torn?(Path.t()) :: boolean()
  def torn?(root), do: File.exists?(NextBoot.start_data(root)) and NextBoot.named(root) == nil

  @doc "The version that a start is meant to boot: where that file is torn, what `RELEASES` has as permanent."
  @spec permanent(Path.t()) :: String.t() | nil
  def permanent(root) do
    NextBoot.version(root) || if torn?(root), do: listed_permanent(root)
  end

  defp listed_permanent(root) do
    Enum.find_value(list(root), fn
      {:release, _name, version, _erts, _libs, :permanent} ->
        version = to_string(version)
        if NextBoot.there?(root, version), do: version

      _other ->
        nil
    end)
  end

  @doc "Has the next start boot another: the last rename counts."
  @spec boot(Path.t(), String.t(), String.t()) :: :ok | {:error, {Path.t(), File.posix()}}
  def boot(root, erts, version) do
    path = NextBoot.start_data(root)

    with :ok <- write(path, "#{erts} #{version}", mode(path)) do
      each(NextBoot.scripts(root), fn {script, own} -> copy(script, own[version], version) end)
    end
  end

  # relx keeps that of each version beside it.
  defp copy(script, nil, version), do: {:error, {"#{script}-#{version}", :enoent}}

  defp copy(script, from, version) do
    mode = mode(script)

    case File.read(from) do
      {:ok, bytes} ->
        each(Enum.uniq(["#{script}-#{version}", script]), &write(&1, bytes, mode))

      {:error, posix} ->
        {:error, {from, posix}}
    end
  end

  defp each(items, fun) do
    Enum.reduce_while(items, :ok, fn item, :ok ->
      with :ok <- fun.(item), do: {:cont, :ok}, else: (error -> {:halt, error})
    end)
  end

  defp write(path, bytes, mode) do
    with {:error, posix} <- Store.write(path, bytes, mode), do: {:error, {path, posix}}
  end

  defp mode(path) do
    case File.stat(path) do
      {:ok, %File.Stat{mode: mode}} -> Bitwise.band(mode, 0o777)
      {:error, _posix} -> @readable
    end
  end

  @doc "What `RELEASES` says; none where there is no such file, or none that can be read."
  @spec list(Path.t()) :: [entry()]
  def list(root) do
    case :file.consult(releases(root)) do
      {:ok, [list]} when is_list(list) ->
        Enum.filter(list, &match?({:release, _, _, _, _, _}, &1))

      _none_or_damaged ->
        []
    end
  end

  @doc "Writes it, as the release handler does."
  @spec put(Path.t(), [entry()]) :: :ok | {:error, {Path.t(), File.posix()}}
  def put(root, entries) do
    write(releases(root), :io_lib.format("~tp.~n", [entries]), @readable)
  end

  defp releases(root), do: Path.join([root, "releases", "RELEASES"])

  @doc """
  An entry for a release that lies below the root, made of its `.rel` file; nil where there is none.
  """
  @spec entry(Path.t(), {String.t(), String.t()}, atom()) :: entry() | nil
  def entry(root, {name, version}, status) do
    Enum.find_value(Folder.files(Path.join([root, "releases", version]), ".rel"), fn file ->
      with {:ok, [{:release, {called, vsn}, {:erts, erts}, applications}]} <- :file.consult(file),
           true <- {to_string(called), to_string(vsn)} == {name, version} do
        own = file |> Path.dirname() |> Path.join("lib")
        libs = for one <- applications, do: {elem(one, 0), elem(one, 1), lib(one, own, root)}
        {:release, called, vsn, erts, libs, status}
      else
        _of_another -> nil
      end
    end)
  end

  # An upgrade may bring an application beside another build of the same version.
  defp lib(application, own, root) do
    folder = "#{elem(application, 0)}-#{elem(application, 1)}"
    lib = if File.dir?(Path.join(own, folder)), do: own, else: Path.join(root, "lib")
    FileName.to_charlist(lib)
  end
end
