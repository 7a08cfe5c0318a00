defmodule Mix.Tasks.HotPatch.BuildTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias HotPatch.Test.Builds

  @moduletag :tmp_dir

  defp build(name), do: Path.join([Builds.tmp(), "builds", name])

  # What a task prints, says of errors, and its exit code.
  defp run(task, args) do
    parent = self()

    stderr =
      capture_io(:stderr, fn ->
        stdout =
          capture_io(fn ->
            code =
              try do
                Mix.Task.rerun(task, args)
                0
              catch
                :exit, {:shutdown, code} -> code
              end

            send(parent, {:code, code})
          end)

        send(parent, {:stdout, stdout})
      end)

    assert_received {:code, code}
    assert_received {:stdout, stdout}
    {code, stdout, stderr}
  end

  test "keys, build, sign", %{tmp_dir: dir} do
    [key, out, tar] = for name <- ["alice", "fix.zip", "from.tar.gz"], do: Path.join(dir, name)
    assert {0, text, ""} = run("hot_patch.keygen", [key, "--name", "alice"])
    assert text =~ "trusted_keys: [\"hot_patch-ed25519 "

    File.mkdir_p!(Path.join(dir, "old"))
    File.cp_r!(build("shipped"), Path.join(dir, "old/lib"))
    {_, 0} = System.cmd("tar", ["-czf", tar, "-C", Path.join(dir, "old"), "lib"])
    args = ["--from", tar, "--to", build("patched"), "--out", out]

    assert {0, text, ""} = run("hot_patch.build", args ++ ["--dry-run"])
    assert text =~ "Elixir.Exchange.Call.beam" and text =~ "nothing was written"
    refute File.exists?(out)

    more = ~w(--transition compatible --on-load load --cumulative --text rates)
    config = ["--config", "exchange.a=1", "--config", "exchange.b={x,\"y\"}"]
    assert {0, _text, ""} = run("hot_patch.build", args ++ more ++ config)
    assert {0, text, ""} = run("hot_patch.sign", [out, "--key", key])
    assert text =~ "signed by alice ("
    {:ok, %{manifest: manifest} = signed} = HotPatch.Archive.read(File.read!(out), "fix")
    assert signed.signature.name == "alice"

    assert %{transition: :compatible, on_load: :load, cumulative: true, text: "rates"} = manifest
    assert Enum.map(manifest.config, & &1.value) == ["1", "{x,\"y\"}"]
  end

  test "what looks dangerous is refused, shown by a trial, and accepted by name", %{tmp_dir: dir} do
    out = Path.join(dir, "back.zip")
    args = ["--from", build("patched"), "--to", build("shipped"), "--out", out]
    name = "state_changed_without_code_change"
    assert {1, "", error} = run("hot_patch.build", args)
    assert error =~ "--accept #{name}:Exchange.Call"
    assert {1, text, ^error} = run("hot_patch.build", args ++ ["--dry-run"])
    assert text =~ "Elixir.Exchange.Call.beam" and text =~ name
    assert text =~ "nothing was written"
    assert {1, "", error} = run("hot_patch.build", args ++ ["--accept", "cycle"])
    assert error =~ "--accept cycle matches nothing"
    refute File.exists?(out)

    one_by_one = Enum.flat_map(~w(Call Cdr Trunk), &["--accept", "#{name}:Exchange.#{&1}"])

    assert {0, text, ""} = run("hot_patch.build", args ++ one_by_one)
    assert text =~ "accepted: #{name}:Exchange.Trunk"
    assert File.exists?(out)
  end

  test "modules picked by hand from this project's build", %{tmp_dir: dir} do
    out = Path.join(dir, "picked.zip")
    # HotPatch is a system application: the build that is looked into is its own.
    assert {1, "", error} =
             run("hot_patch.build", ["--modules", "HotPatch.Support.Table", "--out", out])

    assert error =~ "no module HotPatch.Support.Table"

    args = ["--to", build("patched"), "--modules", "Exchange.Call,Exchange.Billing"]
    assert {0, text, ""} = run("hot_patch.build", args ++ ["--out", out])
    assert text =~ "2 files" and text =~ "note: nothing says which code"
    {:ok, composition} = HotPatch.Archive.read(File.read!(out), "picked")
    assert for({_, module} <- composition.manifest.modules, do: module.change) == [:any, :any]
  end

  test "exit codes tell wrong usage from what cannot be done", %{tmp_dir: dir} do
    out = Path.join(dir, "fix.zip")

    for {task, args, code, words} <- [
          {"build", ["--from", dir, "--to", dir], 2, ":out is missing"},
          {"build", ["--form", dir], 2, "--form is no option"},
          {"build", ["somewhere"], 2, "what is somewhere?"},
          {"build", ["--from", dir, "--to", dir, "--out", out, "--transition", "fast"], 2,
           "fast"},
          {"build", ["--from", dir, "--to", dir, "--out", out], 1, "holds no build"},
          {"sign", ["fix.zip"], 2, "--key KEY"},
          {"sign", [out, "--key", "/no/such/key"], 1, "/no/such/key"},
          {"keygen", [], 2, "hot_patch.keygen PATH"},
          {"keygen", ["/no/such/folder/key"], 1, "/no/such/folder/key"}
        ] do
      assert {^code, "", error} = run("hot_patch.#{task}", args)
      assert error =~ words
      if code == 2, do: assert(error =~ "--help says more")
    end
  end

  test "help teaches" do
    for {task, words} <- [
          {"build", ["--from", "--dry-run", "Exit codes", "Examples", "byte for byte"]},
          {"sign", ["--key", "Exit codes"]},
          {"keygen", ["trusted_keys", "0600", "require_signature", "Exit codes"]}
        ] do
      assert {0, text, ""} = run("hot_patch.#{task}", ["--help"])
      for word <- words, do: assert(text =~ word, "#{task} --help does not mention #{word}")
    end
  end
end
