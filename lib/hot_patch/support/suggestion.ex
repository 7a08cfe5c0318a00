defmodule HotPatch.Support.Suggestion do
  @moduledoc false
  # What somebody may have meant who has written something that does not exist.

  # Of Jaro, as Elixir itself takes it: words with a letter missing, added or exchanged are nearer.
  @near 0.77

  @doc """
  A question to be put behind a message, or nothing.

      iex> HotPatch.Support.Suggestion.question("biling", ["billing", "rates"])
      "; did you mean billing?"
      iex> HotPatch.Support.Suggestion.question("biling", ["rates"])
      ""
  """
  @spec question(String.t(), [String.t()]) :: String.t()
  def question(word, known) do
    case nearest(word, known) do
      nil -> ""
      name -> "; did you mean #{name}?"
    end
  end

  # The one that is nearest, if it is near enough.
  defp nearest(word, known) do
    known
    |> Enum.map(&{String.jaro_distance(word, &1), &1})
    |> Enum.filter(fn {near, _name} -> near >= @near end)
    |> Enum.max(fn -> {0, nil} end)
    |> elem(1)
  end
end
