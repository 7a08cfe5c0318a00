defmodule HotPatch.Swap.OnLoad.Listener do
  @moduledoc false
  # Why an on_load failed. The code server tells its caller only that it did, and logs why
  # (code_server.erl, finish_on_load_report/2): a handler that is there for the length of one load
  # listens for that. Where such messages are not logged, and where on_load gives an atom, which is
  # not logged either, the cause stays unknown.

  # Milliseconds. Everybody waits meanwhile, so there has to be an end.
  @logged_within 1_000

  @doc "Runs a load; gives its result with the cause of its failure, nil if that is not known."
  @spec during(module(), (() -> result)) :: {result, term()} when result: term()
  def during(module, fun) do
    ref = :erlang.alias([:explicit_unalias])
    # One that a load has left which never ended listens for nobody.
    _ = :logger.remove_handler(__MODULE__)
    config = %{level: :all, config: %{module: module, to: ref}}
    _ = :logger.add_handler(__MODULE__, __MODULE__, config)

    try do
      result = fun.()
      {result, if(failed?(result), do: heard(ref))}
    after
      _ = :logger.remove_handler(__MODULE__)
      _ = :erlang.unalias(ref)
    end
  end

  defp failed?({:error, :on_load_failure}), do: true
  defp failed?(_result), do: false

  # The code server logs from a process of its own, which it spawns before it answers and does not
  # wait for. On a busy machine that comes late. So the cause is waited for as long as such a
  # process lives: where none does, nothing is logged, and nobody waits for it.
  defp heard(ref) do
    loggers = for pid <- Process.list(), child_of_code_server?(pid), do: Process.monitor(pid)
    until = System.monotonic_time(:millisecond) + @logged_within
    cause = heard(ref, MapSet.new(loggers), until)
    for monitor <- loggers, do: Process.demonitor(monitor, [:flush])
    cause
  end

  defp heard(ref, loggers, until) do
    # What they have sent before their end lies in the mailbox before the news of their end.
    none_left = if Enum.empty?(loggers), do: 0, else: until - System.monotonic_time(:millisecond)

    receive do
      {^ref, cause} -> cause
      {:DOWN, monitor, _, _, _} -> heard(ref, MapSet.delete(loggers, monitor), until)
    after
      max(0, none_left) -> nil
    end
  end

  defp child_of_code_server?(pid),
    do: Process.info(pid, :parent) == {:parent, Process.whereis(:code_server)}

  @doc false
  # The handler's callback (see logger).
  @spec log(:logger.log_event(), :logger.handler_config()) :: term()
  def log(%{msg: {:report, %{args: [module, cause | _], format: format}}}, %{
        config: %{module: module, to: ref}
      }) do
    if format |> to_string() |> String.starts_with?("The on_load function"),
      do: send(ref, {ref, cause})
  end

  def log(_other, _config), do: :ok
end
