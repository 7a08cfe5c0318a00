defmodule HotPatch.Swap.Decision do
  @moduledoc false
  # The moment between trying and doing: everything has been tried, everybody concerned
  # still waits, and whoever asked for the swap says how it goes on.

  alias HotPatch.Swap.Ready

  @doc "Waits for the decision, where the job asks for one. Until here all can be left as it is."
  @spec await(pid(), Ready.t()) :: :ok | {:error, :told | :taken_back, String.t()}
  def await(_caller, %Ready{job: %{hold_timeout: nil}}), do: :ok

  def await(caller, ready) do
    send(caller, {self(), :held})
    monitor = Process.monitor(caller)

    receive do
      {:decided, :finish} -> :ok
      {:decided, {:take_back, why}} -> {:error, :told, why}
      {:DOWN, ^monitor, _, _, _} -> {:error, :taken_back, "the caller died before it decided"}
    after
      # rule: hold-ends
      ready.job.hold_timeout -> {:error, :taken_back, "no decision came in time"}
    end
  end

  @doc """
  Whoever asked for the swap may have died while it waited for a busy process, or have decided by then
  that it is to be taken back.
  """
  @spec wanted(pid()) :: :ok | {:error, :abandoned | :told, String.t()}
  def wanted(caller) do
    with :ok <- called_off() do
      if Process.alive?(caller),
        do: :ok,
        else: {:error, :abandoned, "the caller died before anything was loaded"}
    end
  end

  @doc "Whether the calling engine has been told to take back before it came to ask."
  @spec called_off() :: :ok | {:error, :told, String.t()}
  def called_off do
    receive do
      {:decided, {:take_back, why}} = told ->
        # It counts for whoever asks next, too.
        _ = send(self(), told)
        {:error, :told, why}
    after
      0 -> :ok
    end
  end
end
