defmodule HotPatch.Store.Rolled do
  @moduledoc false
  # The restarts that have led all nodes from one release to another, and back. With the release the patches of a node end,
  # and with them all that it knows of operations: this outlasts that. A node that was away is brought there by it,
  # and so only what has come to its end on all nodes is in it: where that stopped half-way, the others are to stay where
  # they are.
  #
  # All nodes order them in the same way, and learn them from each other.

  alias HotPatch.Release
  alias HotPatch.Store

  @typedoc """
  `kind` is the direction in which the upgrade `patch` was gone, `id` the operation. `scope` is `:all`, unless nodes were
  named. `seq` orders them.
  """
  @type t :: %{
          v: pos_integer(),
          id: String.t(),
          seq: pos_integer(),
          kind: :apply | :rollback,
          patch: String.t(),
          name: String.t(),
          from: String.t(),
          to: String.t(),
          scope: :all | [node()],
          by: String.t(),
          at: DateTime.t()
        }

  @version 1

  # So many releases later nobody is brought along that way any more.
  @most 50

  @name "rolled.record"

  @doc "An entry; its number is settled when all nodes have said which they know."
  @spec new(map()) :: t()
  def new(facts), do: Map.merge(facts, %{v: @version, at: DateTime.utc_now()})

  @doc "Those that are known here, the oldest first."
  @spec list() :: [t()]
  def list do
    case Store.read_term(path()) do
      {:ok, [_ | _] = entries} -> Enum.filter(entries, &entry?/1)
      _none_or_damaged -> []
    end
  end

  @doc "Keeps these, too. Any node of the cluster can send them: what has another form is left out."
  @spec add([t()]) :: :ok | {:error, File.posix()}
  def add(entries) do
    known = list()
    all = together(known, Enum.filter(entries, &entry?/1))
    if all == known, do: :ok, else: Store.write_term(path(), all)
  end

  defp together(known, more) do
    (known ++ more)
    |> Enum.uniq_by(& &1.id)
    |> Enum.sort_by(&{&1.seq, &1.id})
    |> Enum.take(-@most)
  end

  # One of a later version may mean something else.
  defp entry?(%{v: @version, id: id, seq: seq, kind: kind, scope: scope} = entry) do
    texts = for key <- [:patch, :name, :from, :to, :by], do: entry[key]

    Enum.all?([id | texts], &is_binary/1) and is_integer(seq) and kind in [:apply, :rollback] and
      match?(%{at: %DateTime{}}, entry) and (scope == :all or is_list(scope))
  end

  defp entry?(_other), do: false

  @doc """
  The restart that a node which runs this release has missed: nil where the last that has to do with it has led here, or
  none has.
  """
  @spec missed([t()], Release.t(), node()) :: t() | nil
  def missed(entries, %Release{name: name, version: version}, node) do
    entries
    |> Enum.filter(&(&1.name == name and version in [&1.from, &1.to] and concerns?(&1, node)))
    |> Enum.max_by(&{&1.seq, &1.id}, fn -> nil end)
    |> then(&if(&1 && &1.from == version, do: &1))
  end

  defp concerns?(%{scope: :all}, _node), do: true
  defp concerns?(%{scope: nodes}, node), do: node in nodes

  @doc "The number of the last of these."
  @spec seq([t()]) :: non_neg_integer()
  def seq(entries), do: entries |> Enum.map(& &1.seq) |> Enum.max(fn -> 0 end)

  defp path, do: Path.join(Store.directory(), @name)
end
