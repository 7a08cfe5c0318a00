defmodule HotPatch.Store.InstallMark do
  @moduledoc false
  # Tells one installation of a release from the next of the same version. A mark is put
  # into its folder with the first patch: a new folder, as a fresh container has, does not have
  # it; a release that was unpacked over the patched one still does.

  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Hex

  @name "hot_patch.install"

  @doc "The mark of the installation that these files are in, made if there is none."
  @spec mark([Store.Transaction.file()]) :: String.t() | nil
  def mark([]), do: nil

  def mark([file | _]) do
    path = path(file.target)

    with nil <- read(path) do
      mark = Hex.random()
      # Beside the release's own files, which others may read too.
      _ = Store.write(path, mark, 0o644)
      read(path)
    end
  end

  @doc "The mark, if there is one."
  @spec marked(Path.t()) :: String.t() | nil
  def marked(target), do: target |> path() |> read()

  @doc "Removes a mark that no patch needs any more, wherever the code path leads to it."
  @spec remove(String.t() | nil) :: :ok
  def remove(nil), do: :ok

  def remove(mark) do
    folders =
      for ebin <- :code.get_path(),
          do: ebin |> FileName.to_binary() |> Path.dirname() |> Path.dirname()

    for folder <- Enum.uniq([Release.root() | folders]),
        folder != nil,
        path = Path.join(folder, @name),
        read(path) == mark,
        do: _ = File.rm(path)

    :ok
  end

  # Without a release it is the folder that has the applications.
  defp path(target) do
    Path.join(
      Release.root() || target |> Path.dirname() |> Path.dirname() |> Path.dirname(),
      @name
    )
  end

  defp read(path) do
    case File.read(path) do
      {:ok, mark} when mark != "" -> mark
      _ -> nil
    end
  end
end
