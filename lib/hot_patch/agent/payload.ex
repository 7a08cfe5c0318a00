defmodule HotPatch.Agent.Payload do
  @moduledoc false
  # What a coordinator sends to the agents: an accepted archive, already taken apart, and
  # the release to which the patch is bound. For a rollback there is nothing to send: every
  # node has kept what it had before.

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
          kind: :apply | :rollback,
          patch: String.t(),
          release: Release.t(),
          entries: [Composition.Entry.t()],
          shadows: [shadow()],
          purge: :soft | :force,
          on_load: :restart | :load,
          cumulative?: boolean()
        }
  @enforce_keys [:patch, :release, :entries]
  defstruct [
    :patch,
    :release,
    :entries,
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
      entries: composition.files,
      shadows: Keyword.get(more, :shadows, []),
      purge: Keyword.get(more, :purge, :soft),
      on_load: Keyword.get(more, :on_load, :restart),
      cumulative?: Keyword.get(more, :cumulative, false)
    }
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
