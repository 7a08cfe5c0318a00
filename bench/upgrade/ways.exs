defmodule Bench.Upgrade.Ways do
  # The two ways from one release to the next, on all nodes. `bring/2` has the new one lie there, as far as a way has
  # that as a step of its own, and gives what `install/3` needs.

  alias Bench.Upgrade.Nodes
  alias Bench.Upgrade.Subject

  def names, do: ["release_handler", "HotPatch"]

  # The tarball lies in `releases/` of every node already.
  def bring("release_handler", nodes, _made) do
    name = to_charlist("#{Subject.name()}-#{Subject.new()}")
    new = to_charlist(Subject.new())

    for answer <- all(nodes, :release_handler, :unpack_release, [name]),
        do: {:ok, {:ok, ^new}} = answer
  end

  def bring("HotPatch", [first | _], made) do
    {:ok, patch} = Nodes.call(first, HotPatch, :upload, [made.zip])
    patch.id
  end

  # On all nodes at once, which is the best that can be made of it: it knows of one node only.
  def install("release_handler", nodes, _brought) do
    for answer <- all(nodes, :release_handler, :install_release, [to_charlist(Subject.new())]) do
      case answer do
        {:ok, {:ok, _former, _description}} -> :ok
        other -> {:failed, other}
      end
    end
  end

  def install("HotPatch", [first | _], patch) do
    case Nodes.call(first, HotPatch, :apply, [patch, [pause_timeout: 30_000]]) do
      {:ok, %{status: :ok}} -> [:ok]
      other -> [{:failed, other}]
    end
  end

  defp all(nodes, module, function, args) do
    nodes
    |> Enum.map(& &1.name)
    |> :erpc.multicall(module, function, args, :infinity)
  end
end
