defmodule HotPatch.Composition do
  @moduledoc """
  What an archive holds: its files, the modules in them, sizes, digests, applications; what the
  modules take together in a VM (`:load`); and what the one who built it says of it, where it has a
  manifest.

  `inspect/1` is one line, `IO.puts/1` prints a table, `HotPatch.to_json/1` gives JSON.
  """

  alias HotPatch.Composition.Entry
  alias HotPatch.Manifest
  alias HotPatch.Table
  alias HotPatch.Trust

  @type t :: %__MODULE__{
          id: String.t(),
          sha256: <<_::256>>,
          size: pos_integer(),
          files: [Entry.t()],
          load: Entry.load() | nil,
          manifest: HotPatch.Manifest.t() | nil,
          signature: HotPatch.Signature.t() | nil
        }
  @enforce_keys [:id, :sha256, :size, :files]
  defstruct [:id, :sha256, :size, :files, :load, :manifest, :signature]

  @doc "The entries that are Erlang modules."
  @spec modules(t()) :: [Entry.t()]
  def modules(composition), do: Enum.filter(composition.files, & &1.beam)

  @doc """
  The application folders named in the archive's paths, such as `my_app-1.2.0`.
  """
  @spec applications(t()) :: [String.t()]
  def applications(composition) do
    composition.files
    |> Enum.flat_map(fn entry ->
      case Path.split(entry.path) |> Enum.reverse() do
        [_file, "ebin", application | _] -> [application]
        _ -> []
      end
    end)
    |> Enum.uniq()
    |> Enum.sort()
  end

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(composition) do
    rows =
      for entry <- composition.files do
        [
          entry.path,
          Entry.kind_text(entry),
          Table.bytes(entry.size),
          version(entry)
        ]
      end

    [
      "#{composition.id}: #{length(rows)} files, #{length(modules(composition))} modules, ",
      "#{Table.bytes(composition.size)}, in #{Enum.join(applications(composition), ", ")}\n",
      Table.render(["file", "kind", "size", "md5"], rows),
      below(declared(composition))
    ]
  end

  defp below([]), do: []
  defp below(lines), do: for(line <- ["" | lines], do: [line, "\n"])

  @doc false
  # What its manifest says beside the files, and who has signed it, in lines for people.
  @spec declared(t()) :: [String.t()]
  def declared(%{manifest: nil}), do: []

  def declared(%{manifest: manifest} = composition) do
    signer = Trust.signer(composition)
    Manifest.lines(manifest) ++ if(signer, do: ["signed by #{signer}"], else: ["not signed"])
  end

  defp version(%{beam: %{md5: md5}}), do: md5 |> Base.encode16(case: :lower) |> binary_part(0, 12)
  defp version(_entry), do: ""

  defimpl Inspect do
    def inspect(composition, _options) do
      modules = length(HotPatch.Composition.modules(composition))

      "#HotPatch.Composition<#{composition.id} #{length(composition.files)} files #{modules} modules>"
    end
  end

  defimpl String.Chars do
    def to_string(composition) do
      composition |> HotPatch.Composition.to_table() |> IO.iodata_to_binary()
    end
  end
end
