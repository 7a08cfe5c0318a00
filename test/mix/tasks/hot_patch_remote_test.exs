defmodule Mix.Tasks.HotPatch.RemoteTest do
  # As its users call it: a VM of its own, which connects to a running cluster.
  use ExUnit.Case, async: false

  import HotPatch.Test.Until

  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Operator

  @moduletag :tmp_dir

  defp remote(node, arguments, env \\ []) do
    cookie = Atom.to_string(Node.get_cookie())

    System.cmd("mix", ["hot_patch.remote", "#{node}" | arguments] ++ ["--cookie", cookie],
      stderr_to_stdout: true,
      env: [{"MIX_ENV", "test"}, {"HOT_PATCH_SKIP_NATIVE", "1"} | env]
    )
  end

  @tag :starts_nodes
  test "the whole way from a terminal", %{tmp_dir: dir} do
    [a, b] = Cluster.start(2)
    zip = Path.join(dir, "fix.zip")
    File.write!(zip, Archives.zip(Builds.changed("patched")))

    assert {output, 0} = remote(a, ["upload", zip, "--by", "alice"])
    assert [_, id] = Regex.run(~r/(fix-[0-9a-f]{12}) uploaded, 6 modules/, output)

    assert {output, 0} = remote(a, ["plan", "fix"])
    assert output =~ "will pause"

    # Its outcome is the exit status.
    assert {output, 0} = remote(a, ["rehearse", "fix", "--sample", "2"])
    assert output =~ "rehearsal #{id}: ok, 2 nodes"
    [trunk | _] = Cluster.call(b, HotPatch.Swap, :users, [Exchange.Trunk])
    Operator.distort(b, trunk)
    assert {output, 1} = remote(a, ["rehearse", "fix"])
    assert output =~ "rehearsal #{id}: failed" and output =~ "Exchange.Trunk.code_change/4"
    Operator.mend(b, trunk)
    assert {output, 3} = remote(a, ["rehearse", "fix", "--max-state-bytes", "8"])
    assert output =~ "larger than max_state_bytes"

    # Where nobody looks, in a pipe, there are no bars.
    arguments = ~w(apply fix --canary 1 --watch-for 100 --by alice --reason rates)
    assert {output, 0} = remote(a, arguments)
    assert output =~ "apply #{id}: ok, 2 nodes"
    refute output =~ "\e[" or output =~ "[##"
    # Who is in a call when the patch comes runs the code of before until that ends.
    free? = fn -> elem(remote(a, ["stragglers"]), 0) =~ "nobody runs old code" end
    until(free?, "nobody runs old code")
    assert {_output, 0} = remote(a, ["rollback", String.slice(id, 0, 8)])

    # Bars while it runs, the report at the end.
    assert {output, 0} = remote(a, arguments ++ ~w(--progress bar))
    assert output =~ ~r/#{b} +\[#+\] watch/
    assert output =~ "apply #{id}: ok, 2 nodes"

    back = Path.join(dir, "back.zip")
    assert {output, 0} = remote(a, ["export-antipatch", "fix", "--to", back])
    assert output =~ "holds what was replaced" and output =~ "left out"
    assert output =~ "to be applied with transition: :suspend, on_load: :restart"
    assert File.exists?(back)
    assert {output, 0} = remote(a, ["composition", "fix"])
    assert output =~ "6 modules"
    assert {output, 0} = remote(a, ["stragglers"])
    assert output =~ "nobody runs old code" or output =~ "still run"
    assert {output, 0} = remote(a, ["drift"])
    assert output =~ "every module runs as it should"
    assert {output, 0} = remote(a, ["releases"])
    assert output =~ "next start" and output =~ ~r/ not known +yes +not known /

    assert {output, 0} = remote(b, ["journal", "--json"])
    assert output =~ ~s("by":"alice")
    assert output =~ ~s("status":"ok","status_code":6)
    assert {output, 1} = remote(a, ["apply", "fax"])
    assert output =~ "no patch has the id" and output =~ "did you mean fix?"
    assert {output, 0} = remote(a, ["rollback", "fix"])
    assert output =~ "rollback #{id}: ok"
  end

  # VMs of their own that would connect.
  @tag :starts_nodes
  test "wrong calls are told what is wrong" do
    assert {output, 2} = remote(:nobody@nowhere, ["paint", "fix"])
    assert output =~ "there is no command paint"
    assert {output, 2} = remote(:nobody@nowhere, ["apply", "fix", "--speed", "1"])
    assert output =~ "--speed is no option"
    assert {output, 2} = remote(:nobody@nowhere, ["apply", "fix", "--reson", "x"])
    assert output =~ "did you mean --reason?"
    assert {output, 2} = remote(:nobody@nowhere, ["apply", "fix", "--timeout", "soon"])
    assert output =~ "--timeout cannot be soon"
    assert {output, 2} = remote(:nobody@nowhere, ["export-antipatch", "fix"])
    assert output =~ "--to FILE"
    assert {output, 1} = remote(:"nobody@127.0.0.1", ["list"])
    assert output =~ "nobody@127.0.0.1 cannot be reached"
    # No epmd has this port, and none is needed on this side.
    without_epmd = [{"ERL_EPMD_PORT", "9"}]
    assert {output, 1} = remote(:"nobody@127.0.0.1", ["list"], without_epmd)
    assert output =~ "nobody@127.0.0.1 cannot be reached"
    assert {output, 2} = remote(:"nobody@127.0.0.1", ["upload", "/no/such.zip"])
    assert output =~ "cannot read /no/such.zip"
  end
end
