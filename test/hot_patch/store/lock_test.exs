defmodule HotPatch.Store.LockTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Folders
  import HotPatch.Test.Until

  alias HotPatch.Store.Lock
  alias HotPatch.Store.Lock.Owner
  alias HotPatch.Store.Log
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Increments

  setup do
    folder = Path.join(Builds.tmp(), "lock-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    remove_on_exit(folder)
    %{folder: folder, lock: Path.join(folder, "lock")}
  end

  describe "one process" do
    test "gets what its function gives, and leaves nothing", %{folder: folder, lock: lock} do
      assert Lock.with_lock(lock, 0, fn -> {:some, "result"} end) == {:ok, {:some, "result"}}
      assert Lock.with_lock(lock, :infinity, fn -> 2 end) == {:ok, 2}
      assert File.ls!(folder) == []
      assert Process.get() |> Enum.filter(&match?({{Owner, _}, _}, &1)) == []
    end

    test "frees it when the function raises, throws, or exits", %{lock: lock} do
      assert_raise RuntimeError, "no", fn -> Lock.with_lock(lock, 0, fn -> raise "no" end) end
      assert catch_throw(Lock.with_lock(lock, 0, fn -> throw(:no) end)) == :no
      assert catch_exit(Lock.with_lock(lock, 0, fn -> exit(:no) end)) == :no
      assert Lock.with_lock(lock, 0, fn -> :free end) == {:ok, :free}
    end

    test "does not get it twice", %{lock: lock} do
      assert {:ok, {:error, {:locked, owner}}} =
               Lock.with_lock(lock, 0, fn -> Lock.with_lock(lock, 20, fn -> :twice end) end)

      assert owner =~ "pid=#{System.pid()} "
      assert owner =~ "node=#{node()}"
      assert Lock.with_lock(lock, 0, fn -> :free end) == {:ok, :free}
    end

    test "is told why there can be no lock", %{folder: folder, lock: lock} do
      File.mkdir_p!(lock)
      assert Lock.with_lock(lock, 0, fn -> :no end) == {:error, :eisdir}
      File.write!(Path.join(folder, "file"), "")

      assert {:error, posix} = Lock.with_lock(Path.join(folder, "file/lock"), 0, fn -> :no end)
      assert posix in [:enotdir, :eexist]
      assert Enum.sort(File.ls!(folder)) == ["file", "lock"]
    end

    test "makes the folder", %{folder: folder} do
      assert Lock.with_lock(Path.join(folder, "a/b/lock"), 0, fn -> 1 end) == {:ok, 1}
    end
  end

  describe "what is in the file" do
    test "of somebody else is respected", %{lock: lock} do
      File.write!(lock, "maintenance until noon\n")

      assert Lock.with_lock(lock, 20, fn -> 1 end) ==
               {:error, {:locked, "maintenance until noon"}}

      File.write!(lock, <<0xFF, 1>>)
      assert Lock.with_lock(lock, 0, fn -> 1 end) == {:error, {:locked, "<<255, 1>>"}}
    end

    test "is nothing after a power cut", %{lock: lock} do
      for text <- ["", <<0, 0, 0>>] do
        File.write!(lock, text)
        assert Lock.with_lock(lock, 0, fn -> 1 end) == {:ok, 1}
      end
    end

    test "is stale with another start time, boot, process, or token", %{lock: lock} do
      me = Owner.new()
      assert Owner.lives?(me.text)

      for {was, is} <- [
            {~r/ start=\d+/, " start=1"},
            {~r/ boot=\S+/, " boot=earlier"},
            {~r/ process=\S+/, " process=<0.999999.0>"},
            {~r/ process=\S+/, " process=<0.99999999999999999999.0>"},
            {~r/ token=\S+/, " token=0123456789ABCDEF"}
          ] do
        stale = Regex.replace(was, me.text, is)
        refute Owner.lives?(stale), stale
        File.write!(lock, stale)
        File.write!(lock <> ".takeover", stale)
        assert Lock.with_lock(lock, 0, fn -> 1 end) == {:ok, 1}
      end

      Owner.forget(me)
      refute Owner.lives?(me.text)
    end

    test "is replaced by one taker at a time", %{lock: lock} do
      File.write!(lock, "")
      taker = lock <> ".takeover"

      assert {:ok, {:error, {:locked, owner}}} =
               Lock.with_lock(taker, 0, fn -> Lock.with_lock(lock, 20, fn -> :no end) end)

      assert owner =~ "process=#{:erlang.pid_to_list(self())}"
      assert File.read!(lock) == ""
      assert Lock.with_lock(lock, 0, fn -> :free end) == {:ok, :free}
      refute File.exists?(taker)
    end

    test "counts as living where the start time is not known", %{lock: lock} do
      me = Owner.new()
      File.write!(lock, Regex.replace(~r/ (start|boot)=\S+/, me.text, " \\1=-"))
      assert {:error, {:locked, _}} = Lock.with_lock(lock, 0, fn -> 1 end)
    end
  end

  test "an OS process is told by its start, by /proc and by ps; a zombie is dead" do
    # The shell's child ends, and what the shell becomes never asks for it.
    port = Port.open({:spawn, "sh -c 'sleep 0 & echo $!; exec sleep 60'"}, [:binary])
    assert_receive {^port, {:data, zombie}}
    {:os_pid, pid} = Port.info(port, :os_pid)
    pid = Integer.to_string(pid)
    on_exit(fn -> System.cmd("kill", ["-9", pid], stderr_to_stdout: true) end)

    until(fn -> Owner.started(String.trim(zombie)) == nil end, "the zombie counted as dead")

    for started <- [&Owner.started/1, &Owner.started_by_ps/1] do
      assert is_binary(started.(System.pid()))
      assert started.(pid) == started.(pid)
      # Not a pid on any system.
      assert started.("4194999") in [nil, "-"]
    end

    System.cmd("kill", ["-9", pid])
    until(fn -> Owner.started(pid) == nil end, "the killed one dead")
  end

  describe "processes of one node" do
    test "exclude each other", %{folder: folder} do
      1..8
      |> Enum.map(fn n ->
        Task.async(fn -> Increments.run(folder, Path.join(folder, "log-#{n}"), 10) end)
      end)
      |> Task.await_many(120_000)

      assert Increments.count(folder) == 80
    end

    test "take it from one that was killed", %{folder: folder, lock: lock} do
      holder = spawn(fn -> Increments.hold(folder) end)
      until(fn -> File.exists?(Path.join(folder, "held")) end, "held")
      assert {:error, {:locked, owner}} = Lock.with_lock(lock, 0, fn -> :no end)
      assert owner =~ "process=#{:erlang.pid_to_list(holder)}"

      Process.exit(holder, :kill)
      assert Lock.with_lock(lock, 5_000, fn -> :mine end) == {:ok, :mine}
      assert File.ls!(folder) == ["held"]
    end

    # Killed at random moments, also while they take over from those killed before.
    @tag timeout: 120_000
    test "are never two in it, however many are killed", %{folder: folder, lock: lock} do
      table = :ets.new(:witness, [:public])
      :ets.insert(table, [{:done, 0}, {:two, 0}])
      kill_some(for(_ <- 1..6, do: worker(lock, table)), lock, table, 100)

      # On a busy machine none of them may have got so far yet.
      last = worker(lock, table)
      until(fn -> :ets.lookup_element(table, :done, 2) > 0 end, "somebody had the lock")
      kill_some([last], lock, table, 0)
      assert :ets.lookup_element(table, :two, 2) == 0
      assert Lock.with_lock(lock, 5_000, fn -> :free end) == {:ok, :free}

      # Those killed before they had written anything leave an empty file.
      for name <- File.ls!(folder), String.ends_with?(name, ".claim") do
        assert File.read!(Path.join(folder, name)) == ""
      end
    end
  end

  describe "OS processes" do
    @tag :starts_nodes
    @tag timeout: 120_000
    test "lose no increment", %{folder: folder} do
      peers = start_peers(3)

      calls =
        for peer <- peers, do: Task.async(fn -> run(peer, folder, log(folder, peer), 25) end)

      assert Task.await_many(calls, 90_000) == [:ok, :ok, :ok]
      assert Increments.count(folder) == 75
    end

    @tag :starts_nodes
    @tag timeout: 120_000
    test "go on when one that holds it is killed", %{folder: folder} do
      [holder | others] = start_peers(3)
      pid = :peer.call(holder, System, :pid, [])
      :peer.cast(holder, Increments, :hold, [folder])
      until(fn -> File.exists?(Path.join(folder, "held")) end, "held")

      assert {:error, {:locked, owner}} =
               Lock.with_lock(Path.join(folder, "lock"), 0, fn -> 1 end)

      assert owner =~ "pid=#{pid} "

      calls =
        for peer <- others, do: Task.async(fn -> run(peer, folder, log(folder, peer), 10) end)

      # They wait.
      until(
        fn -> length(HotPatch.Support.Folder.files(folder, ".claim")) == 2 end,
        "both waiting"
      )

      assert Increments.count(folder) == 0

      {_, 0} = System.cmd("kill", ["-9", pid])
      assert Task.await_many(calls, 120_000) == [:ok, :ok]
      assert Increments.count(folder) == 20
    end

    @tag :starts_nodes
    @tag timeout: 120_000
    test "lose nothing that was confirmed when some are killed anywhere", %{folder: folder} do
      [a, b | others] = peers = start_peers(4)
      killed = for peer <- [a, b], do: {peer, :peer.call(peer, System, :pid, [])}

      for {peer, _pid} <- killed,
          do: :peer.cast(peer, Increments, :run, [folder, log(folder, peer), 1_000_000])

      calls =
        for peer <- others, do: Task.async(fn -> run(peer, folder, log(folder, peer), 25) end)

      for {peer, pid} <- killed do
        until(fn -> length(confirmed(folder, peer)) >= 5 end, "some confirmed")
        {_, 0} = System.cmd("kill", ["-9", pid])
      end

      assert Task.await_many(calls, 120_000) == [:ok, :ok]
      sum = peers |> Enum.map(&length(confirmed(folder, &1))) |> Enum.sum()
      # Each of the killed may have counted without having said so yet.
      assert Increments.count(folder) in sum..(sum + 2)
    end
  end

  defp worker(lock, table), do: spawn(fn -> work(lock, table) end)

  defp work(lock, table) do
    {:ok, _} = Lock.with_lock(lock, :infinity, fn -> witness(lock, table) end)
    :ets.update_counter(table, :done, 1)
    work(lock, table)
  end

  # Alone, or after one who died in here.
  defp witness(lock, table) do
    unless :ets.insert_new(table, {:holder, self()}) do
      [{:holder, holder}] = :ets.lookup(table, :holder)
      if Process.alive?(holder), do: :ets.update_counter(table, :two, 1)
      :ets.insert(table, {:holder, self()})
    end

    # For as long as others need to look at the lock, and more.
    for _ <- 1..20, do: File.read(lock)
    :ets.delete(table, :holder)
  end

  defp kill_some(workers, _lock, _table, 0) do
    for worker <- workers, do: Process.exit(worker, :kill)
    until(fn -> not Enum.any?(workers, &Process.alive?/1) end, "all ended")
  end

  defp kill_some(workers, lock, table, kills) do
    # A random moment, not a wait for anything.
    receive do
    after
      :rand.uniform(10) -> :ok
    end

    victim = Enum.random(workers)
    assert Process.alive?(victim)
    Process.exit(victim, :kill)
    kill_some([worker(lock, table) | List.delete(workers, victim)], lock, table, kills - 1)
  end

  defp start_peers(count) do
    HotPatch.Test.NodeTag.check!()
    args = Enum.flat_map(HotPatch.Test.Cluster.code_path(), &[~c"-pa", &1])

    for _ <- 1..count do
      {:ok, peer, _node} = :peer.start(%{connection: :standard_io, args: args, wait_boot: 60_000})

      on_exit(fn ->
        try do
          :peer.stop(peer)
        catch
          # Killed by the test.
          :exit, _ -> :ok
        end
      end)

      peer
    end
  end

  defp run(peer, folder, log, times),
    do: :peer.call(peer, Increments, :run, [folder, log, times], 90_000)

  defp log(folder, peer), do: Path.join(folder, "log#{:erlang.pid_to_list(peer)}")

  defp confirmed(folder, peer) do
    {:ok, confirmed, _torn} = Log.read(log(folder, peer))
    confirmed
  end
end
