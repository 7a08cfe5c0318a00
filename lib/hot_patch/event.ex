defmodule HotPatch.Event do
  @moduledoc """
  How far an operation has come: what `HotPatch.subscribe/0` sends and `HotPatch.progress/0` lists.

    * `:operation` - id of the operation, the same in all its events
    * `:kind`, `:patch`, `:by` - what is done, with which patch, by whom
    * `:node` - the node that it is about, or `nil` for the operation as a whole
    * `:phase` - `:reserve`, `:send` (what the node lacks of the patch), `:prepare`, `:commit` (up to
      where all stand still and have converted their states), `:decide` (load, write, resume),
      `:restart` (of an upgrade with `restart: :rolling`: the node is about to come back in the new release),
      `:rehearse` (see `HotPatch.rehearse/2`), `:watch` (after the change, see `watch:` of `HotPatch.apply/2`), `:ended`
    * `:state` - `:running`, `:done` or `:failed`
    * `:done`, `:total` - how much of the phase, where that is known: bytes in `:send`, milliseconds
      in `:watch`
    * `:text` - what went wrong, or is waited for
    * `:at` - when, UTC
  """

  @type phase ::
          :reserve | :send | :prepare | :commit | :decide | :restart | :watch | :rehearse | :ended
  @type t :: %__MODULE__{
          operation: String.t(),
          kind: :apply | :rollback | :rehearse,
          patch: String.t(),
          by: String.t(),
          node: node() | nil,
          phase: phase(),
          state: :running | :done | :failed,
          done: non_neg_integer() | nil,
          total: non_neg_integer() | nil,
          text: String.t() | nil,
          at: DateTime.t()
        }
  @enforce_keys [:operation, :kind, :patch, :by, :phase, :state, :at]
  defstruct [:operation, :kind, :patch, :by, :node, :phase, :state, :done, :total, :text, :at]

  @phases [:reserve, :send, :prepare, :commit, :decide, :restart, :watch, :rehearse, :ended]

  @doc false
  # Whether it is an event as this version knows them: it may have come from another node.
  @spec valid?(term()) :: boolean()
  def valid?(%__MODULE__{node: node, done: done, total: total} = event) do
    Enum.all?([event.operation, event.patch, event.by, event.text || ""], &text?/1) and
      is_atom(event.kind) and is_atom(node) and event.phase in @phases and
      event.state in [:running, :done, :failed] and count?(done) and count?(total) and
      time?(event.at)
  rescue
    # A struct of another version: it lacks a key.
    KeyError -> false
  end

  def valid?(_other), do: false

  defp text?(text), do: is_binary(text) and String.valid?(text)
  defp count?(nil), do: true
  defp count?(number), do: is_integer(number) and number >= 0

  defp time?(%DateTime{} = time) do
    DateTime.compare(time, time) == :eq
  rescue
    # Its fields are not those of a time.
    _error -> false
  end

  defp time?(_other), do: false

  @doc false
  # What subscribers are sent: the tag is the public module's name.
  @spec message(t()) :: {HotPatch, t()}
  def message(%__MODULE__{} = event), do: {HotPatch, event}

  @doc "The event in one line."
  @spec line(t()) :: String.t()
  def line(event) do
    HotPatch.Support.Printable.line([
      "#{event.kind} of #{event.patch}#{if event.node, do: " on #{event.node}"}: #{event.phase} #{event.state}",
      if(event.total, do: " #{event.done} of #{event.total}", else: ""),
      if(event.text, do: " (#{event.text})", else: "")
    ])
  end

  defimpl Inspect do
    def inspect(event, _options), do: "#HotPatch.Event<#{HotPatch.Event.line(event)}>"
  end

  defimpl String.Chars do
    def to_string(event), do: HotPatch.Event.line(event)
  end
end
