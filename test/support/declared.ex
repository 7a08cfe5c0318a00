defmodule HotPatch.Test.Declared do
  @moduledoc false
  # Archives with a manifest that says what the test wants, made by hand.

  import HotPatch.Test.Archives

  alias HotPatch.Archive

  @doc """
  A zip of files with a manifest. `more` goes into it as it is; `add` names modules that are new,
  `removed` files that go, as pairs of path and present bytes.
  """
  @spec zip([{Path.t(), binary()}], map(), keyword()) :: binary()
  def zip(files, more, options \\ []) do
    {:ok, composition} = Archive.read(zip(files), "fix")
    added = Keyword.get(options, :add, [])

    manifest =
      Map.merge(
        %{
          "schema" => 1,
          "name" => "fix",
          "files" => Enum.map(composition.files, &entry(&1, added)),
          "removed" => Enum.map(Keyword.get(options, :removed, []), &removed/1)
        },
        more
      )

    {:ok, json} = HotPatch.JSON.encode(manifest)
    zip([{"hot_patch.json", json} | files])
  end

  defp entry(%{beam: nil} = entry, _added),
    do: %{"path" => entry.path, "sha256" => hex(entry.sha256)}

  defp entry(%{beam: beam} = entry, added) do
    %{
      "path" => entry.path,
      "sha256" => hex(entry.sha256),
      "module" => %{
        "name" => beam.module,
        "change" => if(beam.module in added, do: "add", else: "any"),
        "brings" => version(beam)
      }
    }
  end

  defp removed({path, bytes}) do
    {:ok, %{files: [%{beam: beam}]}} = Archive.read(zip([{path, bytes}]), "removed")

    %{
      "path" => path,
      "module" => %{"name" => beam.module, "replaces" => version(beam)}
    }
  end

  defp version(beam), do: %{"md5" => hex(beam.md5), "vsn" => vsn(beam.vsn)}
  defp vsn(nil), do: nil
  defp vsn(etf), do: etf |> :erlang.binary_to_term() |> HotPatch.Support.VsnText.text()
  defp hex(bytes), do: Base.encode16(bytes, case: :lower)
end
