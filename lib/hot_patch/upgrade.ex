defmodule HotPatch.Upgrade do
  @moduledoc """
  What an archive brings that takes the system to the next version of its release: `HotPatch.Manifest` has it
  as `:upgrade`, and its `:release` is the one that it starts from.

    * `:to` - the version to which it leads
    * `:erts` - the version of the runtime system that the new release runs on; where that is another, the archive
      brings it, and nodes take it by a restart only
    * `:applications` - those that are not the same in both, as `HotPatch.Upgrade.Application`: those of the new
      release in the order in which it starts them, then those that are gone, in the order in which they stop
    * `:shared` - the folders of applications that both have, which are not carried: `path` and `sha256`, see
      `folder_digest/1`
    * `:files` - the archive's files that belong to the release itself, and to no application
    * `:relup` - which ways are as the `relup` of the release says, as `%{up: true, down: false}`; `nil` where there
      is none
    * `:remarks` - where the instructions are from, and what of them is done otherwise than their authors have
      written it, in sentences
  """

  alias HotPatch.Support.Hex
  alias HotPatch.Support.Table
  alias HotPatch.Upgrade.Application

  @typedoc "A folder of both releases, as `lib/jason-1.4.0`; the digest in hexadecimal digits."
  @type shared :: %{path: Path.t(), sha256: String.t()}
  @type t :: %__MODULE__{
          to: String.t(),
          erts: String.t(),
          applications: [Application.t()],
          shared: [shared()],
          files: [Path.t()],
          relup: %{up: boolean(), down: boolean()} | nil,
          remarks: [String.t()]
        }
  @enforce_keys [:to, :erts, :applications, :shared, :files]
  defstruct @enforce_keys ++ [relup: nil, remarks: []]

  @doc false
  # The schema was checked where the archive was read: every field is there.
  @spec new(map() | nil) :: t() | nil
  def new(nil), do: nil

  def new(content) do
    %__MODULE__{
      to: content["to"],
      erts: content["erts"],
      applications: Enum.map(content["applications"], &Application.new/1),
      shared:
        for(
          %{"path" => path, "sha256" => sha256} <- content["shared"],
          do: %{path: path, sha256: sha256}
        ),
      files: content["files"],
      relup: relup(content["relup"]),
      remarks: content["remarks"] || []
    }
  end

  defp relup(nil), do: nil
  defp relup(%{"up" => up, "down" => down}), do: %{up: up, down: down}

  @doc false
  # That of an archive, or of what a coordinator sends of one; nil of a patch, and of what a version without upgrades has
  # kept.
  @spec of(map()) :: t() | nil
  def of(%{manifest: %{upgrade: %__MODULE__{} = upgrade}}), do: upgrade
  def of(_patch), do: nil

  @doc "The applications that it adds, that go to another version, or that go."
  @spec applications(t(), Application.change()) :: [Application.t()]
  def applications(upgrade, change),
    do: Enum.filter(upgrade.applications, &(Application.change(&1) == change))

  @doc """
  The digest of an application's folder, as `:shared` has it: of all files in it, each with its path below the
  folder and the SHA-256 of its bytes.

      iex> HotPatch.Upgrade.folder_digest([{"ebin/a.app", <<1::256>>}, {"ebin/a.beam", <<2::256>>}])
      "105da70fdd24ed97231461a8391d299e331cd32cda65a49157fd00b8807160bf"
  """
  @spec folder_digest([{Path.t(), <<_::256>>}]) :: String.t()
  def folder_digest(files) do
    all = for {path, sha256} <- Enum.sort(files), do: [path, 0, sha256]
    :sha256 |> :crypto.hash(all) |> Hex.encode()
  end

  @doc false
  # A coordinator of a version without them sends none.
  @spec remarks(t()) :: [String.t()]
  def remarks(upgrade), do: Map.get(upgrade, :remarks, [])

  @doc "What it changes beside modules, in lines for people."
  @spec lines(t(), String.t() | nil) :: [String.t()]
  def lines(upgrade, from) do
    shared = length(upgrade.shared)

    ["upgrade to #{upgrade.to}#{if from, do: " from #{from}"}, on ERTS #{upgrade.erts}"] ++
      Enum.map(upgrade.applications, &Application.line/1) ++
      remarks(upgrade) ++
      if(shared > 0,
        do: [
          "#{Table.count(shared, "application stays", "applications stay")} as they are, and are not carried"
        ],
        else: []
      )
  end

  defimpl Inspect do
    def inspect(upgrade, _options),
      do: HotPatch.Support.Printable.line("#HotPatch.Upgrade<to #{upgrade.to}>")
  end
end
