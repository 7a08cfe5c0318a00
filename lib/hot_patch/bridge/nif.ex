defmodule HotPatch.Bridge.Nif do
  @moduledoc false
  # The reader inside the VM: no way to go, and no wall between.

  @behaviour HotPatch.Bridge

  alias HotPatch.Bridge
  alias HotPatch.Native

  @impl Bridge
  def status do
    case Native.status() do
      :ok -> :ok
      {:error, cause} -> {:error, "HotPatch's native library did not load (#{describe(cause)})"}
    end
  end

  @impl Bridge
  def request(name, blobs, options, about) do
    case load(blobs, []) do
      {:ok, blobs} -> {:ok, Native.request(name, blobs, options)}
      {:error, posix} -> {:ok, :erlang.term_to_binary({:failed, :file, words(posix)})}
    end
  rescue
    # What the library raises: there was no memory for the reply, or a bug.
    error in ErlangError ->
      {:error, Bridge.failed(about, Exception.message(error), %{cause: error.original})}
  end

  defp load([], loaded), do: {:ok, Enum.reverse(loaded)}

  defp load([{:path, path, most} | rest], loaded) do
    case read(path, most) do
      {:ok, bytes} -> load(rest, [bytes | loaded])
      {:error, posix} -> {:error, posix}
    end
  end

  defp load([bytes | rest], loaded), do: load(rest, [bytes | loaded])

  # Anything but a plain file could keep the reader waiting for ever.
  defp read(path, most) do
    with {:ok, %File.Stat{type: :regular}} <- File.stat(path),
         {:ok, result} <- File.open(path, [:read, :raw, :binary], &:file.read(&1, most)) do
      if result == :eof, do: {:ok, ""}, else: result
    else
      {:ok, %File.Stat{type: :directory}} -> {:error, :eisdir}
      {:ok, %File.Stat{}} -> {:error, :einval}
      {:error, posix} -> {:error, posix}
    end
  end

  defp words(posix), do: posix |> :file.format_error() |> to_string()

  defp describe({_reason, text}), do: to_string(text)
  defp describe(other), do: inspect(other)
end
