defmodule HotPatch.NodeAgent.Precedence do
  @moduledoc false
  # Whether a patch is older than one that has taken its place on this node. Brought back by mistake, or
  # by somebody who may upload and has kept an old patch with a good signature, it would undo what the
  # newer one has repaired. So it is refused unless it is said that it is meant.
  #
  # A patch is known here by what it carries, not by its id: the same files under another name or in
  # another archive are the same patch.

  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Store.Applied

  @doc "Refuses a patch that another has taken the place of, unless it is told to come again."
  @spec check(Payload.t(), Applied.state()) :: :ok | {:error, String.t()}
  def check(%Payload{again?: true}, _state), do: :ok

  def check(payload, state) do
    with {first, newer} <- older(payload, state) do
      {:error,
       "#{payload.patch} is older than #{newer.id}, which has taken its place: it was applied here on " <>
         "#{Calendar.strftime(first.at, "%Y-%m-%d %H:%M:%S UTC")} by #{first.by}#{name(first, payload)}, and would " <>
         "bring back what the newer one has replaced. If that is meant, say again: true"}
    else
      nil -> :ok
    end
  end

  @doc "Whether what a patch carries was applied before, and another has taken its place since."
  @spec older?(
          %{:patch => String.t() | nil, :entries => [map()], optional(atom()) => term()},
          Applied.state()
        ) ::
          boolean()
  def older?(payload, state), do: older(payload, state) != nil

  # The operation that brought it first, and the record of what has taken its place.
  defp older(payload, state) do
    with %{} = first <- first(state.ops, Payload.content(payload), payload.patch),
         false <- Enum.any?(state.stack, &(&1.id == payload.patch)),
         %{} = newer <- Enum.find(state.stack, &in_place_of?(&1, payload, first, state.ops)) do
      {first, newer}
    else
      _new_or_latest -> nil
    end
  end

  defp name(%{patch: same}, %{patch: same}), do: ""
  defp name(first, _payload), do: " as #{first.patch}"

  # Patches are as old as their first apply: one that goes and comes again does not grow newer.
  defp first(ops, content, patch) do
    ops
    |> Enum.filter(&(&1.kind == :apply and (&1.content == content or &1.patch == patch)))
    |> Enum.min_by(&{&1.seq, &1.id}, fn -> nil end)
  end

  defp in_place_of?(record, payload, first, ops) do
    newer?(record, first, ops) and
      (replaced?(record, first) or Enum.any?(payload.entries, &has?(record, &1)))
  end

  # Where the operation that brought it is forgotten, by the clock.
  defp newer?(record, earlier, ops) do
    with %{content: content} <- Enum.find(ops, &(&1.id == record.op)),
         %{seq: seq, id: id} <- first(ops, content, record.id) do
      {seq, id} > {earlier.seq, earlier.id}
    else
      nil -> DateTime.compare(record.at, earlier.at) == :gt
    end
  end

  defp replaced?(record, first),
    do: Enum.any?(Applied.all(record.replaced), &(&1.id == first.patch))

  defp has?(record, %{beam: %{module: module}}),
    do: Enum.any?(record.files, &(&1.module == module))

  defp has?(record, %{path: path}), do: Enum.any?(record.files, &(&1.path == path))
end
