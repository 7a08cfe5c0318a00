defmodule HotPatch.Patch do
  @moduledoc """
  An uploaded archive.

    * `:id` - its name and the first 12 hex digits of its SHA-256
    * `:name`, `:sha256`, `:size` - of the archive; size in bytes
    * `:files`, `:modules` - how many it holds
    * `:release` - the release to which it is bound
    * `:upgrade` - the version to which an upgrade takes that release, or `nil` of a patch
    * `:uploaded_at`, `:by` - when and by whom
    * `:signed_by` - name and id of the key, or `nil`
    * `:follows` - the patch that has to be in force before it: `:name`, and the `:modules` that it brings; or `nil`
    * `:kept_on` - nodes that have the archive
    * `:applied_on` - nodes on which it is applied
    * `:state` - `:uploaded`, `:applied` (on at least one node), `:rolled_back`, or `:retired` (made
      for another version of the release that runs now, or for one that was installed again
      since: it cannot be applied until it is uploaded again)
  """

  alias HotPatch.Release

  @type state :: :uploaded | :applied | :rolled_back | :retired
  @type t :: %__MODULE__{
          id: String.t(),
          name: String.t(),
          sha256: <<_::256>>,
          size: pos_integer(),
          files: non_neg_integer(),
          modules: non_neg_integer(),
          release: Release.t(),
          upgrade: String.t() | nil,
          uploaded_at: DateTime.t(),
          by: String.t(),
          signed_by: String.t() | nil,
          follows: %{name: String.t(), modules: [String.t()]} | nil,
          kept_on: [node()],
          applied_on: [node()],
          state: state()
        }
  @enforce_keys [:id, :name, :sha256, :size, :files, :modules, :release, :uploaded_at, :by]
  defstruct [
    :id,
    :name,
    :sha256,
    :size,
    :files,
    :modules,
    :release,
    :uploaded_at,
    :by,
    :upgrade,
    :signed_by,
    :follows,
    kept_on: [],
    applied_on: [],
    state: :uploaded
  ]

  @doc """
  The patch in one line.
  """
  @spec line(t()) :: String.t()
  def line(patch) do
    HotPatch.Support.Printable.line([
      "#{patch.id} #{patch.state}, #{HotPatch.Support.Table.count(patch.modules, "module", "modules")}, ",
      to(patch)
    ])
  end

  defp to(%{upgrade: nil, release: release}), do: "for #{release}"
  defp to(%{upgrade: to, release: release}), do: "upgrade from #{release} to #{to}"

  defimpl Inspect do
    def inspect(patch, _options), do: "#HotPatch.Patch<#{HotPatch.Patch.line(patch)}>"
  end

  defimpl String.Chars do
    def to_string(patch) do
      HotPatch.Support.Printable.line([
        HotPatch.Patch.line(patch),
        ", uploaded #{Calendar.strftime(patch.uploaded_at, "%Y-%m-%d %H:%M:%S UTC")} by #{patch.by}"
      ])
    end
  end
end
