defmodule HotPatch.NodeAgent.Vitals.HealthCheck do
  @moduledoc false
  # Asks the host application whether it is well. One that does not answer is not.

  # Milliseconds.
  @within 2_000

  @doc "The answer as a figure; none where there is nobody to ask."
  @spec ask(mfa() | nil) :: [HotPatch.NodeAgent.Vitals.figure()]
  def ask(nil), do: []

  def ask({module, function, args}) do
    {pid, monitor} = spawn_monitor(__MODULE__, :answer, [module, function, args])

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:answer, answer}} -> [figure(answer)]
      {:DOWN, ^monitor, :process, ^pid, reason} -> [ill("it failed: #{short(reason)}")]
    after
      @within ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        [ill("it did not answer within #{@within} ms")]
    end
  end

  @doc false
  # Its end is its result.
  @spec answer(module(), atom(), [term()]) :: no_return()
  def answer(module, function, args), do: exit({:answer, apply(module, function, args)})

  defp figure(well) when well in [:ok, true], do: %{sign: :health, value: 0, text: nil}
  defp figure(answer), do: ill(short(answer))

  defp ill(text), do: %{sign: :health, value: 1, text: text}
  defp short(term), do: inspect(term, limit: 10, printable_limit: 200)
end
