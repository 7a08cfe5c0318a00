# A patch of 100 modules of 50 kB for clusters of 3, 10, 25 and 50 nodes, all on this machine:
# how long it takes, what it costs the coordinator, and how long other messages wait meanwhile.
#
#     MIX_ENV=prod mix run bench/cluster.exs [--nodes 3,10,25,50] [--modules 100] [--rounds 3]
#                                            [--folder FOLDER]
#
# Two steps, each in the way that others do it and in ours. Sending alone: the whole term in one
# `erpc:multicall`, and HotPatch's transfer. Changing the code: `code:purge` and
# `code:load_binary` of each module on each node in a loop, as it is done by hand, and
# `HotPatch.apply/2`, which also writes the files, converts the state of processes, and
# commits on all nodes together. The ways take turns, figures are medians of the rounds, "ratio" is to
# the others' way in the same run.
#
# "member" is the longest that a small message from the coordinator to one of the nodes and back
# took meanwhile, "other" the same to a node that nothing is sent to: what is in both is the
# queue for the processors, not the channel. "busy" is how often a channel was full, "memory"
# how much more the coordinator's processes and binaries took at most. "processors" are the
# seconds that all nodes together have used, "each" those of one that is not the coordinator;
# "idle" and "disk" how much of the machine's processors had nothing to do, or waited for the disk.
# The lines "+1" at the end: what one node more costs, from the smallest to the largest cluster.
# "afterwards" is the 3 seconds after an apply, in which the nodes compare themselves with each
# other. Milliseconds and megabytes.
#
# Each round applies upon the rounds before it, as a later patch does: old code is purged first, and the
# files that are replaced are kept already. The apply may pause for 30 s, for so many nodes are slow
# to stand still together on a few processors.
#
# Files and data of all nodes are below FOLDER (default: that for temporary files); one in memory, such
# as /dev/shm, shows how much of the time is the disk, which on a real cluster each node has
# for itself.

for file <- ~w(table erlang hidden_node cluster/patch cluster/nodes),
    do: Code.require_file("#{file}.exs", __DIR__)

# These run on the nodes too.
helpers =
  for file <- ~w(probe ways),
      module <- Code.require_file("cluster/#{file}.exs", __DIR__),
      do: module

