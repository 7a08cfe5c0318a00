alias HotPatch.Test.{Builds, Cluster}

defmodule T do
  use ExUnit.Case
  @moduletag capture_log: false
  @tag timeout: 200_000
  test "x" do
    [a | _] = nodes = Cluster.start(3)
    zip = HotPatch.Test.Archives.zip(Builds.changed("patched"))
    h = fn f, args -> Cluster.call(a, HotPatch, f, args) end
    {:ok, p} = h.(:upload, [zip, [name: "fix"]])
    IO.inspect(p)
    {:ok, _} = h.(:check, [p.id])

    t =
      Task.async(fn ->
        h.(:apply, [p.id, [canary: 1, watch: [duration: 3000], progress: :bar]])
      end)

    Process.sleep(2500)
    IO.inspect(Cluster.call(List.last(nodes), HotPatch, :progress, []))
    IO.inspect(h.(:apply, [p.id]))
    {:ok, r} = Task.await(t, 60000)
    IO.puts(r)
    IO.inspect(r.skew_us)
    for n <- nodes, do: IO.inspect(Cluster.call(n, HotPatch.Store.Applied, :state, []).ops)
    IO.puts(Enum.join(h.(:nodes, []), "\n"))
    {:ok, r} = h.(:rollback, [p.id])
    IO.puts(r)

    IO.inspect(
      h.(:apply, [
        p.id,
        [
          nodes: fn i -> i.node != a end,
          one_per_host: true,
          watch: [duration: 500, health: {:erlang, :hd, [[]]}]
        ]
      ])
    )

    IO.inspect(h.(:journal, []))
  end
end
