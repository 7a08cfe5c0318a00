defmodule HotPatch.Bridge.OSProcess.Program do
  @moduledoc false
  # The program itself: how it is started, what is said to it, and what it says. The protocol is
  # described in native/port/src/port/protocol.rs.

  alias HotPatch.Bridge
  alias HotPatch.Error
  alias HotPatch.Host.Config
  alias HotPatch.Support.FileName

  @protocol 1

  # What comes beside the archives: code, stacks of threads, tables.
  @base 128 * 1024 * 1024
  # Beside its blobs a request has options; those of a whole build are long.
  @slack 16 * 1024 * 1024

  @doc "Where the program is."
  @spec executable() :: Path.t()
  def executable do
    case :code.priv_dir(:hot_patch) do
      {:error, :bad_name} -> "priv/native/hot_patch"
      dir -> Path.join(FileName.to_binary(dir), "native/hot_patch")
    end
  end

  @doc "Starts the program; `memory` bytes instead of what the limits on archives add up to."
  @spec open(pos_integer(), pos_integer() | nil) :: {:ok, port()} | {:error, Error.t()}
  def open(workers, memory) do
    cap = cap(memory || memory(Config.current(), workers))
    arguments = ["port", "--workers=#{workers}", "--max-frame=#{most_frame()}"] ++ cap

    # Each of glibc's further arenas would take 64 MB of the address space that is capped, and for a
    # moment twice that: a thread that starts just then would find none for its stack.
    options = [args: arguments, env: [{~c"MALLOC_ARENA_MAX", ~c"1"}]]
    {:ok, start([:binary, :exit_status, :hide, {:packet, 4} | options])}
  rescue
    error in [ErlangError, SystemLimitError] ->
      why = Exception.message(error)
      {:error, Bridge.missing("#{executable()} cannot be started (#{why})")}
  end

  defp start(options), do: Port.open({:spawn_executable, executable()}, options)

  defp cap(:infinity), do: []
  defp cap(memory), do: ["--memory=#{memory}"]

  # Of each archive: itself twice (the frame and its blob), what it unpacks to, its modules when
  # they are unpacked and their tables, and the reply with all of it.
  defp memory(%{port_memory: nil} = limits, workers) do
    each = 2 * limits.max_archive_bytes + 4 * limits.max_unpacked_bytes
    @base + workers * each
  end

  defp memory(%{port_memory: given}, _workers), do: given

  # The largest request is to copy all modules of an archive.
  defp most_frame do
    limits = Config.current()
    min(limits.max_archive_bytes + limits.max_unpacked_bytes + @slack, 0xFFFF_FFFF)
  end

  @doc """
  Sends a message, unless the program is still taking in the last one, or would give up because
  the message is too large.
  """
  @spec send(port(), tuple()) :: :ok | :busy | :too_large | :closed
  def send(port, message) do
    # Binaries are sent as they are, not copied.
    frame = :erlang.term_to_iovec(message)

    cond do
      :erlang.iolist_size(frame) > most_frame() -> :too_large
      Port.command(port, frame, [:nosuspend]) -> :ok
      true -> :busy
    end
  rescue
    ArgumentError -> :closed
  end

  @doc "What a frame says. The bytes of a reply are not copied."
  @spec said(binary()) ::
          {:reply, non_neg_integer(), binary()}
          | :hello
          | {:broken, String.t()}
          | {:stranger, String.t()}
  def said(
        <<131, 104, 3, 119, 5, "reply", 110, 4, 0, id::32-little, 109, size::32,
          reply::binary-size(size)>>
      ),
      do: {:reply, id, reply}

  def said(frame) do
    case :erlang.binary_to_term(frame, [:safe]) do
      {:hello, @protocol, _version} ->
        :hello

      {:hello, _, version} when is_binary(version) ->
        {:stranger, stranger("is of version #{version}")}

      {:broken, text} when is_binary(text) ->
        {:broken, "the reader gave up: " <> text}

      _ ->
        {:stranger, stranger("says what it should not")}
    end
  rescue
    ArgumentError -> {:stranger, stranger("says what it should not")}
  end

  defp stranger(how), do: "#{executable()} #{how}: compile HotPatch again"

  @doc "How the program ended, in words."
  @spec died(non_neg_integer()) :: String.t()
  def died(134), do: "the reader ended itself (signal 6), as it does when there is no memory"
  def died(status) when status > 128, do: "the reader was ended by signal #{status - 128}"
  def died(status), do: "the reader ended with exit status #{status}"

  @doc "Closes its input: it ends by itself."
  @spec close(port() | nil) :: :ok
  def close(nil), do: :ok

  def close(port) do
    true = Port.close(port)
    :ok
  rescue
    # It has ended already.
    ArgumentError -> :ok
  end
end