defmodule Bench.Cluster do
  alias Bench.Cluster.Nodes
  alias Bench.Cluster.Patch
  alias Bench.Cluster.Ways
  alias Bench.Table

  @afterwards 3_000

  @seen [:time, :memory, :member, :other, :busy]
  @own [:prepare, :sent, :commit, :skew, :pause]
  @cost [:processors, :each, :coordinator]
  @shares [:idle, :disk]
  @columns @seen ++ @cost ++ @shares ++ @own

  # The first of each step is what the others are measured against.
  @ways [
    send: "multicall",
    send: "HotPatch",
    change: "by hand",
    change: "HotPatch",
    afterwards: "HotPatch"
  ]

  def run(options, helpers) do
    Bench.HiddenNode.start()
    root = Path.join(options.folder, "hot_patch-bench-#{System.pid()}")

    try do
      compare(root, options, helpers)
    after
      File.rm_rf!(root)
    end
  end

  defp compare(root, options, helpers) do
    # Of each round one is applied and one is loaded by hand.
    versions = for version <- 0..(2 * options.rounds), do: Patch.build(options.modules, version)
    [patch | _] = versions

    IO.puts(
      "OTP #{System.otp_release()}, #{System.schedulers_online()} schedulers, #{options.rounds} rounds, " <>
        "#{options.modules} modules, #{mb(byte_size(Patch.zip(patch)))} MB zipped\n"
    )

    IO.puts(line(["nodes", "step", "way", "ratio" | @columns]))

    options.nodes
    |> Enum.map(&{&1, cluster(&1, root, versions, helpers)})
    |> growth()
  end

  # What each node more has cost.
  defp growth([_one]), do: :ok

  defp growth(results) do
    {{few, small}, {many, large}} = Enum.min_max_by(results, &elem(&1, 0))

    for which <- @ways do
      medians =
        for column <- @columns do
          before = median(small[which], column)

          if before && column not in @shares,
            do: (median(large[which], column) - before) / (many - few)
        end

      IO.puts(line(["+1", elem(which, 0), elem(which, 1), "" | texts(medians)]))
    end
  end

  defp cluster(count, root, [shipped | versions], helpers) do
    cluster = Nodes.start(count, root, shipped, helpers)

    try do
      results =
        versions
        |> Enum.chunk_every(2)
        |> Enum.with_index(1)
        |> Enum.flat_map(fn {[applied, loaded], round} ->
          round(cluster, round, applied, loaded)
        end)
        |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

      for step_and_way <- @ways, do: IO.puts(line(row(count, step_and_way, results)))
      IO.puts("")
      results
    after
      Nodes.stop(cluster)
    end
  end

  defp round(cluster, round, applied, loaded) do
    coordinator = hd(cluster.nodes)
    upload = [Patch.zip(applied), [name: "round-#{round}", by: "bench"]]
    {:ok, %{id: id}} = Nodes.call(coordinator, HotPatch, :upload, upload)

    files =
      for {module, beam} <- loaded,
          do: {module, Nodes.call(coordinator, :code, :which, [module]), beam}

    for which <- @ways, do: {which, step(which, id, files, cluster, {applied, loaded})}
  end

  defp step({:send, way}, id, _files, cluster, _beams) do
    seen = ways(cluster, :send_to, [way, id])
    ways(cluster, :forget, [])
    seen
  end

  defp step({:change, "by hand" = way}, _id, files, cluster, {_applied, loaded}) do
    seen = ways(cluster, :change, [way, files])
    check(cluster, loaded)
    seen
  end

  defp step({:change, way}, id, _files, cluster, _beams), do: ways(cluster, :change, [way, id])

  defp step({:afterwards, _way}, _id, _files, cluster, {applied, _loaded}) do
    seen = ways(cluster, :watch, [@afterwards])
    check(cluster, applied)
    seen
  end

  defp ways(cluster, function, args) do
    args = args ++ [Nodes.seen_by_coordinator(cluster)]
    Nodes.call(hd(cluster.nodes), Ways, function, args)
  end

  # That it was done, and on all nodes.
  defp check(cluster, beams) do
    for node <- cluster.nodes, {module, beam} <- Enum.take_every(beams, 20) do
      md5 = :code.module_md5(beam)
      ^md5 = Nodes.call(node, module, :module_info, [:md5])
    end
  end

  defp row(count, {step, way} = which, results) do
    {_step, first} = List.keyfind(@ways, step, 0)
    theirs = median(results[{step, first}], :time)
    ratio = Table.decimal(median(results[which], :time) / theirs, 2)

    [count, step, way, ratio | texts(for column <- @columns, do: median(results[which], column))]
  end

  defp texts(figures), do: Enum.zip_with(@columns, figures, &text/2)

  defp median(results, column), do: results |> Enum.map(& &1[column]) |> Table.median()

  defp text(_column, nil), do: "-"
  defp text(:memory, bytes), do: mb(bytes)
  defp text(:busy, n), do: round(n)
  defp text(column, n) when column in @shares, do: "#{round(n * 100)}%"
  defp text(column, s) when column in @cost, do: Table.decimal(s, 2)
  defp text(_column, us), do: Table.decimal(us / 1000)

  defp mb(bytes), do: Table.decimal(bytes / 1_000_000)

  defp line(cells) do
    widths = [5, 10, 9, 5, 8, 6, 7, 7, 4, 10, 5, 11, 5, 5, 8, 7, 7, 7, 7]
    Table.line(widths, cells)
  end
end

{given, [], []} =
  OptionParser.parse(System.argv(),
    strict: [
      nodes: :string,
      modules: :integer,
      rounds: :integer,
      folder: :string,
      help: :boolean
    ]
  )

numbers = fn text -> text |> String.split(",") |> Enum.map(&String.to_integer/1) end

if given[:help] do
  __ENV__.file
  |> File.stream!()
  |> Enum.take_while(&String.starts_with?(&1, "#"))
  |> Enum.each(&IO.write(String.replace(&1, ~r/^# ?/, "")))
else
  Bench.Cluster.run(
    %{
      nodes: numbers.(given[:nodes] || "3,10,25,50"),
      modules: given[:modules] || 100,
      rounds: given[:rounds] || 3,
      folder: given[:folder] || System.tmp_dir!()
    },
    helpers
  )
end
