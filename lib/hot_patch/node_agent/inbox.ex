defmodule HotPatch.NodeAgent.Inbox do
  @moduledoc false
  # What coordinators have sent to this node, by digest, in memory: a patch that is checked,
  # planned and then applied comes once, and of the next one only what is new. Each piece is
  # measured by its digest when it is whole, so that what is loaded is what was accepted.

  use GenServer

  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Store
  alias HotPatch.Store.Blobs

  @typedoc "A part of a piece: where it begins, how large the whole is."
  @type part :: {Blobs.digest(), offset :: non_neg_integer(), total :: pos_integer(), binary()}

  # Bytes kept at most, more than the largest patch has with the copies of its modules that come
  # with it; and for how many milliseconds after the last part has come.
  @most 256_000_000
  @keep_for 900_000

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Which of these pieces this node does not have."
  @spec lacking([Blobs.digest()]) :: [Blobs.digest()]
  def lacking(digests), do: Enum.filter(digests, &(fetch(&1) == :unknown))

  @doc "Takes parts in, in the order of each piece."
  @spec put([part()]) :: :ok | {:error, String.t()}
  def put(parts), do: GenServer.call(__MODULE__, {:put, parts}, 30_000)

  @doc "A payload as it was before it was sent in pieces."
  @spec whole(Payload.t()) :: {:ok, Payload.t()} | {:error, String.t()}
  def whole(payload) do
    case payload |> Payload.digests() |> Enum.uniq() |> fetch_all() do
      {:ok, pieces} -> {:ok, Payload.fill(payload, pieces)}
      :unknown -> {:error, "what was sent of #{payload.patch} is no longer kept here: try again"}
    end
  end

  defp fetch_all(digests) do
    Enum.reduce_while(digests, {:ok, %{}}, fn digest, {:ok, pieces} ->
      case fetch(digest) do
        {:ok, bytes} -> {:cont, {:ok, Map.put(pieces, digest, bytes)}}
        :unknown -> {:halt, :unknown}
      end
    end)
  end

  defp fetch(digest) do
    with [] <- lookup(digest),
         no_blob when is_atom(no_blob) <- Blobs.fetch(Store.blobs(), digest) do
      :unknown
    else
      [{_digest, bytes, _at}] -> {:ok, bytes}
      {:ok, bytes} -> {:ok, bytes}
    end
  end

  # The table goes and comes again with the server.
  defp lookup(digest) do
    :ets.lookup(__MODULE__, digest)
  rescue
    ArgumentError -> []
  end

  @impl GenServer
  def init([]) do
    _ = :ets.new(__MODULE__, [:named_table, :protected, read_concurrency: true])
    {:ok, %{open: %{}}}
  end

  @impl GenServer
  def handle_call({:put, parts}, _from, state) do
    with true <- parts?(parts),
         {:ok, state} <- Enum.reduce_while(parts, {:ok, state}, &add/2) do
      {:reply, :ok, make_room(state), @keep_for}
    else
      {:error, text, state} -> {:reply, {:error, text}, state, @keep_for}
      false -> {:reply, {:error, "what came is no list of parts"}, state, @keep_for}
    end
  end

  def handle_call(_other, _from, state),
    do: {:reply, {:error, "not understood"}, state, @keep_for}

  @impl GenServer
  def handle_cast(_other, state), do: {:noreply, state, @keep_for}

  @impl GenServer
  def handle_info(:timeout, _state) do
    :ets.delete_all_objects(__MODULE__)
    {:noreply, %{open: %{}}, :hibernate}
  end

  def handle_info(_other, state), do: {:noreply, state, @keep_for}

  # What another node sends is looked at before it is used.
  defp parts?(parts),
    do: is_list(parts) and not List.improper?(parts) and Enum.all?(parts, &part?/1)

  defp part?({<<_::256>>, offset, total, bytes}) when is_integer(offset) and is_integer(total),
    do: is_binary(bytes) and offset >= 0 and total in 0..@most

  defp part?(_other), do: false

  # Several may send the same piece at the same time, or one again: what is here is left as it is.
  defp add({digest, offset, total, bytes}, {:ok, state}) do
    {parts, size} = Map.get(state.open, digest, {[], 0})

    cond do
      :ets.member(__MODULE__, digest) or (size > 0 and offset + byte_size(bytes) <= size) ->
        {:cont, {:ok, state}}

      offset == size ->
        piece({digest, total}, [parts, bytes], size + byte_size(bytes), state)

      true ->
        wrong(digest, "a part came that does not follow the one before: send it again", state)
    end
  end

  defp piece({digest, total}, parts, size, state) when size < total,
    do: {:cont, {:ok, put_in(state.open[digest], {parts, size})}}

  defp piece({digest, _total}, parts, _size, state) do
    bytes = IO.iodata_to_binary(parts)

    if :crypto.hash(:sha256, bytes) == digest do
      :ets.insert(__MODULE__, {digest, bytes, System.monotonic_time()})
      {:cont, {:ok, %{state | open: Map.delete(state.open, digest)}}}
    else
      wrong(digest, "what came does not have the digest it was announced with", state)
    end
  end

  # Whoever sends it again begins at the start.
  defp wrong(digest, text, state),
    do: {:halt, {:error, text, %{state | open: Map.delete(state.open, digest)}}}

  # The oldest go.
  defp make_room(state) do
    pieces = :ets.select(__MODULE__, [{{:"$1", :"$2", :"$3"}, [], [{{:"$3", :"$1", :"$2"}}]}])

    pieces
    |> Enum.sort(:desc)
    |> Enum.reduce(0, fn {_at, digest, bytes}, kept ->
      if kept + byte_size(bytes) > @most, do: :ets.delete(__MODULE__, digest)
      kept + byte_size(bytes)
    end)

    state
  end
end
