defmodule HotPatch.Swap.Discovery.Lookers do
  @moduledoc false
  # Several look at very many processes at the same time: the text of a stack shows when its process gets
  # to a scheduler, and on a busy node that is not to be waited for a hundred thousand times one
  # after the other. They work at the priority of who has them look.

  alias HotPatch.Support.Quiet

  # Where the schedulers are full a look takes as long as all who are ready to run, and so everybody is looked at in a
  # few rounds of them, or it would take minutes.
  @lookers 8
  @lookers_where_full 128

  # Up to so many one looks at; and of more, so many at a time, so that what is known of them all is never in one
  # heap: to collect its garbage would keep a scheduler from everybody else.
  @few 500
  @few_where_full 8

  @doc """
  What `look` gives for parts of a list, which together are the whole, in their order. Whoever has time has one look:
  then one scheduler at most is kept from others, and one process that is looked at.
  """
  @spec look([item], ([item] -> [seen]), pos_integer()) :: [seen] when item: term(), seen: term()
  def look(list, look, lookers \\ @lookers) do
    {lookers, few} =
      if Quiet.full?(), do: {@lookers_where_full, @few_where_full}, else: {lookers, @few}

    if length(list) <= few do
      look.(list)
    else
      list
      |> Enum.chunk_every(div(length(list), lookers) + 1)
      |> Enum.map(fn part -> Quiet.task(fn -> a_few_at_a_time(part, look) end) end)
      |> Enum.flat_map(&Task.await(&1, :infinity))
    end
  end

  defp a_few_at_a_time(part, look), do: part |> Enum.chunk_every(@few) |> Enum.flat_map(look)
end
