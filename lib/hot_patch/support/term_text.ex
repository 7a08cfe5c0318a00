defmodule HotPatch.Support.TermText do
  @moduledoc false
  # Erlang terms that come as text. Reading one makes its atoms: only of an accepted patch.

  @doc "The term."
  @spec parse(String.t()) :: {:ok, term()} | :error
  def parse(text) do
    with {:ok, tokens, _line} <-
           text |> Kernel.<>("\n.") |> String.to_charlist() |> :erl_scan.string(),
         {:ok, value} <- :erl_parse.parse_term(tokens) do
      {:ok, value}
    else
      _ -> :error
    end
  end
end
