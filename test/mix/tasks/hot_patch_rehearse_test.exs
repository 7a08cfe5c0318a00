defmodule Mix.Tasks.HotPatch.RehearseTest do
  # What the task makes of its switches; what it does with them is in HotPatch.ProvingTest.
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias Mix.Tasks.HotPatch.Rehearse

  @moduletag :tmp_dir

  defp run(arguments) do
    output = fn ->
      status =
        try do
          Rehearse.run(arguments)
          0
        catch
          :exit, {:shutdown, status} -> status
        end

      send(self(), {:status, status})
    end

    errors = capture_io(:stderr, fn -> send(self(), {:output, capture_io(output)}) end)
    assert_received {:status, status}
    assert_received {:output, printed}
    {printed <> errors, status}
  end

  test "--init writes a load script, and none over another", %{tmp_dir: dir} do
    path = Path.join(dir, "load.exs")
    assert {text, 0} = run(["--init", path])
    assert text =~ "#{path} is written"
    assert File.read!(path) == HotPatch.Proving.load_script()
    assert {text, 1} = run(["--init", path])
    assert text =~ "file already exists"
  end

  test "wrong calls are told what is wrong", %{tmp_dir: dir} do
    for {arguments, told, status} <- [
          {["--patch", "fix.zip"], "--from RELEASE is needed", 2},
          {["--from", dir], ":patch is needed", 2},
          {["--from", dir, "--nodes", "0"], "option :nodes", 2},
          {["--from", dir, "--paint"], "--paint is no option", 2},
          {["--from", dir, "--patch", Path.join(dir, "none.zip")], "cannot read", 1},
          {["--help"], "Exit codes", 0}
        ] do
      assert {text, ^status} = run(arguments)
      assert text =~ told
    end
  end
end
