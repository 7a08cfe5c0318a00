defmodule HotPatch.Swap.Foreign.Probe do
  @moduledoc false
  # Stands where a loop has its callback module, and keeps what its code_change is called with. It gives
  # that back as the new state.

  @key :"$hot_patch_probe"

  @doc "Runs a loop's system_code_change/4; gives what this module was called with, and the result."
  @spec watch((() -> result)) :: {{:called, [term()]} | :not_called, result | :failed}
        when result: term()
  def watch(change) do
    _ = Process.delete(@key)

    result =
      try do
        change.()
      catch
        _kind, _reason -> :failed
      end

    case Process.delete(@key) do
      nil -> {:not_called, result}
      parts -> {{:called, parts}, result}
    end
  end

  @doc "As of a gen_server."
  @spec code_change(term(), state, term()) :: {:ok, state} when state: term()
  def code_change(_vsn, state, _extra) do
    Process.put(@key, [state])
    {:ok, state}
  end

  @doc "As of a gen_fsm or a gen_statem."
  @spec code_change(term(), name, data, term()) :: {:ok, name, data}
        when name: term(), data: term()
  def code_change(_vsn, name, data, _extra) do
    Process.put(@key, [name, data])
    {:ok, name, data}
  end
end
