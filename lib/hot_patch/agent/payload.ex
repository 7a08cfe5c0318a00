defmodule HotPatch.Agent.Payload do
  @moduledoc false
  # What a coordinator sends to the agents: an accepted archive, already taken apart, and
  # the release to which the patch is bound.

  alias HotPatch.Composition
  alias HotPatch.Release

  @typedoc "The code of `module` under another name, see HotPatch.Swap.Shadow."
  @type shadow :: %{
          module: String.t(),
          name: String.t(),
          bytes: binary(),
          lambdas?: boolean()
        }
  @type t :: %__MODULE__{
          patch: String.t(),
          release: Release.t(),
          entries: [Composition.Entry.t()],
          shadows: [shadow()],
          purge: :soft | :force,
          on_load: :restart | :load
        }
  @enforce_keys [:patch, :release, :entries]
  defstruct [:patch, :release, :entries, shadows: [], purge: :soft, on_load: :restart]

  @doc "The payload of a patch."
  @spec new(Composition.t(), Release.t(), keyword()) :: t()
  def new(%Composition{} = composition, %Release{} = release, more \\ []) do
    %__MODULE__{
      patch: composition.id,
      release: release,
      entries: composition.files,
      shadows: Keyword.get(more, :shadows, []),
      purge: Keyword.get(more, :purge, :soft),
      on_load: Keyword.get(more, :on_load, :restart)
    }
  end
end
