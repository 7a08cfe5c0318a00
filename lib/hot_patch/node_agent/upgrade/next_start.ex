defmodule HotPatch.NodeAgent.Upgrade.NextStart do
  @moduledoc false
  # What an upgrade brings that a node which goes on running does not come to: how its VM is started, by `vm.args` and
  # `env.sh`, and a `relup` where whoever has built the upgrade did not look at it. Flags are named, and no
  # values: a cookie is one.

  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.Upgrade

  @files ~w(vm.args env.sh)

  @doc "In words, what counts from a node's next start only; and what is carried without being used."
  @spec lines(Course.t(), Upgrade.t(), [HotPatch.Composition.Entry.t()]) :: [String.t()]
  def lines(course, upgrade, entries) do
    {_name, version} = course.to
    brought = Map.new(entries, &{&1.path, &1.bytes})
    files = for file <- @files, line = differs(file, course, brought), do: line

    # Else the remarks of the upgrade say what became of it.
    unseen? = Map.get(upgrade, :relup) == nil and is_map_key(brought, "releases/#{version}/relup")

    files ++ if(unseen?, do: [unseen(version)], else: [])
  end

  defp unseen(version) do
    "the relup of #{version} is carried and not used, as the upgrade was built by a version of HotPatch that reads none: " <>
      "what is done is what the plan says. Build the upgrade afresh to have it followed"
  end

  defp differs(file, course, brought) do
    [{_, from}, {_, to}] = [course.from, course.to]
    new = brought["releases/#{to}/#{file}"]

    former =
      case File.read(Path.join([course.root, "releases", from, file])) do
        {:ok, bytes} -> bytes
        {:error, _none} -> nil
      end

    if new != former and (is_binary(new) or new == nil),
      do:
        "#{file} differs#{flags(file, former, new)}: that counts from the next start in #{to}, and not while the VM runs"
  end

  defp flags("vm.args", former, new) do
    case differing(settings(former), settings(new)) do
      [] -> ""
      names -> " in #{Enum.join(names, ", ")}"
    end
  end

  defp flags(_script, _former, _new), do: ""

  # By its first word, what each line says, and how often.
  @spec settings(binary() | nil) :: %{String.t() => [String.t()]}
  defp settings(nil), do: %{}

  defp settings(text) do
    text
    |> String.split("\n")
    |> Enum.map(&(&1 |> String.split("#", parts: 2) |> hd() |> String.split()))
    |> Enum.reject(&(&1 == []))
    |> Enum.group_by(&flag/1, &Enum.join(&1, " "))
  end

  # `-kernel key value` is one setting of many of that application; of `+P 5` the value is no part of its name.
  defp flag([first, second | _rest]) when first in ["-kernel", "-hot_patch", "-sasl", "-env"],
    do: "#{first} #{second}"

  defp flag([first | _rest]), do: first

  defp differing(former, new) do
    names = Enum.uniq(Map.keys(former) ++ Map.keys(new))
    for name <- Enum.sort(names), former[name] != new[name], do: name
  end
end
