defmodule HotPatch.InstalledRelease do
  @moduledoc """
  A release on a node, as `HotPatch.releases/1` gives it.

    * `:node`
    * `:name`, `:version` - of the release
    * `:status` - OTP's word for it, as `release_handler:which_releases/0` says it on the node:
      `:unpacked` (it lies there), `:current` (it was installed and runs until a restart), `:permanent` (a
      restart boots it), `:old` (it has run before); `nil` where that is not known
    * `:running?` - whether the node runs it
    * `:boots?` - whether the next start boots it, by `start_erl.data`; `nil` where no such file says
    * `:note` - why something is not known, or does not fit together, in words; or `nil`

  Where OTP's release handler does not run, as in most systems of `mix release`, its file `RELEASES` counts; where
  there is none either, the release that the next start boots is `:permanent`, the one that runs `:current`, and of others
  nobody knows. A system without a release has one entry, without a status.
  """

  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @type status :: :unpacked | :current | :permanent | :old
  @type t :: %__MODULE__{
          node: node(),
          name: String.t(),
          version: String.t(),
          status: status() | nil,
          running?: boolean(),
          boots?: boolean() | nil,
          note: String.t() | nil
        }
  @enforce_keys [:node, :name, :version]
  defstruct [:node, :name, :version, :status, :boots?, :note, running?: false]

  @doc "The release in one line."
  @spec line(t()) :: String.t()
  def line(release) do
    said =
      [
        status(release.status),
        if(release.running?, do: "runs"),
        if(release.boots?, do: "the next start boots it"),
        release.note
      ]
      |> Enum.reject(&is_nil/1)
      |> Enum.join(", ")

    Printable.line("#{release.name} #{release.version} on #{release.node}: #{said}")
  end

  @doc "Releases as a table: nodes of which the same is to be said take one row."
  @spec to_table([t()]) :: iodata()
  def to_table(releases) do
    rows =
      for {one, nodes} <- alike(releases) do
        [
          "#{one.name} #{one.version}",
          status(one.status),
          yes_no(one.running?),
          yes_no(one.boots?),
          nodes |> Enum.map(&Atom.to_string/1) |> Table.some(),
          one.note || ""
        ]
      end

    Table.render(["release", "status", "runs", "next start", "nodes", "note"], rows)
  end

  @doc "Each thing that is to be said, with the nodes of which it is: a release that runs first."
  @spec alike([t()]) :: [{t(), [node()]}]
  def alike(releases) do
    releases
    |> Enum.group_by(&%{&1 | node: nil}, & &1.node)
    |> Enum.map(fn {one, nodes} -> {one, Enum.sort(nodes)} end)
    |> Enum.sort_by(fn {one, nodes} -> {one.name, not one.running?, one.version, nodes} end)
  end

  @doc "A status in words."
  @spec status(status() | nil) :: String.t()
  def status(nil), do: "not known"
  def status(status), do: Atom.to_string(status)

  @doc "What is so, is not so, or is not known."
  @spec yes_no(boolean() | nil) :: String.t()
  def yes_no(true), do: "yes"
  def yes_no(false), do: "no"
  def yes_no(nil), do: "not known"

  defimpl Inspect do
    def inspect(release, _options),
      do: "#HotPatch.InstalledRelease<#{HotPatch.InstalledRelease.line(release)}>"
  end

  defimpl String.Chars do
    def to_string(release), do: HotPatch.InstalledRelease.line(release)
  end
end
