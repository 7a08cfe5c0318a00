defmodule HotPatch.Agent.Payload do
  @moduledoc false
  # What a coordinator sends to the agents: an accepted archive, already taken apart, and
  # the release to which the patch is bound. For a rollback there is nothing to send: every
  # node has kept what it had before.

  alias HotPatch.Composition
  alias HotPatch.Manifest
  alias HotPatch.Release
  alias HotPatch.Signature

  @typedoc "The code of `module` under another name, see HotPatch.Swap.Shadow."
  @type shadow :: %{
          module: String.t(),
          name: String.t(),
          bytes: binary(),
          lambdas?: boolean()
        }
  @type t :: %__MODULE__{
          kind: :apply | :rollback,
          patch: String.t(),
          release: Release.t(),
          entries: [Composition.Entry.t()],
          shadows: [shadow()],
          purge: :soft | :force,
          on_load: :restart | :load,
          cumulative?: boolean(),
          manifest: Manifest.t() | nil,
          signature: Signature.t() | nil
        }
  @enforce_keys [:patch, :release, :entries]
  defstruct [
    :patch,
    :release,
    :entries,
    :manifest,
    :signature,
    kind: :apply,
    shadows: [],
    purge: :soft,
    on_load: :restart,
    cumulative?: false
  ]

  @doc "The payload of a patch."
  @spec new(Composition.t(), Release.t(), keyword()) :: t()
  def new(%Composition{} = composition, %Release{} = release, more \\ []) do
    %__MODULE__{
      patch: composition.id,
      release: release,
      entries: in_order(composition),
      shadows: Keyword.get(more, :shadows, []),
      purge: Keyword.get(more, :purge, :soft),
      on_load: Keyword.get(more, :on_load, :restart),
      cumulative?: Keyword.get(more, :cumulative, false),
      manifest: composition.manifest,
      signature: composition.signature
    }
  end

  # That of the manifest, for those that are loaded one by one.
  defp in_order(%Composition{manifest: nil} = composition), do: composition.files

  defp in_order(composition) do
    places = composition.manifest.load_order |> Enum.with_index() |> Map.new()
    last = map_size(places)
    Enum.sort_by(composition.files, &Map.get(places, &1.beam && &1.beam.module, last))
  end

  @doc "What is sent to take a patch back."
  @spec rollback(String.t(), Release.t(), keyword()) :: t()
  def rollback(id, release, more \\ []) do
    %__MODULE__{
      kind: :rollback,
      patch: id,
      release: release,
      entries: [],
      purge: Keyword.get(more, :purge, :soft),
      on_load: Keyword.get(more, :on_load, :restart)
    }
  end
end
