defmodule Bench.Erlang do
  # Modules of the benchmarks, from Erlang text.

  @doc "The code of a module."
  def compile(text, options \\ []) do
    {:ok, tokens, _end} = text |> String.to_charlist() |> :erl_scan.string()

    {:ok, _module, beam} =
      tokens
      |> Enum.chunk_while([], &chunk/2, fn [] -> {:cont, []} end)
      |> Enum.map(fn form ->
        {:ok, parsed} = :erl_parse.parse_form(form)
        parsed
      end)
      |> :compile.forms(options)

    beam
  end

  defp chunk({:dot, _} = token, form), do: {:cont, Enum.reverse([token | form]), []}
  defp chunk(token, form), do: {:cont, [token | form]}
end
