defmodule HotPatch.Build.Split do
  @moduledoc false
  # Two patches in place of one: first the functions that take both the former and the new states, then the rest. The
  # analysis of the whole says whether that is possible, and which modules come first.

  alias HotPatch.Analysis.Finding
  alias HotPatch.Analysis.Steps
  alias HotPatch.Build

  @typedoc "Builds one patch of a request, and writes it where it is told, or nowhere."
  @type make ::
          (request :: map(), out :: Path.t() | nil ->
             {:ok, Build.t()} | {:error, Exception.t()})

  @doc """
  Both patches, the second with its `:first`; one, with a note, where one is enough. `write` writes a patch that is
  built where that is wanted, and gives the path.
  """
  @spec run(
          map(),
          Path.t() | nil,
          make(),
          (binary() -> {:ok, Path.t() | nil} | {:error, Exception.t()})
        ) ::
          {:ok, Build.t()} | {:error, Exception.t()}
  def run(request, out, make, write) do
    with {:ok, whole} <- make.(request, %{out: nil}) do
      case one(whole) do
        nil ->
          both(request, out, make, whole.analysis.steps)

        why ->
          with {:ok, out} <- write.(whole.zip),
               do: {:ok, noted(%{whole | out: out}, ["one patch is made: " <> why])}
      end
    end
  end

  defp one(%{composition: %{manifest: %{upgrade: %{}}}}),
    do: "an upgrade takes the system to its next version at once"

  defp one(whole), do: Steps.one(whole.analysis.steps)

  defp both(request, out, make, steps) do
    name = request["name"]
    first = %{request | "name" => name <> "-1", "modules" => steps.first, "config" => []}

    with {:ok, first} <- part(first, path(out, 1), make),
         follows = %{"name" => name <> "-1", "modules" => brought(first)},
         second = Map.merge(request, %{"name" => name <> "-2", "follows" => follows}),
         {:ok, second} <- part(second, path(out, 2), make) do
      why =
        Steps.lines(steps) ++
          ["apply #{name}-1 to all nodes before #{name}-2, and take #{name}-2 back before it"]

      {:ok, %{noted(second, why) | first: first}}
    end
  end

  # Of what was accepted only that counts which is found in this part.
  defp part(%{"accepted_findings" => []} = request, out, make), do: make.(request, %{out: out})

  defp part(request, out, make) do
    with {:ok, found} <- make.(%{request | "accepted_findings" => []}, %{dry_run: true}) do
      here? = &found_in?(&1, found.analysis.findings)
      make.(Map.update!(request, "accepted_findings", &Enum.filter(&1, here?)), %{out: out})
    end
  end

  defp found_in?(%{"rule" => rule, "module" => module}, findings) do
    text = if module, do: "#{rule}:#{module}", else: rule
    Enum.any?(findings, &Finding.accepted?(&1, [text]))
  end

  defp brought(%{composition: %{manifest: manifest}}) do
    for {module, entry} <- Enum.sort(manifest.modules) do
      %{
        "name" => module,
        "version" => %{"md5" => entry.brings.md5, "vsn" => entry.brings.vsn}
      }
    end
  end

  defp noted(built, notes), do: %{built | notes: built.notes ++ notes}

  defp path(nil, _number), do: nil
  defp path(out, number), do: "#{Path.rootname(out, ".zip")}-#{number}.zip"
end
