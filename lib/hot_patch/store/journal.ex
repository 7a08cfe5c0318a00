defmodule HotPatch.Store.Journal do
  @moduledoc false
  # What was done on this node, and by whom, as it is kept: maps in an append-only log. Who
  # reads it puts the entries of all nodes together (HotPatch.Cluster.Journals).

  alias HotPatch.Host.Config
  alias HotPatch.Store
  alias HotPatch.Store.Log

  @typedoc """
  `what` happened to `patch`. Entries of one operation have its id; `status`, `pause_us` and the
  like are those of this node.
  """
  @type entry :: %{
          required(:what) => atom(),
          required(:at) => DateTime.t(),
          required(:node) => node(),
          optional(:op) => String.t(),
          optional(atom()) => term()
        }

  @within 10_000

  @doc "Adds an entry."
  @spec add(atom(), map()) :: :ok | {:error, term()}
  def add(what, facts) do
    entry = Map.merge(%{what: what, at: DateTime.utc_now(), node: node()}, facts)
    alone(fn -> Log.append(path(), entry) end)
  end

  @doc "Adds the end of an operation, if it is not there yet: recovery may come to it twice."
  @spec add_once(atom(), map()) :: :ok | {:error, term()}
  def add_once(what, %{op: op} = facts) do
    if Enum.any?(list(), &(&1[:op] == op and &1.what == what)), do: :ok, else: add(what, facts)
  end

  @doc "All entries, oldest first."
  @spec list() :: [entry()]
  def list do
    case Log.read(path()) do
      {:ok, entries, _damage} -> entries
      {:error, _posix} -> []
    end
  end

  @doc """
  To be called once before anything is added: cuts off what a crash has left and drops the
  oldest entries beyond the limit (`config :hot_patch, journal_entries: 10_000`). Damage is
  itself an entry.
  """
  @spec open() :: :ok | {:error, term()}
  def open do
    with {:ok, entries, damage} <- alone(fn -> Log.open(path()) end) do
      limit = Config.current().journal_entries

      if length(entries) > limit,
        do: alone(fn -> Log.rewrite(path(), Enum.take(entries, -limit)) end)

      if damage, do: add(:journal_damaged, Map.take(damage, [:kind, :bytes, :kept])), else: :ok
    end
  end

  # The node's own processes may write at the same time.
  defp alone(fun) do
    case Store.Lock.with_lock(path() <> ".lock", @within, fun) do
      {:ok, result} -> result
      {:error, reason} -> {:error, reason}
    end
  end

  defp path, do: Path.join(Store.directory(), "journal.log")
end
