defmodule HotPatch.Release do
  @moduledoc """
  The identity and version of the running system, to which patches are bound.

  It is found in this order:

    * `config :hot_patch, release: {"name", "version"}`, or the option `release:` of
      `HotPatch.attach/2`, says it.
    * In a release it is the release's own name and version: that of the release that an upgrade has made
      current, else that which OTP's `release_handler` has installed, else that of the boot script.
    * A system started by `mix run` or plain `erl` has no release. It is named `unreleased`, and its
      version is made of the applications on the code path that are neither OTP's nor Elixir's nor
      HotPatch, with their versions. It is read once in the life of a VM: starting or stopping
      applications does not change it.
    * A node that has loaded no application of any system, such as an operator's own, is
      `unreleased none`.

  `HotPatch.nodes/0` shows it for every node.
  """

  alias HotPatch.Host.ReleaseSource
  alias HotPatch.Host.UpgradedRelease
  alias HotPatch.Support.FileName

  @type t :: %__MODULE__{name: String.t(), version: String.t()}
  @enforce_keys [:name, :version]
  defstruct [:name, :version]

  @unreleased "unreleased"
  @nothing "none"

  @doc """
  The release of this node.

      iex> %HotPatch.Release{name: name} = HotPatch.Release.current()
      iex> is_binary(name)
      true
  """
  @spec current() :: t()
  def current do
    release = identity()
    if unreleased?(release) and ReleaseSource.idle?(), do: none(), else: release
  end

  @doc """
  What patches are recorded under on this node. That is `current/0`, but for a system without a release
  of which nothing is loaded yet: at its start that is known already.
  """
  @spec identity() :: t()
  def identity do
    case ReleaseSource.configured() || UpgradedRelease.get() || ReleaseSource.installed() ||
           ReleaseSource.booted() do
      {name, version} -> %__MODULE__{name: name, version: version}
      nil -> %__MODULE__{name: @unreleased, version: ReleaseSource.applications() || @nothing}
    end
  end

  @doc "Whether the running release was installed by OTP's `release_handler` since the VM was started."
  @spec installed?() :: boolean()
  def installed?,
    do:
      ReleaseSource.configured() == nil and UpgradedRelease.get() == nil and
        ReleaseSource.installed() not in [nil, ReleaseSource.booted()]

  @doc "Whether OTP's `release_handler` is at work on this node, so that its release may be about to change."
  @spec changing?() :: boolean()
  defdelegate changing?(), to: ReleaseSource

  @doc "The folder of the running release, or `nil` when this is no release."
  @spec root() :: Path.t() | nil
  def root do
    with {_name, _version} <- ReleaseSource.booted(),
         root when is_list(root) <- :code.root_dir() do
      FileName.from_environment("RELEASE_ROOT") || FileName.to_binary(root)
    else
      _ -> nil
    end
  end

  @doc """
  Whether a node runs no system at all, as an operator's own node: patches are bound to nothing
  that it runs.
  """
  @spec none?(t()) :: boolean()
  def none?(%__MODULE__{name: name, version: version}),
    do: name == @unreleased and version == @nothing

  @doc "What a node runs that runs no system."
  @spec none() :: t()
  def none, do: %__MODULE__{name: @unreleased, version: @nothing}

  @doc "Whether it is the identity of a system without a release."
  @spec unreleased?(t()) :: boolean()
  def unreleased?(%__MODULE__{name: name}), do: name == @unreleased

  @doc "A release in words, also where no protocol knows of it: on a node that was attached."
  @spec text(t()) :: String.t()
  def text(%__MODULE__{name: name, version: version}), do: "#{name} #{version}"

  @doc "A release as it is kept on disk, where no struct is."
  @spec to_map(t()) :: %{name: String.t(), version: String.t()}
  def to_map(%__MODULE__{name: name, version: version}), do: %{name: name, version: version}

  @doc "The release of what `to_map/1` gives, and of the structs of earlier records."
  @spec from_map(%{:name => String.t(), :version => String.t(), optional(atom()) => term()}) ::
          t()
  def from_map(%{name: name, version: version}), do: %__MODULE__{name: name, version: version}

  defimpl String.Chars do
    def to_string(release),
      do: release |> HotPatch.Release.text() |> HotPatch.Support.Printable.line()
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
