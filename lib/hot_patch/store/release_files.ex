defmodule HotPatch.Store.ReleaseFiles do
  @moduledoc false
  # The two files by which a system knows its releases, in the folder `releases`:
  #
  #   * `start_erl.data` names the one that the next start boots: "ERTS VERSION". It changes by one rename, so that a
  #     start finds the one or the other.
  #   * `RELEASES` is what OTP's release handler knows, one `{release, Name, Version, Erts, Libs, Status}` each. Whether
  #     that runs or not it is kept, because `mix release` writes none and nobody else would know what is old.

  alias HotPatch.Store
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  @typedoc "As OTP has it: texts are lists of characters."
  @type entry ::
          {:release, name :: charlist(), vsn :: charlist(), erts :: charlist(),
           libs :: [{atom(), charlist(), charlist()}], status :: atom()}

  @readable 0o644

  @doc "ERTS and version that the next start boots; nil where no such file says."
  @spec boots(Path.t()) :: {String.t(), String.t()} | nil
  def boots(root) do
    with {:ok, text} <- File.read(start_data(root)),
         [erts, version | _] <- String.split(text) do
      {erts, version}
    else
      _none_or_torn -> nil
    end
  end

  @doc "Has the next start boot another."
  @spec boot(Path.t(), String.t(), String.t()) :: :ok | {:error, {Path.t(), File.posix()}}
  def boot(root, erts, version) do
    path = start_data(root)

    mode =
      case File.stat(path) do
        {:ok, %File.Stat{mode: mode}} -> Bitwise.band(mode, 0o777)
        {:error, _posix} -> @readable
      end

    with {:error, posix} <- Store.write(path, "#{erts} #{version}", mode),
         do: {:error, {path, posix}}
  end

  @doc "The file that says what the next start boots."
  @spec start_data(Path.t()) :: Path.t()
  def start_data(root), do: Path.join([root, "releases", "start_erl.data"])

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
    path = releases(root)

    with {:error, posix} <- Store.write(path, :io_lib.format("~tp.~n", [entries]), @readable),
         do: {:error, {path, posix}}
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
        lib = FileName.to_charlist(Path.join(root, "lib"))
        libs = for one <- applications, do: {elem(one, 0), elem(one, 1), lib}
        {:release, called, vsn, erts, libs, status}
      else
        _of_another -> nil
      end
    end)
  end
end
