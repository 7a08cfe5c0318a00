defmodule HotPatch.Cluster.Transfer do
  @moduledoc false
  # Brings a payload to the nodes: of its pieces only those that a node lacks, in parts that a
  # distribution channel carries in a moment, each after the one before has arrived, and to a
  # few nodes at a time. So heartbeats and calls of the host system are not held up behind it,
  # and the sender never has more than a few parts on the way.

  alias HotPatch.Cluster
  alias HotPatch.NodeAgent.Payload

  # Bytes in one message; how many nodes are sent to at a time.
  @part 262_144
  @fan_out 4

  # Milliseconds that a node may take for one message; and between two times that it is told how
  # far a node is: each time every node hears of it, which for many nodes is more than the parts.
  @within 30_000
  @tell_every 200

  @typedoc "Called with a node, how many bytes it has got, and how many it is to get."
  @type tell :: (node(), non_neg_integer(), non_neg_integer() -> term())

  @doc """
  Sends what is lacking. Gives the payload as it is to be named to the agents, and why it did
  not come to some nodes. Where `stop` says so, nothing more is sent.
  """
  @spec run(Payload.t(), [node()], (() -> boolean()) | nil, tell()) ::
          {Payload.t(), %{node() => String.t()}}
  def run(payload, nodes, stop \\ nil, tell \\ fn _node, _done, _total -> :ok end) do
    {stripped, pieces} = Payload.strip(payload)

    {stripped,
     if(pieces == %{}, do: %{}, else: send_all(pieces, nodes, %{tell: tell, stop: stop}))}
  end

  defp send_all(pieces, nodes, how) do
    {lacking, failed} =
      nodes
      |> Cluster.call_until(:lacking, [Map.keys(pieces)], %{stop: how.stop, timeout: @within})
      |> Enum.split_with(&match?({_node, {:ok, _digests}}, &1))

    sent =
      lacking
      |> Task.async_stream(
        fn {node, {:ok, digests}} -> {node, send_to(node, Map.take(pieces, digests), how)} end,
        max_concurrency: @fan_out,
        ordered: false,
        timeout: :infinity
      )
      |> Enum.map(fn {:ok, result} -> result end)

    for {node, {:error, text}} <- failed ++ sent, into: %{}, do: {node, text}
  end

  defp send_to(_node, pieces, _how) when pieces == %{}, do: :ok

  defp send_to(node, pieces, %{tell: tell, stop: stop}) do
    total = pieces |> Map.values() |> Enum.map(&byte_size/1) |> Enum.sum()

    pieces
    |> parts()
    |> Enum.reduce_while({:ok, 0, now()}, fn message, {:ok, done, told} ->
      case Cluster.call_until([node], :take_parts, [message], %{stop: stop, timeout: @within}) do
        [{_node, {:ok, :ok}}] ->
          done = done + size(message)
          {:cont, {:ok, done, told(told, done == total, fn -> tell.(node, done, total) end)}}

        [{_node, {:ok, {:error, text}}}] ->
          {:halt, {:error, text}}

        [{_node, {:error, text}}] ->
          {:halt, {:error, text}}
      end
    end)
    |> then(fn result -> with {:ok, _done, _told} <- result, do: :ok end)
  end

  defp told(before, last?, tell) do
    now = now()

    if last? or now - before >= @tell_every do
      tell.()
      now
    else
      before
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  # Several small pieces go in one message, a large one in several.
  defp parts(pieces) do
    pieces
    |> Stream.flat_map(fn {digest, bytes} -> split(digest, bytes, 0) end)
    |> Stream.chunk_while([], &pack/2, &{:cont, Enum.reverse(&1), []})
  end

  defp split(digest, bytes, offset) when byte_size(bytes) - offset <= @part,
    do: [
      {digest, offset, byte_size(bytes), binary_part(bytes, offset, byte_size(bytes) - offset)}
    ]

  defp split(digest, bytes, offset) do
    part = {digest, offset, byte_size(bytes), binary_part(bytes, offset, @part)}
    [part | split(digest, bytes, offset + @part)]
  end

  defp pack(part, message) do
    if message != [] and size([part | message]) > @part,
      do: {:cont, Enum.reverse(message), [part]},
      else: {:cont, [part | message]}
  end

  defp size(message),
    do: message |> Enum.map(fn {_, _, _, bytes} -> byte_size(bytes) end) |> Enum.sum()
end
