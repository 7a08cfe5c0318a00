defmodule HotPatch.Test.Tools do
  @moduledoc false
  # Programs that tests run where they are there, and that no machine needs for the tests.

  @doc "Why a test of a tool is skipped: for `@tag skip:`; false where the tool is there. `perl:Name` is a module of Perl."
  @spec lacking(String.t()) :: String.t() | false
  def lacking(tool) do
    if here?(tool), do: false, else: "#{tool} is not on this machine"
  end

  defp here?("perl:" <> module) do
    System.find_executable("perl") != nil and
      match?({_, 0}, System.cmd("perl", ["-M" <> module, "-e", "1"], stderr_to_stdout: true))
  end

  defp here?(tool), do: System.find_executable(tool) != nil
end
