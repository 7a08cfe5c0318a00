defmodule HotPatch.NodeAgent.Vitals.HealthCheck do
  @moduledoc false
  # Asks the host application whether it is well. One that does not answer is not.

  alias HotPatch.Support.Isolated

  # Milliseconds.
  @within 2_000

  @doc "The answer as a figure; none where there is nobody to ask."
  @spec ask(mfa() | nil) :: [HotPatch.NodeAgent.Vitals.figure()]
  def ask(nil), do: []

  def ask({module, function, args}) do
    case Isolated.run(fn -> apply(module, function, args) end, @within) do
      {:ok, answer} -> [figure(answer)]
      {:died, reason} -> [ill("it failed: #{short(reason)}")]
      {:late, _seen} -> [ill("it did not answer within #{@within} ms")]
    end
  end

  defp figure(well) when well in [:ok, true], do: %{sign: :health, value: 0, text: nil}
  defp figure(answer), do: ill(short(answer))

  defp ill(text), do: %{sign: :health, value: 1, text: text}
  defp short(term), do: inspect(term, limit: 10, printable_limit: 200)
end
