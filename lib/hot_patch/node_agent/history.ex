defmodule HotPatch.NodeAgent.History do
  @moduledoc false
  # What a node can tell others of what was done on it: for those that missed it, and for
  # those that want back what was there before.

  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Strategy

  @type history :: %{
          release: Release.t(),
          ops: [Applied.op()],
          decided: [Applied.op()],
          stack: [String.t()],
          retired: %{String.t() => %{at: DateTime.t(), seq: non_neg_integer()}},
          abouts: [map()]
        }

  @doc """
  What this node knows of the operations on its release: those it has seen to their end, and
  those it only knows to be decided, because it was to tell others of that.
  """
  @spec history() :: history()
  def history do
    state = Applied.state()

    state
    |> Map.take([:release, :ops, :retired])
    |> Map.merge(%{
      decided: decided(state),
      stack: Enum.map(state.stack, & &1.id),
      abouts: for(%{about: about} when about != nil <- state.stack, do: about)
    })
  end

  @doc "Tells by which nodes there is anything to ask `history/0` for."
  @spec fingerprint() :: {Release.t(), integer()}
  def fingerprint do
    state = Applied.state()
    ids = for op <- known(state), do: op.id
    {state.release, ids |> Enum.sort() |> :erlang.phash2()}
  end

  @doc "Whether an operation was decided, as far as this node's disk knows."
  @spec decided?(String.t()) :: boolean()
  def decided?(id) do
    state = Applied.state()
    Enum.any?(known(state), &(&1.id == id))
  end

  @doc "Highest number of an operation known here, carried out or only decided."
  @spec seq() :: non_neg_integer()
  # rule: numbers-count
  def seq do
    state = Applied.state()
    for(op <- known(state), do: op.seq) |> Enum.max(fn -> 0 end)
  end

  defp known(state), do: state.ops ++ decided(state)

  defp decided(state) do
    known = MapSet.new(state.ops, & &1.id)
    for op <- Store.Decisions.list(state.release), op.id not in known, do: op
  end

  @doc """
  What came to this node with a patch, to be applied as it was here. That an operator has had processes
  killed for it is no leave to kill others elsewhere, later.
  """
  @spec payload(String.t()) :: {:ok, Payload.t()} | :unknown
  def payload(id) do
    with %{payload: digest, strategy: strategy} when digest != nil <- Applied.find(id),
         {:ok, bytes} <- Store.Blobs.fetch(Store.blobs(), digest) do
      {:ok, Map.merge(%{:erlang.binary_to_term(bytes) | purge: :soft}, strategy)}
    else
      _ -> :unknown
    end
  end

  @doc """
  What a patch has replaced here: paths with their former bytes, nil for what it has added; and how it
  is to go back.
  """
  @spec former(String.t()) :: {:ok, [{Path.t(), binary() | nil}], Strategy.t()} | :unknown
  def former(id) do
    with %{files: files} = record <- Applied.find(id),
         files = for(file <- files, do: {file.path, former_bytes(file)}),
         false <- Enum.any?(files, &match?({_path, :gone}, &1)) do
      {:ok, files, Strategy.back(record)}
    else
      _ -> :unknown
    end
  end

  # Where memory had other code than the disk: the code that ran.
  defp former_bytes(%{ran: {:lost, _md5}}), do: :gone

  defp former_bytes(%{ran: digest} = file) when digest != nil,
    do: former_bytes(%{file | old: digest, ran: nil})

  defp former_bytes(%{old: nil}), do: nil

  defp former_bytes(%{old: digest}) do
    case Store.Blobs.fetch(Store.blobs(), digest) do
      {:ok, bytes} -> bytes
      _unknown_or_damaged -> :gone
    end
  end
end
