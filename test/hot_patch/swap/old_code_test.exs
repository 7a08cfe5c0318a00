defmodule HotPatch.Swap.OldCodeTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Swap.OldCode.Purge
  alias HotPatch.Swap.OldCode.Users
  alias HotPatch.Test.Builds

  @held :hot_patch_test_held
  @other :hot_patch_test_other
  @modules [@held, @other]

  setup do
    for module <- @modules, do: load(module, beam(module, 1))
    on_exit(fn -> Enum.each(@modules, &unload/1) end)
  end

  # `hold` is left only when the fun that it is given returns.
  defp beam(module, version) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{version}).
    -export([hold/1, a_fun/0]).
    hold(Fun) -> Result = Fun(), {held, Result}.
    a_fun() -> fun() -> {#{module}, #{version}} end.
    """)
  end

  defp hold(module, frames) do
    test = self()

    pid =
      spawn(fn ->
        module.hold(fn -> wait_below(frames, test) end)
      end)

    on_exit(fn -> kill([pid]) end)
    assert_receive {:waits, ^pid}
    pid
  end

  # Frames of another module, between the receive and whoever called. The VM counts equal
  # ones that follow each other as one.
  defp wait_below(0, test) do
    send(test, {:waits, self()})
    receive do: (:stop -> 0)
  end

  defp wait_below(frames, test) when rem(frames, 2) == 0, do: 1 + wait_below(frames - 1, test)
  defp wait_below(frames, test), do: 1 + wait_below(frames - 1, test)

  defp make_old, do: for(module <- @modules, do: load(module, beam(module, 2)))

  # A change of the modules in this order.
  defp change(modules),
    do: job(for module <- modules, do: {module, beam(module, 2), beam(module, 3)})

  describe "who runs old code" do
    test "is seen on the stack, for all modules at once" do
      first = hold(@held, 0)
      second = hold(@other, 3)
      assert Swap.holders(@modules) == %{}
      make_old()
      assert Swap.holders(@modules) == %{@held => [first], @other => [second]}
      assert Swap.holders([@other]) == %{@other => [second]}
    end

    test "is asked where the VM has cut the stack" do
      pid = hold(@held, 30)
      make_old()
      {:current_stacktrace, stack} = Process.info(pid, :current_stacktrace)
      refute Enum.any?(stack, &(elem(&1, 0) == @held))

      assert Swap.holders(@modules) == %{@held => [pid]}
      assert Users.of_one(@held) == [pid]
      assert [%{pid: ^pid, module: @held}] = Swap.stragglers(@modules, [])
    end

    test "is not who runs the new code of the module" do
      make_old()
      hold(@held, 0)
      hold(@held, 30)
      assert Swap.holders(@modules) == %{}
      assert Users.of_one(@held) == []
    end
  end

  describe "a preparation" do
    test "names the holder, however deep its stack is" do
      pid = hold(@held, 30)
      make_old()
      assert {:error, %{reason: :old_code, text: text}} = Swap.prepare(change(@modules))
      assert text =~ inspect(@held)
      assert text =~ inspect(pid)

      send(pid, :stop)
      until(fn -> not Process.alive?(pid) end, "the holder ends")
      assert {:ok, ready} = Swap.prepare(change(@modules))
      Swap.discard(ready)
    end

    test "that finds old code in use purges none of what comes after it" do
      fun = apply(@other, :a_fun, [])
      hold(@held, 0)
      make_old()
      assert {:error, %{reason: :old_code}} = Swap.prepare(change([@held, @other]))
      assert :erlang.check_old_code(@other)
      assert fun.() == {@other, 1}
    end

    test "purges nothing, whatever becomes of it" do
      fun = apply(@other, :a_fun, [])
      make_old()

      for purge <- [:soft, :force] do
        assert {:ok, ready} = Swap.prepare(%{change(@modules) | purge: purge})
        Swap.discard(ready)
        held = %{ready | job: %{ready.job | hold_timeout: 5_000}}
        assert {:error, _} = Swap.run(held, &Swap.decide(&1, {:take_back, "no"}))
        assert Enum.all?(@modules, &:erlang.check_old_code/1)
        assert fun.() == {@other, 1}
      end
    end

    test "by force purges with the load" do
      pid = hold(@held, 30)
      make_old()
      assert {:ok, ready} = Swap.prepare(%{change([@held, @other]) | purge: :force})
      assert Enum.all?(@modules, &:erlang.check_old_code/1)
      assert {:ok, %{killed: [^pid]}} = Swap.run(ready)
      refute Process.alive?(pid)
    end
  end

  test "a purge of what has no old code, or is not there at all, succeeds" do
    assert Purge.all(@modules ++ [:hot_patch_test_nowhere]) == :ok
  end

  test "a purge leaves the VM as it was set" do
    limit = :erlang.system_info(:outstanding_system_requests_limit)
    hold(@held, 0)
    make_old()
    assert {:held, @held, [_pid]} = Purge.all(@modules)
    assert :erlang.system_info(:outstanding_system_requests_limit) == limit
    assert Purge.unused(@modules) == :ok
    assert :erlang.system_info(:outstanding_system_requests_limit) == limit
  end

  test "a swap leaves nothing of its shadows" do
    server = :hot_patch_test_shadowed
    on_exit(fn -> unload(server) end)
    [v1, v2] = for version <- ["v1", "v2"], do: server(server, version)
    load(server, v1)
    {:ok, pid} = :gen_server.start(server, 1, [])
    on_exit(fn -> kill([pid]) end)

    job = job([{server, v1, v2}])
    assert [%{name: shadow}] = job.shadows
    assert {:ok, %{suspended: 1}} = run(job)
    refute :erlang.module_loaded(shadow)

    # Its memory is given back before the next of the same name is loaded.
    v3 = server(server, "v3")
    assert {:ok, %{suspended: 1}} = run(job([{server, v2, v3}]))
    assert :gen_server.call(pid, :get) == {:v3, 1}
    refute :erlang.module_loaded(shadow)
  end
end
