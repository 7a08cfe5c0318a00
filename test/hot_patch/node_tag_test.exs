defmodule HotPatch.NodeTagTest do
  # Tests that start nodes are tagged, see HotPatch.Test.NodeTag.
  use ExUnit.Case, async: true

  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NodeTag

  @root Path.expand("../..", __DIR__)
  @starts [":peer.start(", ~s|find_executable("erl")|]

  test "a test without the tag starts no node" do
    error = assert_raise RuntimeError, fn -> Cluster.start(1) end
    assert error.message =~ "HotPatch.NodeTagTest starts another node and is not tagged"
    assert error.message =~ "@tag :starts_nodes"
  end

  test "nor by a task that it waits for" do
    told = Task.async(fn -> assert_raise RuntimeError, &NodeTag.check!/0 end) |> Task.await()
    assert told.message =~ "is not tagged"
  end

  test "nor in a process that nobody waits for" do
    {pid, monitor} = :erlang.spawn_monitor(NodeTag, :check!, [])
    assert_receive {:DOWN, ^monitor, :process, ^pid, {%RuntimeError{message: text}, _stack}}
    assert text =~ "a node is started, and no test is found"
  end

  # It starts none: that would be slow.
  @tag :starts_nodes
  test "a test with the tag may" do
    assert NodeTag.check!() == :ok
    assert Task.await(Task.async(&NodeTag.check!/0)) == :ok
  end

  test "whoever starts a node asks first" do
    starters =
      for path <- Path.wildcard(Path.join(@root, "test/**/*.{ex,exs}")),
          path != __ENV__.file,
          text = File.read!(path),
          Enum.any?(@starts, &String.contains?(text, &1)),
          do: {Path.relative_to(path, @root), text}

    assert length(starters) > 5

    for {path, text} <- starters do
      assert text =~ "NodeTag.check!()",
             "#{path} starts nodes and does not call HotPatch.Test.NodeTag.check!/0 before"
    end
  end
end
