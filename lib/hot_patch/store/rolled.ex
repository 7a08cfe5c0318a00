defmodule HotPatch.Store.Rolled do
  @moduledoc false
  # The restarts that have led all nodes from one release to another, and back. With the release the patches of a node end,
  # and with them all that it knows of operations: this outlasts that. A node that was away is brought there by it,
  # and so only what has come to its end on all nodes is in it: where that stopped half-way, the others are to stay where
  # they are.
  #
  # All nodes order them in the same way, and learn them from each other. Beside them is kept up to which of them a node
  # has come to what it runs: by an operation that was not completed, or by a change while it ran, it may rightly be
  # elsewhere than the last of them leads.

  alias HotPatch.Release
  alias HotPatch.Store

  @typedoc """
  `kind` is the direction in which the upgrade `patch` was gone, `id` the operation. `scope` is `:all`, unless nodes were
  named. `seq` orders them. `past` are the versions from which those that were restarted had come to `from` while they ran.
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
          past: [String.t()],
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
  def list, do: read().entries

  @doc "Keeps these, too. Any node of the cluster can send them: what has another form is left out."
  @spec add([t()]) :: :ok | {:error, File.posix()}
  def add(entries) do
    kept = read()
    put(kept, %{kept | entries: together(kept.entries, Enum.filter(entries, &entry?/1))})
  end

  @doc "This node has come to a release: by the restart with this number, or by what was done after all that is known here."
  @spec arrived(Release.t(), pos_integer() | :latest) :: :ok | {:error, File.posix()}
  def arrived(%Release{name: name, version: version}, seq) do
    kept = read()
    seq = if seq == :latest, do: last(kept), else: seq
    put(kept, %{kept | arrived: %{name: name, version: version, seq: seq}})
  end

  @doc "The last number that is known here."
  @spec seq() :: non_neg_integer()
  def seq, do: last(read())

  defp last(%{entries: entries, arrived: arrived}) do
    numbers = for one <- [arrived | entries], one != nil, do: one.seq
    Enum.max(numbers, fn -> 0 end)
  end

  defp read do
    case Store.read_term(path()) do
      {:ok, %{v: @version, entries: entries, arrived: arrived}} ->
        %{entries: Enum.filter(entries, &entry?/1), arrived: arrived}

      _none_or_damaged ->
        %{entries: [], arrived: nil}
    end
  end

  defp put(same, same), do: :ok
  defp put(_before, kept), do: Store.write_term(path(), Map.put(kept, :v, @version))

  defp together(known, more) do
    (known ++ more)
    |> Enum.uniq_by(& &1.id)
    |> Enum.sort_by(&{&1.seq, &1.id})
    |> Enum.take(-@most)
  end

  # One of a later version may mean something else.
  defp entry?(%{v: @version, id: id, seq: seq, kind: kind, scope: scope} = entry) do
    texts = for key <- [:patch, :name, :from, :to, :by], do: entry[key]
    past = with past when not is_list(past) <- entry[:past], do: [:none]

    Enum.all?([id | texts ++ past], &is_binary/1) and is_integer(seq) and
      kind in [:apply, :rollback] and
      match?(%{at: %DateTime{}}, entry) and (scope == :all or is_list(scope))
  end

  defp entry?(_other), do: false

  @doc "The restart that this node has missed, if it runs this release; nil where there is none."
  @spec missed(Release.t()) :: t() | nil
  def missed(release) do
    %{entries: entries, arrived: arrived} = read()
    missed(entries, release, node(), arrived)
  end

  @doc false
  # The last that has to do with what runs, of those after this node has come there, if that leads away from it.
  @spec missed([t()], Release.t(), node(), map() | nil) :: t() | nil
  def missed(entries, %Release{name: name, version: version}, node, arrived) do
    since =
      case arrived do
        %{name: ^name, version: ^version, seq: seq} -> seq
        _elsewhere_or_not_known -> 0
      end

    entries
    |> Enum.filter(&(&1.seq > since and &1.name == name and version in [&1.from, &1.to]))
    |> Enum.filter(&concerns?(&1, node))
    |> Enum.max_by(&{&1.seq, &1.id}, fn -> nil end)
    |> then(&if(&1 && &1.from == version, do: &1))
  end

  @doc """
  The restart after which there is no way for a node that runs this release: those that were restarted had come from it
  to another before, while they ran, and what they knew of that has ended. nil where there is none.
  """
  @spec left_behind(Release.t()) :: t() | nil
  def left_behind(release), do: left_behind(list(), release, node())

  @doc false
  @spec left_behind([t()], Release.t(), node()) :: t() | nil
  def left_behind(entries, %Release{name: name, version: version}, node) do
    own = Enum.filter(entries, &(&1.name == name and concerns?(&1, node)))
    last = Enum.max_by(own, &{&1.seq, &1.id}, fn -> nil end)

    if last != nil and version in last.past and
         not Enum.any?(own, &(version in [&1.from, &1.to])),
       do: last
  end

  defp concerns?(%{scope: :all}, _node), do: true
  defp concerns?(%{scope: nodes}, node), do: node in nodes

  defp path, do: Path.join(Store.directory(), @name)
end
