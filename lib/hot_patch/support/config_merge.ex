defmodule HotPatch.Support.ConfigMerge do
  @moduledoc false
  # Values of applications' environments, put together as `config.exs` does: two keyword lists become
  # one, and so on down; of anything else the later one takes the place of the earlier.

  @doc """
  A value over another.

      iex> HotPatch.Support.ConfigMerge.merge([salt: "s", url: [host: "a", port: 80]], url: [host: "b"])
      [salt: "s", url: [port: 80, host: "b"]]
      iex> HotPatch.Support.ConfigMerge.merge([salt: "s"], 7)
      7
  """
  @spec merge(term(), term()) :: term()
  def merge(below, above) do
    if Keyword.keyword?(below) and Keyword.keyword?(above),
      do: Keyword.merge(below, above, fn _key, one, other -> merge(one, other) end),
      else: above
  end

  @doc """
  Takes what was merged out of a value that has changed since: what it has set goes back to what was
  there `before`, and all else stays as it is.

      iex> HotPatch.Support.ConfigMerge.unmerge([port: 81, host: "b", new: 1], [host: "b", new: 1], port: 80, host: "a")
      [port: 81, host: "a"]
  """
  @spec unmerge(term(), term(), term()) :: term()
  def unmerge(current, above, before) do
    if Enum.all?([current, above, before], &Keyword.keyword?/1),
      do: Enum.reduce(above, current, &back(&1, &2, before)),
      else: before
  end

  defp back({key, above}, current, before) do
    case {Keyword.fetch(current, key), Keyword.fetch(before, key)} do
      {_now, :error} -> Keyword.delete(current, key)
      {:error, {:ok, was}} -> Keyword.put(current, key, was)
      {{:ok, now}, {:ok, was}} -> Keyword.replace(current, key, unmerge(now, above, was))
    end
  end

  @doc """
  What merged over the first value gives the second: `:same` if that is nothing, and `:impossible` where
  something is gone in the second, which merging takes from nobody.

      iex> HotPatch.Support.ConfigMerge.difference([salt: "s", url: [host: "a", port: 80]], salt: "s", url: [host: "b", port: 80])
      {:ok, [url: [host: "b"]]}
      iex> HotPatch.Support.ConfigMerge.difference([salt: "s"], [])
      :impossible
  """
  @spec difference(term(), term()) :: {:ok, term()} | :same | :impossible
  def difference(same, same), do: :same

  def difference(from, to) do
    above = above(from, to)
    if sorted(merge(from, above)) == sorted(to), do: {:ok, above}, else: :impossible
  end

  defp above(from, to) do
    if Keyword.keyword?(from) and Keyword.keyword?(to) do
      for {key, value} <- to, Keyword.fetch(from, key) != {:ok, value} do
        {key, if(Keyword.has_key?(from, key), do: above(from[key], value), else: value)}
      end
    else
      to
    end
  end

  # The order of different keys means nothing; that of equal ones does.
  defp sorted(value) do
    if Keyword.keyword?(value),
      do:
        value |> Enum.map(fn {key, one} -> {key, sorted(one)} end) |> Enum.sort_by(&elem(&1, 0)),
      else: value
  end
end
