defmodule HotPatch.NodeAgent.Upgrade.RuntimeConfig do
  @moduledoc false
  # Where a release of `mix release` reboots after its configuration (`reboot_system_after_config: true`), its script
  # starts the VM with a copy of `sys.config` in `RELEASE_TMP`, into which the first boot writes what the providers give.
  # A restart inside the VM reads that copy. One into another release needs a copy of that one's own file, as nothing
  # else would have its configuration evaluated.

  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  require HotPatch.Support.Log, as: Log

  # By which the script knows such a file.
  @mark "RUNTIME_CONFIG=true"
  @ending ".config"

  @doc """
  What a restart into this version is to read, without its ending, given what the VM was started with: a copy of its
  `sys.config`, or that itself where it needs none any more; nil where the VM was not started with a copy and needs none.
  What is of that version already stays as it is.
  """
  @spec of({:ok, [[charlist()]]} | :error, Path.t(), String.t()) :: charlist() | nil
  def of(given, root, version) do
    path = Path.join([root, "releases", version, "sys"])

    with name when name != nil <- FileName.from_environment("RELEASE_NAME"),
         {:ok, text} <- File.read(path <> @ending) do
      folder = FileName.from_environment("RELEASE_TMP") || Path.join(root, "tmp")
      begins = "#{name}-#{version}-"

      cond do
        not String.contains?(text, @mark) ->
          if copy(given, folder, name <> "-"), do: FileName.to_charlist(path)

        own = copy(given, folder, begins) ->
          own

        true ->
          written(Path.join(folder, begins <> stamp()), text)
      end
    else
      _not_of_mix -> nil
    end
  end

  # What it was started with, if that is a copy of a name that begins so.
  defp copy({:ok, lists}, folder, begins) do
    with [given | _] <- List.last(lists),
         path = FileName.to_binary(given),
         true <- Folder.resolve(Path.dirname(path)) == Folder.resolve(folder),
         true <- path |> Path.basename() |> String.starts_with?(begins),
         true <- File.regular?(path <> @ending),
         do: given,
         else: (_another -> nil)
  end

  defp copy(:error, _folder, _begins), do: nil

  # As the script names it: no two starts have the same.
  defp stamp do
    at = Calendar.strftime(DateTime.utc_now(), "%Y%m%d%H%M%S")
    "#{at}-#{System.unique_integer([:positive])}.runtime"
  end

  # What the first boot writes into it may be secret.
  defp written(path, text) do
    file = path <> @ending

    with :ok <- File.mkdir_p(Path.dirname(file)),
         :ok <- File.write(file, "", [:exclusive]),
         :ok <- File.chmod(file, 0o600),
         :ok <- File.write(file, text) do
      FileName.to_charlist(path)
    else
      {:error, posix} ->
        Log.error(
          "HotPatch: cannot write #{file}: #{:file.format_error(posix)}; a restart inside the VM would have the " <>
            "configuration of the release before, start the VM anew instead"
        )

        nil
    end
  end
end
