defmodule Mix.Tasks.HotPatch.Password do
  @shortdoc "Makes a password hash, or a token, for the console"

  @moduledoc """
  Makes what the configuration of the console holds in place of a password or a token.

      mix hot_patch.password            # asks for a password twice and prints its hash
      mix hot_patch.password --token    # prints a random token, and its digest

  A password has at least 12 characters. With `--stdin` it is the first line of the standard input.
  """

  use Mix.Task

  alias HotPatch.Console.Password

  @shortest 12

  @impl Mix.Task
  def run(arguments) do
    {:ok, _} = Application.ensure_all_started(:crypto)

    case OptionParser.parse(arguments, strict: [token: :boolean, stdin: :boolean]) do
      {[token: true], [], []} -> token()
      {[stdin: true], [], []} -> password(line(IO.gets("")))
      {[], [], []} -> password(ask())
      _wrong -> Mix.raise("Usage: mix hot_patch.password [--token | --stdin]")
    end
  end

  defp token do
    {token, digest} = Password.token()

    Mix.shell().info("""
    token:  #{token}
    config: %{name: "...", role: :admin, sha256: "#{digest}"}

    The token is not kept anywhere: put it where the script finds it now.\
    """)
  end

  defp password(password) do
    if String.length(password) < @shortest,
      do: Mix.raise("a password for the console has at least #{@shortest} characters")

    Mix.shell().info(Password.hash(password))
  end

  defp ask do
    password = silently("Password: ")
    if silently("Once more: ") != password, do: Mix.raise("the two are not the same")
    password
  end

  # What is typed is not shown, where the terminal can do that.
  defp silently(prompt) do
    _ = :io.setopts(:standard_io, echo: false)
    typed = line(IO.gets(prompt))
    _ = :io.setopts(:standard_io, echo: true)
    IO.puts("")
    typed
  end

  defp line(text) when is_binary(text), do: String.trim_trailing(text, "\n")
  defp line(_end_of_input), do: Mix.raise("no password was given")
end
