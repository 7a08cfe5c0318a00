defmodule HotPatch.Cluster.Ledger do
  @moduledoc false
  # Which patches are in force after a list of operations. All nodes compute it from the same list, so
  # that all come to the same patches, in whichever order they have heard of the operations.
  #
  # An apply of what is in force already changes nothing, and the patch stays the work of the operation
  # that brought it. By that it is known what may be taken back: a rollback that follows an operation by
  # itself names it (`undoes`), and means nothing where an earlier one had brought the patch.

  alias HotPatch.Store.Applied

  @typedoc "A patch in force, and the operation that brought it."
  @type entry :: {patch :: String.t(), op :: String.t()}

  @typedoc "Patches that ended, with the number of the last operation that counts no more."
  @type retired :: %{String.t() => %{:seq => non_neg_integer(), optional(atom()) => term()}}

  @doc "The patches in force after these operations, the oldest first."
  @spec stack([Applied.op()], retired()) :: [String.t()]
  def stack(ops, retired), do: for({patch, _op} <- in_force(ops, retired), do: patch)

  @doc "The same with the operation that brought each."
  @spec in_force([Applied.op()], retired()) :: [entry()]
  def in_force(ops, retired) do
    ops
    |> Enum.reject(&ended?(&1, retired))
    |> Enum.reduce([], &follow/2)
    |> Enum.map(fn {patch, op, _replaced} -> {patch, op} end)
    |> Enum.reverse()
  end

  # The newest first, each with what it has taken the place of.
  defp follow(%{kind: :apply, cumulative?: true, patch: id}, [{id, _op, _replaced}] = stack),
    do: stack

  defp follow(%{kind: :apply, cumulative?: true} = op, stack), do: [{op.patch, op.id, stack}]

  defp follow(%{kind: :apply} = op, stack) do
    if List.keymember?(stack, op.patch, 0), do: stack, else: [{op.patch, op.id, []} | stack]
  end

  defp follow(%{kind: :rollback} = op, stack) do
    with {{_patch, brought_by, replaced}, rest} <- List.keytake(stack, op.patch, 0),
         true <- Applied.undoes?(op, brought_by) do
      rest ++ replaced
    else
      _not_there_or_not_meant -> stack
    end
  end

  defp ended?(op, retired) do
    case Map.fetch(retired, op.patch) do
      # Not by time: clocks of nodes differ.
      {:ok, %{seq: seq}} -> op.seq <= seq
      :error -> false
    end
  end
end
