defmodule HotPatch.Swap.OldCode.Room do
  @moduledoc false
  # Whether old code can go, so that there is room for the new: the VM keeps two versions of a module.
  # It is only looked at here. What goes is purged with the load, when all is decided; a process that
  # runs old code, or a fun of it that is held somewhere, would be lost by that.
  #
  # Everybody stands still meanwhile. Where there are so many processes and modules that this would be
  # the longer part of the pause, it is done beforehand, once nobody is found who holds anything.
  #
  # Funs of a version that comes again are no reason: with its load they come to life.

  alias HotPatch.Support.Quiet
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Job
  alias HotPatch.Swap.OldCode.FunPlaces
  alias HotPatch.Swap.OldCode.Purge
  alias HotPatch.Swap.OldCode.Users

  # A process that was in old code for a moment only, by a fun, is no reason to refuse.
  @attempts 3
  @named 5
  # Processes times modules, of which a hundred thousand take a quarter of a second.
  @in_pause 200_000

  @doc "Whether there is, or will be by force."
  @spec check(Job.t()) :: :ok | {:held, String.t()}
  def check(%Job{purge: :force} = job), do: alone(job, :force)

  def check(%Job{changes: changes} = job) do
    old = old(changes)

    with :ok <- look(job),
         :ok <- beforehand(old),
         do: alone(job, :soft)
  end

  defp old(changes),
    do: changes |> Change.replaced() |> Enum.filter(&:erlang.check_old_code/1)

  @doc "The same, where nothing is to be done: nothing is purged."
  @spec look(Job.t()) :: :ok | {:held, String.t()}
  def look(%Job{purge: :force}), do: :ok

  def look(%Job{changes: changes}) do
    old = old(changes)
    coming = for %{module: module, md5: md5} <- changes, do: {module, md5}
    with :ok <- unused(old, @attempts), do: unheld(old, coming)
  end

  # Funs of a version that comes again live by its load: not those in between. Where the schedulers are full any purge
  # takes long, as everybody is asked and answers in a turn of its own.
  defp beforehand([]), do: :ok

  defp beforehand(old) do
    if Quiet.full?() or length(old) * :erlang.system_info(:process_count) > @in_pause do
      {holders, _unseen} = FunPlaces.of_old(old)
      Purge.unused(old -- Enum.map(holders, &elem(&1, 2)))
    else
      :ok
    end
  end

  defp unused([], _attempts), do: :ok

  defp unused(old, attempts) do
    case Users.of(old) do
      [] ->
        :ok

      _some when attempts > 1 ->
        unused(old, attempts - 1)

      [{_pid, module, _stack} | _] = users ->
        held(module, for({pid, ^module, _stack} <- users, do: pid))
    end
  end

  defp held(module, pids),
    do: {:held, Description.old_code(module, pids)}

  defp unheld(old, coming) do
    case old |> held_funs(coming) |> Map.to_list() do
      [] -> :ok
      [{_module, text} | _] -> {:held, text}
    end
  end

  @doc "Why modules cannot change because of funs that their old code has made."
  @spec held_funs([module()], [{module(), md5 :: binary() | nil}]) :: %{module() => String.t()}
  def held_funs(modules, coming) do
    {holders, _unseen} =
      modules |> Enum.filter(&:erlang.check_old_code/1) |> FunPlaces.of_old(coming)

    for {module, some} <- Enum.group_by(holders, &elem(&1, 2)), into: %{} do
      {module,
       "funs that old code of #{inspect(module)} has made are held #{text(some)}: this change " <>
         "would purge that code, and whoever calls them then would fail; have them replaced, or " <>
         "use purge: :force"}
    end
  end

  @doc "Who they are, in words."
  @spec text([FunPlaces.holder(), ...]) :: String.t()
  def text(holders) do
    named = holders |> Enum.take(@named) |> Enum.map_join(", ", &one/1)
    more = length(holders) - @named
    if more > 0, do: "#{named} and #{more} more", else: named
  end

  defp one({pid, nil, _module}), do: "by #{inspect(pid)}"
  defp one({nil, place, _module}), do: place
  defp one({pid, place, _module}), do: "#{place} (of #{inspect(pid)})"

  # What runs code when it is loaded becomes current before the decision: it needs its room before.
  defp alone(%{on_load: []}, _purge), do: :ok

  defp alone(%{on_load: steps}, :soft) do
    with {:held, module, pids} <- Purge.all(Enum.map(steps, & &1.module)), do: held(module, pids)
  end

  defp alone(%{on_load: steps}, :force), do: Purge.unused(Enum.map(steps, & &1.module))
end
