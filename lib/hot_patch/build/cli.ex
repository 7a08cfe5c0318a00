defmodule HotPatch.Build.CLI do
  @moduledoc false
  # What the mix tasks have in common: options, help, messages, exit codes.

  alias HotPatch.Support.Printable

  # A build that takes less than this shows nothing.
  @patience_ms 1_000

  @doc """
  Runs a task. `work` gets the options, with what is no option as `:arguments`, and gives what
  is to be printed, an error, or `{:usage, text}`.
  """
  @spec task(String.t(), [String.t()], keyword(), (keyword() -> term())) :: :ok
  def task(name, args, told, work) do
    [help: help, switches: switches] = told
    {options, arguments, wrong} = OptionParser.parse(args, strict: switches)

    cond do
      options[:help] -> print(help)
      wrong != [] -> usage(name, "#{wrong(wrong)} is no option of this task")
      arguments != [] and not takes_arguments?(name) -> usage(name, "what is #{hd(arguments)}?")
      true -> options |> with_arguments(arguments) |> work.() |> done(name)
    end
  end

  defp takes_arguments?(name), do: name in ["sign", "keygen"]

  defp with_arguments(options, []), do: options
  defp with_arguments(options, arguments), do: Keyword.put(options, :arguments, arguments)

  defp wrong([{option, nil} | _]), do: option
  defp wrong([{option, value} | _]), do: "#{option} #{value}"

  defp done({:ok, result}, _name), do: print(to_string(result))
  defp done({:usage, text}, name), do: usage(name, text)

  defp done({:error, %HotPatch.Error{reason: :invalid_option} = error}, name),
    do: usage(name, Exception.message(error))

  defp done({:error, error}, _name), do: fail(Exception.message(error), 1)

  @spec usage(String.t(), String.t()) :: no_return()
  defp usage(name, text) do
    fail("#{Printable.line(text)}\nmix hot_patch.#{name} --help says more", 2)
  end

  @spec fail(String.t(), 1 | 2) :: no_return()
  defp fail(text, code) do
    IO.puts(:stderr, Printable.lines(text))
    exit({:shutdown, code})
  end

  defp print(text), do: text |> String.trim_trailing() |> Printable.lines() |> IO.puts()

  @doc "Shows how far a build has come, once it takes longer than a second."
  @spec progress(non_neg_integer(), non_neg_integer()) :: :ok
  def progress(done, total) do
    now = System.monotonic_time(:millisecond)
    began = Process.get(:hot_patch_began) || now
    Process.put(:hot_patch_began, began)

    if now - began >= @patience_ms do
      IO.write(:stderr, "\r#{done} of #{total} files compared#{if done == total, do: "\n"}")
    else
      :ok
    end
  end
end
