defmodule HotPatch.NodeAgent.InstructionRunner.ChildrenTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  alias HotPatch.NodeAgent.InstructionRunner.Children
  alias HotPatch.Test.Builds

  @module :hot_patch_test_parent

  defp supervisor(children) do
    specs = Enum.map_join(children, ", ", &"\#{id => #{&1}, start => {#{@module}, #{&1}, []}}")

    Builds.erlang("""
    -module(#{@module}).
    -behaviour(supervisor).
    -export([init/1, good/0, endless/0]).
    init([]) -> {ok, {\#{}, [#{specs}]}}.
    good() -> {ok, proc_lib:spawn_link(fun() -> receive stop -> ok end end)}.
    endless() -> proc_lib:start_link(timer, sleep, [infinity]).
    """)
  end

  test "one whose start does not end is named and ended, and its supervisor goes on" do
    load(@module, supervisor([:good]))
    on_exit(fn -> unload(@module) end)
    {:ok, pid} = :supervisor.start_link(@module, [])
    Process.unlink(pid)
    on_exit(fn -> kill([pid]) end)
    before = Children.known(@module)
    [{:good, good, _type, _modules}] = :supervisor.which_children(pid)

    load(@module, supervisor([:good, :endless]))

    assert catch_exit(Children.follow(@module, before, [], 100)) ==
             {:endless, {:start_took_too_long, 100}}

    # What was there stays, and nothing waits.
    assert {:good, good, :worker, [@module]} in :supervisor.which_children(pid)
    {:links, links} = Process.info(pid, :links)
    assert links == [good]
  end
end
