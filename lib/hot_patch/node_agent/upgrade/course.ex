defmodule HotPatch.NodeAgent.Upgrade.Course do
  @moduledoc false
  # From which release to which a node goes, and what of it belongs to both ends: the folders of applications, and
  # of modules on the code path. The way back is the same course the other way round.
  #
  # Paths of folders are as the archive has them, below `root`, the folder of the releases of this node.

  alias HotPatch.Host.ReleaseSource
  alias HotPatch.Host.UpgradedRelease
  alias HotPatch.NodeAgent.Upgrade.ApplicationData
  alias HotPatch.NodeAgent.Upgrade.CodePath
  alias HotPatch.NodeAgent.Upgrade.Configuration
  alias HotPatch.Release
  alias HotPatch.Support.FileName

  @typedoc "An application that is another one in each release; the folders are nil where it is in one of them only."
  @type application :: %{
          name: String.t(),
          former: Path.t() | nil,
          new: Path.t() | nil,
          type: String.t() | nil
        }

  @type t :: %__MODULE__{
          from: ReleaseSource.id(),
          to: ReleaseSource.id(),
          erts: String.t(),
          root: Path.t(),
          applications: [application()],
          configuration: Configuration.t() | nil
        }
  @enforce_keys [:from, :to, :erts, :root, :applications]
  defstruct [:from, :to, :erts, :root, :applications, :configuration]

  @doc "The course of an upgrade on a node with this root."
  @spec new(ReleaseSource.id(), map(), Path.t()) :: t()
  def new({name, _version} = from, upgrade, root) do
    %__MODULE__{
      from: from,
      to: {name, upgrade.to},
      erts: upgrade.erts,
      root: root,
      applications:
        for one <- upgrade.applications do
          %{
            name: one.name,
            former: folder(one.name, one.from),
            new: folder(one.name, one.to),
            type: one.type
          }
        end
    }
  end

  defp folder(_name, nil), do: nil
  defp folder(name, version), do: "lib/#{name}-#{version}"

  @doc "The same course back."
  @spec back(t()) :: t()
  def back(course) do
    %{
      course
      | from: course.to,
        to: course.from,
        applications:
          for(one <- course.applications, do: %{one | former: one.new, new: one.former}),
        configuration:
          course.configuration &&
            %{former: course.configuration.new, new: course.configuration.former}
    }
  end

  @doc "A course as it is kept on disk, where no struct is; and from there."
  @spec to_map(t()) :: map()
  def to_map(course), do: Map.from_struct(course)

  @spec from_map(map()) :: t()
  def from_map(map), do: struct!(__MODULE__, map)

  @doc "The folder of consolidated protocols of a release."
  @spec consolidated(ReleaseSource.id()) :: Path.t()
  def consolidated({_name, version}), do: "releases/#{version}/consolidated"

  @doc """
  Makes the VM's own knowledge that of the release to which the course leads: code path and applications' data. As
  often as one likes.
  """
  @spec follow(t()) :: :ok
  def follow(course) do
    :ok = CodePath.change(moves(course))
    configuration = course.configuration && Configuration.accepted(course.configuration.new)
    ApplicationData.change(resources(course), configuration || [])
  end

  @doc "Takes back what `follow/1` has done, if it has."
  @spec stay(t()) :: :ok
  def stay(course) do
    back = back(course)
    ahead = for {former, _new} <- moves(back), former != nil, on_path?(former), do: former
    if ahead == [], do: :ok, else: follow(back)
  end

  @doc "All of it is done, on disk too: from now on this node runs that release."
  @spec arrive(t()) :: :ok
  def arrive(course),
    do: UpgradedRelease.put(if(course.to != ReleaseSource.booted(), do: course.to))

  @doc "Whether a file of a module is in the folder of an application that the course takes away."
  @spec leaves?(t(), Path.t()) :: boolean()
  def leaves?(course, path) do
    Enum.any?(course.applications, fn one ->
      one.new == nil and String.starts_with?(path, one.former <> "/")
    end)
  end

  @doc "The release to which the course leads."
  @spec release(t()) :: Release.t()
  def release(%{to: {name, version}}), do: %Release{name: name, version: version}

  defp moves(course) do
    own = for one <- course.applications, do: {ebin(course, one.former), ebin(course, one.new)}

    [{former, new}] = [
      {Path.join(course.root, consolidated(course.from)),
       Path.join(course.root, consolidated(course.to))}
    ]

    protocols =
      case {on_path?(former), File.dir?(new)} do
        {true, true} -> [{former, new}]
        {true, false} -> [{former, nil}]
        # Before all others, or nobody would find them.
        {false, _there?} -> []
      end

    protocols ++ own
  end

  defp on_path?(folder) do
    Enum.any?(:code.get_path(), fn one ->
      one != ~c"." and one |> FileName.to_binary() |> Path.expand() == folder
    end)
  end

  @spec ebin(t(), Path.t() | nil) :: Path.t() | nil
  defp ebin(_course, nil), do: nil
  defp ebin(course, folder), do: Path.expand(Path.join([course.root, folder, "ebin"]))

  # Of applications that are in both: those that are new are loaded when they start.
  defp resources(course) do
    for %{former: former, new: new, name: name} <- course.applications,
        former != nil and new != nil,
        do: Path.join([course.root, new, "ebin", name <> ".app"])
  end
end
