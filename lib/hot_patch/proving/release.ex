defmodule HotPatch.Proving.Release do
  @moduledoc false
  # A release as `mix release` makes it, unpacked: a folder with `bin/NAME`, which starts it with `start`.

  alias HotPatch.Error
  alias HotPatch.Support.Folder

  @type t :: %__MODULE__{folder: Path.t(), script: Path.t()}
  @enforce_keys [:folder, :script]
  defstruct @enforce_keys

  @doc "Copies or unpacks a release into a folder."
  @spec unpack(Path.t(), Path.t()) :: {:ok, t()} | {:error, Error.t()}
  def unpack(from, folder) do
    with :ok <- File.mkdir_p(folder),
         :ok <- copy(from, folder) do
      find(from, folder)
    else
      {:error, posix} when is_atom(posix) -> no_release(from, "#{:file.format_error(posix)}")
      {:error, text} -> no_release(from, text)
    end
  end

  defp copy(from, folder) do
    cond do
      File.dir?(from) ->
        with {:error, posix, path} <- File.cp_r(from, folder),
             do: {:error, "#{path}: #{:file.format_error(posix)}"},
             else: (_copied -> :ok)

      File.regular?(from) ->
        case :erl_tar.extract(String.to_charlist(from), [
               :compressed,
               cwd: String.to_charlist(folder)
             ]) do
          :ok ->
            :ok

          {:error, reason} ->
            {:error, "it is no tar of a release (#{inspect(reason, limit: 10)})"}
        end

      true ->
        {:error, :enoent}
    end
  end

  # The script has the name of the release; what else is in bin is no program, or has another ending.
  defp find(from, folder) do
    folder = if File.dir?(Path.join(folder, "releases")), do: folder, else: inner(folder)
    scripts = for path <- Folder.files(Path.join(folder, "bin"), ""), script?(path), do: path

    case scripts do
      [script] ->
        {:ok, %__MODULE__{folder: folder, script: Path.relative_to(script, folder)}}

      [] ->
        no_release(from, "it has no bin/NAME that starts it: make it with mix release")

      several ->
        no_release(
          from,
          "which of #{Enum.map_join(several, ", ", &Path.basename/1)} in bin starts it?"
        )
    end
  end

  # Of a tar that has the release in a folder of its own.
  defp inner(folder) do
    case Folder.folders(folder) do
      [one] -> one
      _several -> folder
    end
  end

  defp script?(path), do: Path.extname(path) == "" and File.regular?(path)

  defp no_release(from, why),
    do: {:error, Error.new(:build, "#{from} is no release that can be started: #{why}")}
end
