defmodule HotPatch.Swap.SharedTerm do
  @moduledoc false
  # What all messages of a swap have in common, kept once and outside of all heaps. A message that is
  # sent to a hundred thousand processes is copied for each of them, and that took longer than all else
  # that they do to stand still. Of a persistent term a message has only a pointer: the VM does not copy it
  # (erl_message.c, erts_send_message: literals stay where they are).
  #
  # To erase it has the VM look at every process in the background, as after a purge. So it is one term
  # a swap, and only where many are sent to.

  @doc "Keeps a term for an owner, once; gives that which is not copied, or the term itself if another is kept."
  @spec keep(pid(), term) :: term when term: term()
  def keep(owner, term) do
    case :persistent_term.get({__MODULE__, owner}, nil) do
      nil ->
        :persistent_term.put({__MODULE__, owner}, term)
        :persistent_term.get({__MODULE__, owner})

      _another ->
        term
    end
  end

  @doc "Nobody is sent it any more. Who has it still keeps it."
  @spec erase(pid()) :: :ok
  def erase(owner) do
    _ = :persistent_term.erase({__MODULE__, owner})
    :ok
  end
end
