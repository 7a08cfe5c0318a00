defmodule HotPatch.Swap.OnLoad.Listener do
  @moduledoc false
  # Why an on_load failed. The code server tells its caller only that it did, and logs why
  # (code_server.erl, finish_on_load_report/2): a handler that is there for the length of one load
  # listens for that. Where such messages are not logged, and where on_load gives an atom, which is
  # not logged either, the cause stays unknown.

  # Milliseconds. The code server logs from a process of its own, when it has answered.
  @logged_within 100

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

  defp heard(ref) do
    receive do
      {^ref, cause} -> cause
    after
      @logged_within -> nil
    end
  end

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
