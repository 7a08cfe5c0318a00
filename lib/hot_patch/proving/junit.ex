defmodule HotPatch.Proving.JUnit do
  @moduledoc false
  # The result as the XML that CI systems know from JUnit: a suite with a case for each step.

  alias HotPatch.Proving
  alias HotPatch.Support.Printable

  @doc "The text."
  @spec text(Proving.t()) :: String.t()
  def text(%{steps: steps} = proving) do
    count = fn outcome -> Enum.count(steps, &(&1.outcome == outcome)) end

    IO.iodata_to_binary([
      ~s(<?xml version="1.0" encoding="UTF-8"?>\n),
      ~s(<testsuite name="hot_patch #{escaped(proving.patch || "patch")}" tests="#{length(steps)}"),
      ~s( failures="#{count.(:failed)}" skipped="#{count.(:skipped)}" time="#{seconds(proving.duration_us)}">\n),
      Enum.map(steps, &step/1),
      "</testsuite>\n"
    ])
  end

  defp step(step) do
    [
      ~s(  <testcase classname="hot_patch.rehearse" name="#{step.name}" time="#{seconds(step.us)}">),
      inside(step),
      "</testcase>\n"
    ]
  end

  defp inside(%{outcome: :ok, text: ""}), do: []
  defp inside(%{outcome: :ok, text: text}), do: ["<system-out>", escaped(text), "</system-out>"]
  defp inside(%{outcome: :skipped}), do: "<skipped/>"
  defp inside(%{text: text}), do: ~s(<failure message="#{escaped(text)}"/>)

  defp seconds(us), do: :erlang.float_to_binary(us / 1_000_000, decimals: 3)

  defp escaped(text) do
    text
    |> Printable.line()
    |> String.replace("&", "&amp;")
    |> String.replace("<", "&lt;")
    |> String.replace(">", "&gt;")
    |> String.replace("\"", "&quot;")
  end
end
