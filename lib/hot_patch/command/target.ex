defmodule HotPatch.Command.Target do
  @moduledoc false
  # The cluster that a command of a terminal works on, however it is reached: through one of its nodes, or through the
  # JSON interface of its page.

  alias HotPatch.Build.Running
  alias HotPatch.Command.Target.NodeTarget
  alias HotPatch.Command.Target.WebTarget

  @type t :: NodeTarget.t() | WebTarget.t()

  @typedoc "What went wrong, in words: first what happened, then the report of it, where there is one."
  @type failure :: {String.t(), String.t() | nil}

  @typedoc "How an apply ended: its report as text, and whether all of it runs on every node as it should."
  @type applied :: %{text: String.t(), everywhere?: boolean()}

  @doc "How to ask for the build that runs there."
  @callback source(t()) :: Running.source()

  @doc "The release that runs there, as `HotPatch.Build` takes it for `for:`."
  @callback release(t()) :: {:ok, String.t()} | {:error, failure()}

  @doc "Takes a patch in; gives its id."
  @callback upload(t(), zip :: binary(), name :: String.t()) ::
              {:ok, String.t()} | {:error, failure()}

  @doc "Forgets a patch."
  @callback delete(t(), id :: String.t()) :: :ok | {:error, failure()}

  @doc "The plan of a patch as text."
  @callback plan(t(), id :: String.t(), keyword()) :: {:ok, String.t()} | {:error, failure()}

  @doc "Applies a patch, with bars where there is a terminal."
  @callback apply(t(), id :: String.t(), keyword(), bars? :: boolean()) ::
              {:ok, applied()} | {:error, failure()}

  @doc "How a release is made permanent, as something to type."
  @callback permanent_line(t(), version :: String.t()) :: String.t()

  @doc "How a patch is taken back, as something to type."
  @callback rollback_line(t(), id :: String.t()) :: String.t()

  @doc """
  Opens the way to a cluster, by the name of a node or the address of its page. `options` are those of the
  command line: `:cookie` and `:cacert`.
  """
  @spec open(String.t(), keyword()) :: {:ok, t()} | {:error, String.t()}
  def open(to, options) do
    if to =~ ~r"\Ahttps?://"i,
      do: WebTarget.open(to, System.get_env("HOT_PATCH_TOKEN"), options[:cacert]),
      else: NodeTarget.open(to, options[:cookie])
  end
end
