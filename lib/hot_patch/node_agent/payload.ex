defmodule HotPatch.NodeAgent.Payload do
  @moduledoc false
  # What a coordinator sends to the agents: an accepted archive, already taken apart, and
  # the release to which the patch is bound. For a rollback there is nothing to send: every
  # node has kept what it had before.

  alias HotPatch.Composition
  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoaderTrial
  alias HotPatch.Options
  alias HotPatch.Release
  alias HotPatch.Signature
  alias HotPatch.Store.Blobs

  @typedoc "The code of `module` under another name, see HotPatch.Swap.Shadow."
  @type shadow :: %{
          module: String.t(),
          name: String.t(),
          bytes: binary(),
          lambdas?: boolean(),
          effect: String.t() | nil
        }
  @typedoc """
  A key of an application's environment and its value: as a caller has given it, or as the text
  of a manifest, of which no atom is made before the patch is accepted.
  """
  @type setting :: {atom(), atom(), term()} | {String.t(), String.t(), {:text, String.t()}}

  @typedoc "`evaluate?`: whether code of the archive may be run to see what an upgrade configures."
  @type t :: %__MODULE__{
          unquote_splicing(for({field, _default, type} <- Options.fields(), do: {field, type})),
          kind: :apply | :rollback,
          undoes: [String.t()] | nil,
          patch: String.t(),
          release: Release.t(),
          entries: [Composition.Entry.t()],
          shadows: [shadow()],
          config: [setting()],
          instructions: %{up: [Instructions.one()], down: [Instructions.one()]},
          manifest: Manifest.t() | nil,
          signature: Signature.t() | nil,
          leads_from: String.t() | nil,
          evaluate?: boolean(),
          loader: LoaderTrial.found() | nil,
          load: Composition.Entry.load() | nil
        }
  @enforce_keys [:patch, :release, :entries]
  defstruct [
    :patch,
    :release,
    :entries,
    :manifest,
    :signature,
    :loader,
    :load,
    :leads_from,
    :undoes
    | [kind: :apply, evaluate?: true, shadows: [], config: [], instructions: %{up: [], down: []}] ++
        for({field, default, _type} <- Options.fields(), do: {field, default})
  ]

  @doc "The payload of a patch; `more` are fields, see `HotPatch.Options.payload/2`."
  @spec new(Composition.t(), Release.t(), keyword()) :: t()
  def new(%Composition{} = composition, %Release{} = release, more \\ []) do
    payload = %__MODULE__{
      patch: composition.id,
      release: release,
      entries: in_order(composition),
      instructions: Instructions.none(),
      load: composition.load,
      manifest: composition.manifest,
      signature: composition.signature
    }

    struct!(payload, Options.payload(:apply, %{}) ++ more)
  end

  # That of the manifest, for those that are loaded one by one.
  defp in_order(%Composition{manifest: nil} = composition), do: composition.files

  defp in_order(composition) do
    places = composition.manifest.load_order |> Enum.with_index() |> Map.new()
    last = map_size(places)
    Enum.sort_by(composition.files, &Map.get(places, &1.beam && &1.beam.module, last))
  end

  @doc "What tells patches apart by what they carry, whatever they are called: of their paths and digests."
  @spec content(%{:entries => [%{path: Path.t(), sha256: binary()}], optional(atom()) => term()}) ::
          binary()
  def content(%{entries: entries}) do
    lines = for entry <- Enum.sort_by(entries, & &1.path), do: [entry.path, 0, entry.sha256]
    :crypto.hash(:sha256, lines)
  end

  @doc "A payload without its bytes, each piece of which it names by its digest, and the pieces."
  @spec strip(t()) :: {t(), %{Blobs.digest() => binary()}}
  def strip(%__MODULE__{} = payload) do
    {entries, pieces} = Enum.map_reduce(payload.entries, %{}, &take_out/2)
    {shadows, pieces} = Enum.map_reduce(payload.shadows, pieces, &take_out/2)
    {%{payload | entries: entries, shadows: shadows}, pieces}
  end

  defp take_out(%{bytes: bytes} = part, pieces) when is_binary(bytes) do
    digest = :crypto.hash(:sha256, bytes)
    {%{part | bytes: {:piece, digest}}, Map.put(pieces, digest, bytes)}
  end

  defp take_out(part, pieces), do: {part, pieces}

  @doc "The digests of the pieces that a stripped payload needs."
  @spec digests(t()) :: [Blobs.digest()]
  def digests(%__MODULE__{} = payload),
    do: for(%{bytes: {:piece, digest}} <- payload.entries ++ payload.shadows, do: digest)

  @doc "A stripped payload with its pieces in place again."
  @spec fill(t(), %{Blobs.digest() => binary()}) :: t()
  def fill(%__MODULE__{} = payload, pieces) do
    %{
      payload
      | entries: Enum.map(payload.entries, &put_back(&1, pieces)),
        shadows: Enum.map(payload.shadows, &put_back(&1, pieces))
    }
  end

  defp put_back(%{bytes: {:piece, digest}} = part, pieces),
    do: %{part | bytes: Map.fetch!(pieces, digest)}

  defp put_back(part, _pieces), do: part

  @doc """
  What is sent to take a patch back. Each node takes the way by which the patch came there, as far as
  `transition` and `on_load` are not given. With `undoes` it is meant only where one of these operations
  has brought the patch. Of an upgrade that came by restarts no node has a record: `release` is where it started, and
  with `leads_from` nodes that run that version are restarted into it.
  """
  @spec rollback(String.t(), Release.t(), keyword()) :: t()
  def rollback(id, release, more \\ []) do
    payload = %__MODULE__{kind: :rollback, patch: id, release: release, entries: []}
    struct!(payload, more)
  end
end
