defmodule HotPatch.Watch do
  @moduledoc """
  What was seen in the time after a change, and whether that was too much: part of the report of
  an apply that was watched.

  Counted are, on each node, from the moment before the new code is loaded on, and beyond what is to be
  expected from the time before that:

  #{HotPatch.Options.WatchLimits.docs()}

  Fields: `:duration_ms` for how long, `:watched_ms` how long it was until a limit was exceeded,
  `:signs` the last figures (`node`, `sign`, `value`, `limit`, `text`), `:exceeded` the sign that was
  beyond its limit first, or `nil`.
  """

  alias HotPatch.Options.WatchLimits
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @type sign :: unquote(WatchLimits.sign_type())
  @type seen :: %{
          node: node(),
          sign: sign(),
          value: number(),
          limit: number(),
          text: String.t() | nil
        }
  @type t :: %__MODULE__{
          duration_ms: pos_integer(),
          watched_ms: non_neg_integer(),
          signs: [seen()],
          exceeded: seen() | nil
        }
  @enforce_keys [:duration_ms, :watched_ms]
  defstruct [:duration_ms, :watched_ms, :exceeded, signs: []]

  @doc "A sign in words."
  @spec line(seen()) :: String.t()
  def line(seen) do
    Printable.line([
      "#{seen.sign} on #{seen.node}: #{seen.value}, the limit is #{seen.limit}",
      if(seen.text, do: " (#{seen.text})", else: "")
    ])
  end

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(watch) do
    rows =
      for seen <- watch.signs, seen.value > 0 or seen.text != nil do
        [
          Atom.to_string(seen.node),
          "#{seen.sign}",
          "#{seen.value}",
          "#{seen.limit}",
          seen.text || ""
        ]
      end

    [
      "watched for #{Table.milliseconds(watch.watched_ms * 1_000)}: ",
      if(watch.exceeded,
        do: "#{line(watch.exceeded)}\n",
        else: "nothing beyond its limit\n"
      ),
      if(rows == [], do: [], else: Table.render(["node", "sign", "value", "limit", ""], rows))
    ]
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
