defmodule HotPatch.Swap.OldCode.FunLines do
  @moduledoc false
  # What a plan says of funs: which places keep one of the code that goes, and which lose one.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.OldCode.FunPlaces
  alias HotPatch.Swap.OldCode.Room
  alias HotPatch.Swap.Target

  @doc "In lines; `targets` are the processes that make the funs that they hold anew."
  @spec of([Change.t()], [Target.t()], :soft | :force) :: [String.t()]
  def of(changes, targets, purge) do
    case FunRenewal.table(changes) do
      nil -> lost(changes, purge)
      %{modules: wanted} -> kept(wanted, targets) ++ lost(changes, purge)
    end
  end

  defp kept(wanted, targets) do
    # A table belongs to a process, and is not made anew with its state.
    {left, unseen} = FunPlaces.of(wanted, MapSet.new(targets, & &1.pid))

    lines =
      for {module, some} <- Enum.group_by(left, &elem(&1, 2)) do
        "#{length(some)} of the places that hold a fun of #{inspect(module)} keep it as it is, that of the code before " <>
          "(#{Room.text(some)}): it works until that code is purged, and while it is held the next change " <>
          "of #{inspect(module)} is refused"
      end

    lines ++ unseen(unseen)
  end

  defp unseen([]), do: []

  defp unseen(some) do
    [
      "not looked at for funs of the modules that change: #{Enum.join(some, ", ")}; nor are timers of the VM"
    ]
  end

  defp lost(_changes, :soft), do: []

  defp lost(changes, :force) do
    old = changes |> Change.replaced() |> Enum.filter(&:erlang.check_old_code/1)
    coming = for %{module: module, md5: md5} <- changes, do: {module, md5}
    {holders, _unseen} = FunPlaces.of_old(old, coming)

    for {module, some} <- Enum.group_by(holders, &elem(&1, 2)) do
      "purge: :force ends funs that old code of #{inspect(module)} has made and that are held #{Room.text(some)}: " <>
        "whoever calls one of them fails"
    end
  end
end
