defmodule HotPatch.Operation do
  @moduledoc false
  # One operation, from the coordinator that begins it to the nodes that carry it out: the only shape
  # that it has while it is under way. It is made by `new/1` alone, and travels as it is: nodes of
  # another protocol are refused before they get one (see HotPatch.NodeAgent.protocol/0).
  #
  # What is remembered of it, in the journals of decisions and in the state of every node, is a plain map
  # that names its version (`to_record/1`). It holds no process and no struct of ours, and is read
  # by `from_record/1`, whichever version has written it.

  alias HotPatch.Manifest
  alias HotPatch.Strategy

  @typedoc """
  Where an operation comes from.

    * `:operator` - somebody has called for it
    * `:undo` - it follows by itself, and takes back what an apply has done
    * `:abandoned` - a node takes back what was tried there, because the coordinator is gone
    * `{:missed, brought_by}` - a node does by itself, and alone, what it has missed
    * `{:make_room, brought_by}` - on the way there it takes back what has to lie above, or applies it
      again; other nodes cannot miss that

  `brought_by` is the operation that has brought the patch and that this one stands for, or nil.
  """
  @type origin ::
          :operator
          | :undo
          | :abandoned
          | {:missed, String.t() | nil}
          | {:make_room, String.t() | nil}

  @typedoc """
  The node and the operation that some nodes try a patch for: it counts only while that is led there.
  The id is nil in what an earlier version has written.
  """
  @type tried_by :: {node(), String.t() | nil}

  @typedoc """
  It is known by its `ref`, and owned by the process of the coordinator. `id` and `seq` are what the
  journals and the other nodes know it by, and `course` is the id of the whole of which it may be a
  step. `seq` is settled when all nodes are reserved: above `above`, and above what each of them
  knows. `scope` is `:all` unless nodes were named. `members` are the nodes that take part: who holds
  when the coordinator is gone asks them how it was decided. `roster` are those of the whole operation
  that run the release of the patch, and `missing` those that were away. `tried_by`: the patch is tried
  on some nodes first. `undoes`: a rollback that follows these operations by itself. `transition` and
  `on_load` are nil where each node takes the way back by which the patch came. All but an `:apply` and a `:rollback`
  only hold the node.
  """
  @type t :: %__MODULE__{
          ref: reference(),
          id: String.t(),
          course: String.t(),
          seq: pos_integer() | nil,
          above: non_neg_integer(),
          kind:
            :apply
            | :rollback
            | :detach
            | :restart
            | :rehearse
            | :make_permanent
            | :remove_release,
          patch: String.t(),
          by: String.t(),
          reason: String.t() | nil,
          from: String.t() | nil,
          coordinator: pid(),
          origin: origin(),
          scope: :all | [node()],
          members: [node()],
          roster: [node()],
          missing: [node()],
          tried_by: tried_by() | nil,
          undoes: [String.t()] | nil,
          cumulative?: boolean(),
          again?: boolean(),
          content: binary(),
          disk: :replace | :memory_only,
          about: map() | nil,
          signed_by: String.t() | nil,
          overridden: Manifest.overridden(),
          accepted: [String.t()],
          transition: Strategy.transition() | nil,
          on_load: :restart | :load | nil,
          purge: :soft | :force,
          pause_timeout: pos_integer(),
          hold_timeout: pos_integer()
        }
  @enforce_keys [:ref, :id, :course, :kind, :patch, :by, :coordinator]
  defstruct [
    :ref,
    :id,
    :course,
    :seq,
    :kind,
    :patch,
    :by,
    :reason,
    :from,
    :coordinator,
    :tried_by,
    :undoes,
    :about,
    :signed_by,
    :transition,
    :on_load,
    above: 0,
    origin: :operator,
    scope: :all,
    members: [],
    roster: [],
    missing: [],
    cumulative?: false,
    again?: false,
    content: <<>>,
    disk: :replace,
    overridden: %{},
    accepted: [],
    purge: :soft,
    pause_timeout: 1,
    hold_timeout: 1
  ]

  @typedoc """
  An operation as it is remembered. `seq` orders them. `content` tells patches apart by what they carry.
  """
  @type remembered :: %{
          optional(:v) => pos_integer(),
          id: String.t(),
          seq: pos_integer(),
          kind: :apply | :rollback,
          patch: String.t(),
          cumulative?: boolean(),
          content: binary(),
          disk: :replace | :memory_only,
          transition: Strategy.transition() | nil,
          on_load: :restart | :load | nil,
          scope: :all | [node()],
          by: String.t(),
          roster: [node()],
          undoes: [String.t()] | nil,
          tried_by: tried_by() | nil,
          at: DateTime.t()
        }

  @typedoc "What others are told of the operation that holds a node."
  @type holder :: %{
          required(:kind) =>
            :apply
            | :rollback
            | :detach
            | :restart
            | :rehearse
            | :make_permanent
            | :remove_release
            | :install,
          required(:patch) => String.t(),
          required(:by) => String.t(),
          required(:coordinator) => pid(),
          optional(atom()) => term()
        }

  @version 1
  @remembered [
    :id,
    :seq,
    :kind,
    :patch,
    :cumulative?,
    :content,
    :disk,
    :transition,
    :on_load,
    :scope,
    :by,
    :roster,
    :undoes,
    :tried_by
  ]
  @told [:id, :course, :kind, :patch, :by, :coordinator, :origin]

  # What versions before the first one did not write.
  @not_written %{
    content: <<>>,
    disk: :replace,
    transition: nil,
    on_load: nil,
    roster: [],
    undoes: nil,
    tried_by: nil
  }

  @doc """
  An operation of the calling process, which is its coordinator. Of the facts `id`, `kind`, `patch` and
  `by` are needed; it is a whole of its own where no `course` is given.
  """
  @spec new(Enumerable.t()) :: t()
  def new(facts) do
    facts = Map.new(facts)

    struct!(
      __MODULE__,
      Map.merge(%{ref: make_ref(), course: facts.id, coordinator: self()}, facts)
    )
  end

  @doc "Whether a node does it by itself to catch up with others, which hear nothing of it."
  @spec catching_up?(t()) :: boolean()
  def catching_up?(%__MODULE__{origin: origin}), do: is_tuple(origin)

  @doc "The origin of what takes back an operation of this origin: what a node does alone it undoes alone."
  @spec undoing(origin()) :: origin()
  def undoing(origin) when is_tuple(origin), do: origin
  def undoing(_of_the_cluster), do: :undo

  @doc "The operation by which its patch counts as brought."
  @spec brought_by(t()) :: String.t()
  def brought_by(%__MODULE__{origin: {_how, brought_by}}) when brought_by != nil, do: brought_by
  def brought_by(%__MODULE__{id: id}), do: id

  @doc "What others are told of it while it holds a node."
  @spec holder(t() | holder() | nil) :: holder() | nil
  def holder(nil), do: nil
  def holder(operation), do: Map.take(operation, @told)

  @doc "An operation as it is remembered: by the disk, the journals and other nodes."
  @spec to_record(t()) :: remembered()
  def to_record(%__MODULE__{} = operation) do
    operation
    |> Map.take(@remembered)
    |> Map.merge(%{v: @version, at: DateTime.utc_now()})
  end

  @doc """
  What a record from the disk remembers, in the form of today, whichever version has written it.

  Raises for one of a later version, because what it says cannot be known.
  """
  @spec from_record(map()) :: remembered()
  def from_record(%{v: @version} = record), do: record

  def from_record(%{v: newer}) do
    raise "an operation on this node was written down by a newer HotPatch (format #{inspect(newer)}, this " <>
            "one knows #{@version}): install that again, or one newer still"
  end

  # Before versions were named. Who tried it was told by the process, which tells its node and nothing
  # that could be found there again.
  def from_record(record) do
    @not_written
    |> Map.merge(record)
    |> Map.update!(:tried_by, &if(is_pid(&1), do: {node(&1), nil}, else: &1))
    |> Map.put(:v, @version)
  end
end
