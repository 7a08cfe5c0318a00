defmodule HotPatch.Release do
  @moduledoc """
  The identity and version of the running system, to which patches are bound.

  In a release it is the release's own name and version. A system started by `mix run` or
  plain `erl` has none, so it is named `unreleased`, with the versions of the started
  applications that are neither OTP's, Elixir's nor HotPatch as its version: that of a node
  that was attached is the same as it would be with HotPatch built in. It can be set with `config :hot_patch, release: {"name", "version"}`.
  """

  alias HotPatch.SystemLibrary

  @type t :: %__MODULE__{name: String.t(), version: String.t()}
  @enforce_keys [:name, :version]
  defstruct [:name, :version]

  @unreleased "unreleased"
  @nothing "none"

  # More applications than this are told by a digest: a version should fit a line.
  @spelled_out 3

  @doc """
  The release of this node.

      iex> %HotPatch.Release{name: name} = HotPatch.Release.current()
      iex> is_binary(name)
      true
  """
  @spec current() :: t()
  def current do
    case Application.get_env(:hot_patch, :release) do
      {name, version} when is_binary(name) and is_binary(version) ->
        %__MODULE__{name: name, version: version}

      nil ->
        booted(:init.script_id())
    end
  end

  @doc "The folder of the running release, or `nil` when this is no release."
  @spec root() :: Path.t() | nil
  def root do
    with false <- otp_itself?(:init.script_id()),
         root when is_list(root) <- :code.root_dir() do
      System.get_env("RELEASE_ROOT") || List.to_string(root)
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

  @doc "A release in words, also where no protocol knows of it: on a node that was attached."
  @spec text(t()) :: String.t()
  def text(%__MODULE__{name: name, version: version}), do: "#{name} #{version}"

  # Boot scripts of OTP itself are all called something with OTP in it:
  # "Erlang/OTP", "OTP  APN 181 01".
  defp otp_itself?({name, _version}), do: String.contains?(to_string(name), "OTP")

  defp booted({name, version} = id) do
    if otp_itself?(id) do
      %__MODULE__{name: @unreleased, version: application_versions()}
    else
      %__MODULE__{name: to_string(name), version: to_string(version)}
    end
  end

  defp application_versions do
    versions =
      for {app, _description, vsn} <- Application.started_applications(),
          not SystemLibrary.application?(Atom.to_string(app)),
          do: "#{app}-#{vsn}"

    case Enum.sort(versions) do
      [] -> @nothing
      few when length(few) <= @spelled_out -> Enum.join(few, "+")
      many -> digest(many)
    end
  end

  defp digest(versions) do
    hash = :crypto.hash(:sha256, Enum.join(versions, "+"))
    "#{length(versions)}-applications-" <> binary_part(Base.encode16(hash, case: :lower), 0, 12)
  end

  defimpl String.Chars do
    def to_string(release), do: release |> HotPatch.Release.text() |> HotPatch.Printable.line()
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Printable, as: :inspected
  end
end
