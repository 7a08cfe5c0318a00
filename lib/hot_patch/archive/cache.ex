defmodule HotPatch.Archive.Cache do
  @moduledoc false
  # What the reader has made of archives, in memory: one that is uploaded, checked, planned and then
  # applied is read once. An archive is known by the digest of its bytes, and what was made of it also by the
  # limits under which that was done, so that what was accepted is what is loaded.

  use GenServer

  alias HotPatch.Archive
  alias HotPatch.Composition
  alias HotPatch.Error
  alias HotPatch.Refusal

  # Bytes kept at most, and for how many milliseconds after the last archive has come.
  @most 64_000_000
  @keep_for 900_000

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Reads an archive as `HotPatch.Archive.read/2` does, if that has not been done."
  @spec read(binary(), String.t()) :: {:ok, Composition.t()} | {:error, Refusal.t() | Error.t()}
  def read(bytes, name) do
    key = {:crypto.hash(:sha256, bytes), Archive.options()}

    case lookup(key) do
      [{_key, composition}] ->
        {:ok, %{composition | id: Archive.id(name, composition.sha256)}}

      [] ->
        with {:ok, composition} <- Archive.read(bytes, name) do
          :ok = keep(key, composition)
          {:ok, composition}
        end
    end
  end

  # The table goes and comes again with the server; in a VM where HotPatch is not started there is none.
  defp lookup(key) do
    :ets.lookup(__MODULE__, key)
  rescue
    ArgumentError -> []
  end

  # By who has read it, so that whoever comes next finds it; the server has it go.
  defp keep(key, composition) do
    :ets.insert(__MODULE__, {key, composition})
    GenServer.cast(__MODULE__, {:kept, key, :erlang.external_size(composition)})
  rescue
    ArgumentError -> :ok
  end

  @impl GenServer
  def init([]) do
    _ = :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    {:ok, []}
  end

  # The state are the keys with the sizes, the newest first: the oldest go.
  @impl GenServer
  def handle_cast({:kept, key, size}, kept) when is_integer(size),
    do: {:noreply, make_room([{key, size} | List.keydelete(kept, key, 0)]), @keep_for}

  def handle_cast(_other, kept), do: {:noreply, kept, @keep_for}

  @impl GenServer
  def handle_call(_other, _from, kept), do: {:reply, {:error, :not_supported}, kept, @keep_for}

  defp make_room(kept) do
    {stay, go} = kept |> sums() |> Enum.split_while(fn {_one, sum} -> sum <= @most end)
    for {{key, _size}, _sum} <- go, do: :ets.delete(__MODULE__, key)
    for {one, _sum} <- stay, do: one
  end

  defp sums(kept) do
    {kept, _sum} =
      Enum.map_reduce(kept, 0, fn {_key, size} = one, sum -> {{one, sum + size}, sum + size} end)

    kept
  end

  @impl GenServer
  def handle_info(:timeout, _kept) do
    :ets.delete_all_objects(__MODULE__)
    {:noreply, [], :hibernate}
  end

  def handle_info(_other, kept), do: {:noreply, kept, @keep_for}
end
