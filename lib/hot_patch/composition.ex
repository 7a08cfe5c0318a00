defmodule HotPatch.Composition do
  @moduledoc """
  What an archive holds: its files, the modules in them, sizes, digests, applications; what the
  modules take together in a VM (`:load`); and what the one who built it says of it, where it has a
  manifest.

  `inspect/1` is one line, `IO.puts/1` prints a table, `HotPatch.to_json/1` gives JSON.

  `:left_out` names what the Mac's Archive Utility adds to an archive (`__MACOSX/`, `._*`, `.DS_Store`): it is checked as
  all else, and is no part of the patch.
  """

  alias HotPatch.Composition.Entry
  alias HotPatch.Host.BootFile
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Host.Trust
  alias HotPatch.Manifest
  alias HotPatch.Support.Hex
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table
  alias HotPatch.Upgrade

  @type t :: %__MODULE__{
          id: String.t(),
          sha256: <<_::256>>,
          size: pos_integer(),
          files: [Entry.t()],
          load: Entry.load() | nil,
          left_out: [String.t()],
          manifest: HotPatch.Manifest.t() | nil,
          signature: HotPatch.Signature.t() | nil
        }
  @enforce_keys [:id, :sha256, :size, :files]
  defstruct [:id, :sha256, :size, :files, :load, :manifest, :signature, left_out: []]

  @doc "The entries that are Erlang modules."
  @spec modules(t()) :: [Entry.t()]
  def modules(composition), do: Enum.filter(composition.files, & &1.beam)

  @doc """
  The application folders named in the archive's paths, such as `my_app-1.2.0`.
  """
  @spec applications(t()) :: [String.t()]
  def applications(composition) do
    folders =
      for entry <- composition.files,
          folder = folder(entry.path) || above_priv(Path.split(entry.path)),
          uniq: true,
          do: folder

    Enum.sort(folders)
  end

  defp above_priv([folder, "priv", _file | _]), do: folder
  defp above_priv([_folder | below]), do: above_priv(below)
  defp above_priv([]), do: nil

  @doc """
  The files that every node refuses, as it is known from their paths alone, each with the reason: what
  systems boot by, and applications of Erlang, Elixir and HotPatch. An upgrade brings boot files, and of these
  applications what is new to the system; for those that it changes there is one entry each, with their folder.
  """
  @spec refused(t()) :: [{path :: String.t(), reason :: String.t()}]
  def refused(%{manifest: %Manifest{upgrade: %Upgrade{} = upgrade}}) do
    for application <- Upgrade.applications(upgrade, :upgraded),
        SystemLibrary.application?(application.name),
        do: {Upgrade.Application.folder(application), Upgrade.Application.not_live(application)}
  end

  def refused(composition) do
    for entry <- composition.files, reason = refusal(entry), do: {entry.path, reason}
  end

  defp refusal(%Entry{path: path} = entry) do
    kind = if entry.kind == :other, do: BootFile.kind(path)
    folder = folder(path)
    application = folder && folder |> String.split("-") |> hd()

    cond do
      kind ->
        BootFile.reason(path, kind)

      application && SystemLibrary.application?(application) ->
        SystemLibrary.reason(path, application)

      true ->
        nil
    end
  end

  # That of the application whose code is in it.
  defp folder(path) do
    case path |> Path.split() |> Enum.reverse() do
      [_file, "ebin", folder | _] -> folder
      _ -> nil
    end
  end

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(composition) do
    {shown, rest} = Enum.split_with(composition.files, &telling?(&1, composition.manifest))

    rows =
      for entry <- shown do
        [
          entry.path,
          Entry.kind_text(entry),
          Table.bytes(entry.size),
          version(entry)
        ]
      end

    [
      "#{Printable.line(composition.id)}: #{length(composition.files)} files, #{length(modules(composition))} modules, ",
      "#{Table.bytes(composition.size)}#{within(applications(composition))}\n",
      Table.render(["file", "kind", "size", "md5"], rows),
      below(unchanged(rest)),
      below(for({_path, reason} <- refused(composition), do: "refused by every node: #{reason}")),
      below(left_out(composition)),
      below(declared(composition))
    ]
  end

  # An upgrade brings folders whole.
  defp telling?(%Entry{beam: %{module: name}}, %Manifest{upgrade: %Upgrade{}} = manifest),
    do: not Manifest.unchanged?(manifest, name)

  defp telling?(%Entry{kind: :other, path: path}, %Manifest{upgrade: %Upgrade{}}),
    do: Path.extname(path) != ".beam"

  defp telling?(_entry, _manifest), do: true

  defp unchanged([]), do: []

  defp unchanged(files),
    do: [
      "and #{Table.count(length(files), "file", "files")} of modules whose code stays as it is"
    ]

  defp within([]), do: ""
  defp within(folders), do: ", in #{Printable.line(Enum.join(folders, ", "))}"

  @doc "What is left out of it, in a line for people."
  @spec left_out(t()) :: [String.t()]
  def left_out(%{left_out: []}), do: []

  def left_out(%{left_out: paths}),
    do: ["left out, as the Mac has added it: #{Enum.join(paths, ", ")}"]

  defp below([]), do: []
  defp below(lines), do: for(line <- ["" | lines], do: [Printable.line(line), "\n"])

  @doc false
  # What its manifest says beside the files, and who has signed it, in lines for people.
  @spec declared(t()) :: [String.t()]
  def declared(%{manifest: nil}), do: []

  def declared(%{manifest: manifest} = composition) do
    signer = Trust.signer(composition)
    Manifest.lines(manifest) ++ if(signer, do: ["signed by #{signer}"], else: ["not signed"])
  end

  defp version(%{beam: %{md5: md5}}), do: md5 |> Hex.encode() |> binary_part(0, 12)
  defp version(_entry), do: ""

  defimpl Inspect do
    def inspect(composition, _options) do
      modules = length(HotPatch.Composition.modules(composition))

      HotPatch.Support.Printable.line(
        "#HotPatch.Composition<#{composition.id} #{length(composition.files)} files #{modules} modules>"
      )
    end
  end

  defimpl String.Chars do
    def to_string(composition) do
      composition |> HotPatch.Composition.to_table() |> HotPatch.Support.Printable.lines()
    end
  end
end
