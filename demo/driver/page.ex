defmodule Demo.Page do
  @moduledoc false
  # The exchange for whoever wants to try HotPatch's page: calls in progress, traffic on them, and
  # patches to upload. Goes on until it is ended.

  import Demo.Console

  alias Demo.Archive
  alias Demo.Cluster
  alias Demo.Traffic

  # The calls go to numbers that every build knows, but one: the broken build fails there.
  @number "0044123"
  @unknown_country_number "00811"

  # Milliseconds between two looks at what the traffic has met.
  @look 2_000

  @spec run(%{total: pos_integer(), folders: map(), work: Path.t()}, String.t()) :: no_return()
  def run(demo, url) do
    :ok = Cluster.await()
    traffic = Traffic.start(calls(demo.total))
    patches = patches(demo)

    title("The page is at #{url}")
    say("name      operator")
    say("password  #{System.fetch_env!("DEMO_PASSWORD")}")
    say()

    say(
      "#{count(demo.total)} calls are in progress on three nodes, with traffic on them. Patches to try:"
    )

    say()
    for {path, text} <- patches, do: say("#{path}  #{text}")
    say()

    say(
      "Ctrl-C ends it all. Problems of the traffic are told here; a node that you restart loses its calls."
    )

    watch(traffic, 0)
  end

  defp calls(total) do
    share = div(total, length(Cluster.nodes()))

    for {node, index} <- Enum.with_index(Cluster.nodes()) do
      odd = if index == 0, do: [{"299", @unknown_country_number}], else: []
      pairs = for n <- 1..(share - length(odd)), do: {"2#{n}", @number}
      {node, Cluster.call(node, Exchange, :start_calls, [odd ++ pairs])}
    end
  end

  defp patches(%{folders: folders, work: work}) do
    patched = Archive.changes(folders.shipped, folders.patched)
    broken = Archive.changes(folders.patched, folders.broken)
    cut = fn beam -> binary_part(beam, 0, div(byte_size(beam), 2)) end

    [
      {zip(patched, folders.patched, work, "billing.zip"),
       "repairs: short calls abroad are not free any more"},
      {zip(patched, folders.patched, work, "damaged.zip", cut),
       "is refused: every file is cut in half"},
      {zip(broken, folders.broken, work, "countries.zip"),
       "after billing.zip: fails in one call of all, and is taken back"}
    ]
  end

  defp zip(changes, folder, work, name, spoil \\ & &1),
    do: Archive.zip!(changes, folder, Path.join(work, name), spoil)

  defp watch(traffic, told) do
    problems = Traffic.problems(traffic) ++ Enum.map(Traffic.dropped(traffic), &inspect/1)
    for problem <- problems |> Enum.drop(told) |> Enum.take(5), do: say(problem)
    receive after: (@look -> :ok)
    watch(traffic, length(problems))
  end
end
