defmodule HotPatch.Support.Cause do
  @moduledoc false
  # Why code of the user's failed, in one line that a person can act on: the kind of the failure and
  # its inner cause. OTP tells what is wrong with which argument only beside the reason, for those
  # who ask with the stack, and in several lines.

  # Values are states as like as not: a line is for a reader, not for all that they hold.
  @longest 400

  @doc "What was caught: `kind` is `:error`, `:exit` or `:throw`."
  @spec of(:error | :exit | :throw, term(), Exception.stacktrace()) :: String.t()
  def of(:error, reason, stack) do
    case Exception.normalize(:error, reason, stack) do
      %ErlangError{original: original} = error -> erlang_error(Exception.message(error), original)
      error -> error |> Exception.message() |> one_line()
    end
  end

  def of(:throw, value, _stack), do: "throw #{short(value)}"
  def of(:exit, reason, _stack), do: "exit #{of_exit(reason)}"

  @doc "The reason with which a process ended, as its monitors are told."
  @spec of_exit(term()) :: String.t()
  def of_exit({{:nocatch, value}, stack}) when is_list(stack), do: of(:throw, value, stack)

  def of_exit({reason, [{_, _, _, location} | _] = stack}) when is_list(location),
    do: of(:error, reason, stack)

  def of_exit(%{__exception__: true} = error), do: error |> Exception.message() |> one_line()
  def of_exit(reason), do: short(reason)

  # One that says no more than its reason is that reason; where OTP knows more it is in the lines
  # behind the first.
  defp erlang_error(message, original) do
    case String.split(message, "\n", parts: 2) do
      [_what, more] -> one_line("#{short(original)}: #{more}")
      [_what] -> short(original)
    end
  end

  defp one_line(text) do
    text
    |> String.split("\n")
    |> Enum.map(&(&1 |> String.trim() |> String.replace_prefix("* ", "")))
    |> Enum.reject(&(&1 == ""))
    |> Enum.join(" ")
    |> cut()
  end

  defp cut(text) do
    if String.length(text) > @longest, do: String.slice(text, 0, @longest) <> "...", else: text
  end

  defp short(term), do: inspect(term, limit: 20, printable_limit: 200)
end
