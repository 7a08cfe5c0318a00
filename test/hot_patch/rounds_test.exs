defmodule HotPatch.RoundsTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Console, only: [request: 3, token: 1, options: 0]

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Rounds

  for count <- [1, 3] do
    test "rounds on #{count}" do
      nodes = [node | _] = Cluster.start(unquote(count))

      page = fn path ->
        Rounds.of(node, HotPatch.Console, :call, [request("GET", path, headers: token("deploy"))])
      end

      for node <- nodes do
        :ok =
          Cluster.call(node, Application, :put_env, [
            :hot_patch,
            :console,
            [port: 0] ++ options()
          ])

        :ok = Cluster.call(node, HotPatch.Console, :reload, [])
      end

      module = :hot_patch_test_rounds
      bytes = Builds.versioned(module, 2)
      zip = zip([{"exchange-1.0.0/ebin/#{module}.beam", bytes}])

      show = fn what, {r, c} ->
        IO.puts(
          "#{what}: #{length(c.asked)} #{inspect(c.asked)} bridge #{inspect(c.requests)} reads #{c.reads}"
        )

        r
      end

      {:ok, patch} = show.("upload", Rounds.of(node, HotPatch, :upload, [zip, [name: "fix"]]))
      show.("list", Rounds.of(node, HotPatch, :list, []))
      {:ok, _} = show.("check", Rounds.of(node, HotPatch, :check, [patch.id]))
      {:ok, _} = show.("plan", Rounds.of(node, HotPatch, :plan, [patch.id]))
      %{status: 200} = show.("contents", page.("/patch/#{patch.id}"))
      %{status: 200} = show.("confirm", page.("/patch/#{patch.id}/apply"))
      %{status: 200} = show.("nodes", page.("/nodes"))
      %{status: 200} = show.("welcome", page.("/patch"))
      {:ok, _} = show.("apply", Rounds.of(node, HotPatch, :apply, [patch.id]))
      %{status: 200} = show.("confirm rollback", page.("/patch/#{patch.id}/rollback"))
      {:ok, _} = show.("rollback", Rounds.of(node, HotPatch, :rollback, [patch.id]))
    end
  end
end
