defmodule HotPatch.Agent.Payload do
  @moduledoc false
  # What a coordinator sends to the agents: an accepted archive, already taken apart, and
  # the release to which the patch is bound.

  alias HotPatch.Composition
  alias HotPatch.Release

  @type t :: %__MODULE__{
          patch: String.t(),
          release: Release.t(),
          entries: [Composition.Entry.t()]
        }
  @enforce_keys [:patch, :release, :entries]
  defstruct [:patch, :release, :entries]

  @doc "The payload of a patch."
  @spec new(Composition.t(), Release.t()) :: t()
  def new(%Composition{} = composition, %Release{} = release) do
    %__MODULE__{patch: composition.id, release: release, entries: composition.files}
  end
end
