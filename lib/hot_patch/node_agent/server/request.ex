defmodule HotPatch.NodeAgent.Server.Request do
  @moduledoc false
  # The form of what the agent is asked. Coordinators are processes of other nodes, and any process of
  # the cluster can send the agent anything: what does not have this form is answered with an
  # error, and ends nothing.

  alias HotPatch.NodeAgent.Prepare

  @doc """
  Whether a request has one of the forms that the agent knows. What was prepared is a struct of this
  version, with files of this node: only a process of this node has one.
  """
  @spec understood?(term(), caller :: pid()) :: boolean()
  def understood?({:prepared, operation, %Prepare{}}, caller),
    do: node(caller) == node() and operation?(operation) and holds?(operation)

  def understood?(request, _caller), do: understood?(request)

  defp understood?({:reserve, operation}), do: operation?(operation)
  defp understood?({:lock, holder}), do: holder?(holder)
  defp understood?({:unlock, pid}), do: is_pid(pid)
  defp understood?({:commit, ref}), do: is_reference(ref)
  defp understood?({:decide, ref, decision}), do: is_reference(ref) and decision?(decision)
  defp understood?({:abort, ref}), do: is_reference(ref)
  defp understood?({:finishing?, id}), do: is_binary(id)
  defp understood?({:subscribe, pid}), do: is_pid(pid) and node(pid) == node()
  defp understood?({:note, ops}), do: list?(ops) and Enum.all?(ops, &op?/1)
  defp understood?(request), do: request in [:holder, :level, :settle]

  defp operation?(%{ref: ref} = operation), do: is_reference(ref) and holder?(operation)
  defp operation?(_other), do: false

  # How long it may stand still until it is decided.
  defp holds?(%{hold_timeout: timeout}), do: is_integer(timeout) and timeout > 0
  defp holds?(_other), do: false

  # What a second coordinator is told of the first.
  defp holder?(%{kind: kind, patch: patch, by: by, coordinator: pid}),
    do: is_atom(kind) and text?(patch) and text?(by) and is_pid(pid)

  defp holder?(_other), do: false

  defp decision?(:finish), do: true
  defp decision?({:take_back, why}), do: text?(why)
  defp decision?(_other), do: false

  # As it is kept on disk, and compared with those of other nodes.
  defp op?(%{id: id, seq: seq, kind: kind, patch: patch, by: by, at: %DateTime{}} = op) do
    text?(id) and is_integer(seq) and seq > 0 and kind in [:apply, :rollback] and text?(patch) and
      text?(by) and Map.has_key?(op, :tried_by) and scope?(op[:scope]) and
      is_boolean(op[:cumulative?])
  end

  defp op?(_other), do: false

  defp scope?(:all), do: true
  defp scope?(nodes), do: list?(nodes) and Enum.all?(nodes, &is_atom/1)

  defp text?(text), do: is_binary(text) and String.valid?(text)
  defp list?(value), do: is_list(value) and not List.improper?(value)
end
