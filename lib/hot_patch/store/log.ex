defmodule HotPatch.Store.Log do
  @moduledoc false
  # An append-only file of terms: what was appended is on disk, whatever happens next, and
  # what happens to one record costs none of the others.
  #
  # A record is a magic, the length of its payload, a checksum over these and the payload,
  # and the payload. A payload never contains the magic, so that wherever the magic is, a
  # record starts: behind a damaged one the next is found, and a log inside a term is not
  # taken for records of this one.
  #
  # One writer at a time: who shares a log between processes holds a lock around `append/2`,
  # `open/1` and `rewrite/2`.

  alias HotPatch.Store

  # In a payload the first three bytes are always followed by @escape.
  @lead <<0xF5, "HL">>
  @escape 0
  @magic <<0xF5, "HL", 1>>
  @header byte_size(@magic) + 4 + 16
  @longest 0xFFFFFFFF

  # So many copies of damaged bytes are kept.
  @copies 5

  @typedoc """
  What could not be read. `:torn` is a record cut short at the end, as a power cut leaves
  it; anything else is `:damaged`. `offset` is where it starts, and `bytes` how much it is.
  `kept` names the file that `open/1` has put these bytes into.
  """
  @type damage ::
          nil
          | %{
              offset: non_neg_integer(),
              bytes: pos_integer(),
              kind: :torn | :damaged,
              kept: Path.t() | nil
            }

  @doc """
  Appends a term and has the disk confirm it.

  After an error the log is as it was. `:efbig`: the term is beyond 4 GiB.
  """
  @spec append(Path.t(), term()) :: :ok | {:error, File.posix()}
  def append(path, term) do
    with {:ok, record} <- encode(term),
         :ok <- Store.make_folder(Path.dirname(path)) do
      on_device(path, [:append], &append_record(&1, path, record))
    end
  end

  @doc """
  All terms before the first damage. Changes nothing: `bytes` of the damage is all that is
  behind them, also if `open/1` would find more records there.
  """
  @spec read(Path.t()) :: {:ok, [term()], damage()} | {:error, File.posix()}
  def read(path) do
    with {:ok, bytes} <- content(path) do
      segments = segments(bytes, 0)
      whole = Enum.take_while(segments, &match?({:record, _, _, _}, &1))

      case damage(segments, bytes) do
        nil -> {:ok, terms(whole), nil}
        damage -> {:ok, terms(whole), %{damage | bytes: byte_size(bytes) - damage.offset}}
      end
    end
  end

  @doc """
  Reads a log and makes it fit to be appended to.

  All whole records are given and stay, also those behind a damaged one; the rest is moved
  to `PATH.damaged-N`. If that copy cannot be written, the log is left as it is, with an
  error; only a torn record, which nobody was told is there, is cut off all the same.
  """
  @spec open(Path.t()) :: {:ok, [term()], damage()} | {:error, File.posix()}
  def open(path) do
    with {:ok, bytes} <- content(path) do
      Store.remove_temporaries(path)
      segments = segments(bytes, 0)

      with {:ok, damage} <- repair(damage(segments, bytes), path, bytes, segments) do
        {:ok, terms(segments), damage}
      end
    end
  end

  @doc "Replaces a log by one of these terms, whole or not at all."
  @spec rewrite(Path.t(), [term()]) :: :ok | {:error, File.posix()}
  def rewrite(path, terms) do
    with {:ok, records} <- encode_all(terms), do: Store.write(path, records)
  end

  ## Writing

  defp append_record(device, path, record) do
    with {:ok, size} <- :file.position(device, :eof) do
      with :ok <- if(size == 0, do: File.chmod(path, 0o600), else: :ok),
           :ok <- :file.write(device, record),
           :ok <- :file.sync(device) do
        if size == 0, do: Store.flush_folder(Path.dirname(path)), else: :ok
      else
        error ->
          # Where even this fails, `open/1` finds the records behind what is left.
          _ = cut_off(device, size)
          error
      end
    end
  end

  defp cut_off(device, size) do
    with {:ok, ^size} <- :file.position(device, size),
         :ok <- :file.truncate(device),
         do: :file.sync(device)
  end

  defp on_device(path, modes, fun) do
    with {:ok, device} <- :file.open(path, [:raw, :binary | modes]) do
      try do
        fun.(device)
      after
        :file.close(device)
      end
    end
  end

  defp encode_all(terms) do
    records = Enum.map(terms, &encode/1)

    with nil <- Enum.find(records, &match?({:error, _}, &1)),
         do: {:ok, Enum.map(records, &elem(&1, 1))}
  end

  defp encode(term) do
    payload = :binary.replace(:erlang.term_to_binary(term), @lead, <<@lead, @escape>>, [:global])
    size = byte_size(payload)

    if size > @longest,
      do: {:error, :efbig},
      else: {:ok, [@magic, <<size::32>>, checksum(size, payload), payload]}
  end

  defp checksum(size, payload),
    do: binary_part(:crypto.hash(:sha256, [@magic, <<size::32>>, payload]), 0, 16)

  ## Reading

  defp content(path) do
    with {:error, :enoent} <- File.read(path), do: {:ok, <<>>}
  end

  # What a log consists of: records, and gaps where there are none.
  defp segments(bytes, offset) when offset == byte_size(bytes), do: []

  defp segments(bytes, offset) do
    case decode(bytes, offset) do
      {:ok, term, size} ->
        [{:record, term, offset, size} | segments(bytes, offset + size)]

      :error ->
        next = next_record(bytes, offset + 1)
        [{:gap, offset, next - offset} | segments(bytes, next)]
    end
  end

  defp next_record(bytes, from) do
    case :binary.match(bytes, @magic, scope: {from, byte_size(bytes) - from}) do
      {at, _size} -> if decode(bytes, at) == :error, do: next_record(bytes, at + 1), else: at
      :nomatch -> byte_size(bytes)
    end
  end

  defp decode(bytes, offset),
    do: bytes |> binary_part(offset, byte_size(bytes) - offset) |> decode()

  defp decode(<<@magic, size::32, sum::binary-16, payload::binary-size(size), _::binary>>) do
    if checksum(size, payload) == sum do
      etf = :binary.replace(payload, <<@lead, @escape>>, @lead, [:global])
      {:ok, :erlang.binary_to_term(etf), @header + size}
    else
      :error
    end
  rescue
    # Written by a later Erlang, as it may be: the checksum was right.
    ArgumentError -> :error
  end

  defp decode(_other), do: :error

  defp terms(segments), do: for({:record, term, _offset, _size} <- segments, do: term)

  defp damage(segments, bytes) do
    case for {:gap, offset, size} <- segments, do: {offset, size} do
      [] ->
        nil

      [{offset, size} | _] = gaps ->
        %{
          offset: offset,
          bytes: gaps |> Enum.map(&elem(&1, 1)) |> Enum.sum(),
          kind:
            if(at_end?(offset, size, bytes) and torn?(bytes, offset), do: :torn, else: :damaged),
          kept: nil
        }
    end
  end

  defp at_end?(offset, size, bytes), do: offset + size == byte_size(bytes)

  # The beginning of a record, of which more was to come.
  defp torn?(bytes, offset) do
    case binary_part(bytes, offset, byte_size(bytes) - offset) do
      <<@magic, size::32, _::binary-16, payload::binary>> -> byte_size(payload) < size
      <<@magic, _::binary>> -> true
      short -> String.starts_with?(@magic, short)
    end
  end

  ## Repairing

  defp repair(nil, _path, _bytes, _segments), do: {:ok, nil}

  defp repair(damage, path, bytes, segments) do
    with {:ok, kept} <- keep(damage.kind, path, bytes, segments),
         :ok <- remove_gaps(damage, path, bytes, segments) do
      {:ok, %{damage | kept: kept}}
    end
  end

  defp remove_gaps(%{offset: offset} = damage, path, bytes, segments) do
    if at_end?(offset, damage.bytes, bytes) do
      on_device(path, [:read, :write], &cut_off(&1, offset))
    else
      Store.write(path, for({:record, _, at, size} <- segments, do: binary_part(bytes, at, size)))
    end
  end

  defp keep(kind, path, bytes, segments) do
    numbers = path |> numbers() |> Enum.sort(:desc)
    copy = "#{path}.damaged-#{List.first(numbers, 0) + 1}"
    gaps = for {:gap, offset, size} <- segments, do: binary_part(bytes, offset, size)

    case Store.write(copy, gaps) do
      :ok ->
        for n <- Enum.drop(numbers, @copies - 1), do: _ = File.rm("#{path}.damaged-#{n}")
        {:ok, copy}

      {:error, _posix} when kind == :torn ->
        {:ok, nil}

      error ->
        error
    end
  end

  # What follows `PATH.damaged-` in the names beside the log.
  defp numbers(path) do
    start = Path.basename(path) <> ".damaged-"

    case File.ls(Path.dirname(path)) do
      {:ok, names} ->
        for name <- names,
            String.starts_with?(name, start),
            {n, ""} when n > 0 <- [Integer.parse(String.replace_prefix(name, start, ""))],
            do: n

      {:error, _posix} ->
        []
    end
  end
end
