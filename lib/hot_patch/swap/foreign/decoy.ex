defmodule HotPatch.Swap.Foreign.Decoy do
  @moduledoc false
  # Stands where a loop might have its callback module, and does nothing.

  @doc "As of a gen_server."
  @spec code_change(term(), state, term()) :: {:ok, state} when state: term()
  def code_change(_vsn, state, _extra), do: {:ok, state}

  @doc "As of a gen_fsm or a gen_statem."
  @spec code_change(term(), name, data, term()) :: {:ok, name, data}
        when name: term(), data: term()
  def code_change(_vsn, name, data, _extra), do: {:ok, name, data}
end
