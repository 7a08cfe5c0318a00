defmodule HotPatch.Swap.Replay.GateTest do
  # Nothing of a replay gets out, whatever the code tries.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap.Replay.Callback
  alias HotPatch.Swap.Shadow
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Leaks

  @module HotPatch.Test.Leaking

  setup_all do
    [old, new] = for side <- [:old, :new], do: Leaks.compile(@module, side)
    %{old: old, new: new}
  end

  setup do
    # What one test has begun may come late.
    name = "hot_patch_leak-#{System.pid()}-#{System.unique_integer([:positive])}"
    path = Path.join(System.tmp_dir!(), name)
    witness = Leaks.watch(path)

    on_exit(fn ->
      Leaks.unwatch()
      unload(@module)
    end)

    %{witness: witness, path: path}
  end

  # Plays one message by the new code, in a process that lives for it.
  defp play(name, file, family) do
    actor = %{
      side: :new,
      kind: :server,
      module: family[@module],
      family: family,
      coming: %HotPatch.Swap.Replay.Coming{},
      real: self(),
      funs: %{},
      state: Leaks.state(file),
      dictionary: []
    }

    task = Task.async(fn -> Callback.run(actor, {:attempt, name}, %{}) |> elem(0) end)
    Task.await(task, 120_000)
  end

  test "no attempt reaches anybody or anything", %{
    old: old,
    new: new,
    path: file,
    witness: witness
  } do
    how = replay([{@module, old, new}], 1)
    :ok = Shadow.load(how.new)
    on_exit(fn -> Shadow.unload(how.new) end)
    family = Map.new(how.new, &{&1.module, &1.name})

    outcomes =
      for name <- Leaks.names() do
        outcome = play(name, file, family)
        assert {name, Leaks.marks(file)} == {name, []}
        {name, outcome}
      end

    assert Process.info(witness, [:links, :monitored_by]) == [links: [], monitored_by: []]

    # What is sent and forgotten is known, the rest is left aside. None of it was just an error.
    {noted, left} = Enum.split_with(outcomes, &match?({_name, {:done, _what}}, &1))
    assert Enum.reject(left, &match?({_name, {:left, _why}}, &1)) == []

    sent = for {name, {:done, %{sent: [_ | _]}}} <- noted, do: name

    for name <- [:send, :send_reduce, :send_captured, :cast, :exit, :send_after, :continue],
        do: assert(name in sent)

    why = fn name ->
      {:left, why} = outcomes[name]
      why
    end

    assert why.(:halt) == {:calls, {:erlang, :halt, 1}}
    assert why.(:ets) == {:calls, {:ets, :insert, 2}}
    assert why.(:receive) == :receives
    assert why.(:send_caught) == {:calls, {:erlang, :spawn, 1}}
    assert why.(:foreign) == {:calls, {Leaks.Leaky, :leak, 1}}
    assert why.(:foreign_fun) == {:calls, {Leaks.Leaky, :leak, 1}}
    assert why.(:handed_on) == {:calls, {Leaks.Leaky, :fetch, 2}}
    assert why.(:enumerable_struct) == {:struct_of, Leaks.Leaky}
    assert why.(:sorter) == {:struct_of, Leaks.Leaky}
    assert {:fun_of, _this} = why.(:state_fun)
  end

  test "no atom is made, as they are never given back" do
    body = fn code ->
      Builds.erlang("""
      -module(hot_patch_test_atoms).
      -export([handle_info/2]).
      handle_info({go, S}, S) -> #{code}, {noreply, S}.
      """)
    end

    for {code, n} <-
          Enum.with_index([
            "list_to_atom(S)",
            "binary_to_atom(list_to_binary(S))",
            "binary_to_term(<<131, 119, (length(S)), (list_to_binary(S))/binary>>)",
            "'Elixir.String':to_atom(list_to_binary(S))",
            "'Elixir.List':to_atom(S)",
            "'Elixir.Module':concat([list_to_binary(S)])"
          ]) do
      beam = body.(code)
      how = replay([{:hot_patch_test_atoms, beam, beam}], 1)
      :ok = Shadow.load(how.new)
      name = ~c"hot_patch_test_atom_" ++ Integer.to_charlist(n)
      family = Map.new(how.new, &{&1.module, &1.name})

      actor = %{
        side: :new,
        kind: :server,
        module: family.hot_patch_test_atoms,
        family: family,
        coming: %HotPatch.Swap.Replay.Coming{},
        real: self(),
        funs: %{},
        state: name,
        dictionary: []
      }

      task = Task.async(fn -> Callback.run(actor, {:go, name}, %{}) |> elem(0) end)
      assert {code, {:left, :atoms}} == {code, Task.await(task, 120_000)}
      Shadow.unload(how.new)

      for made <- [name, ~c"Elixir." ++ name],
          do: assert_raise(ArgumentError, fn -> :erlang.list_to_existing_atom(made) end)
    end
  end

  test "a receive is left where it stands, and the rest of its function is played" do
    module = :hot_patch_test_receives

    beam =
      Builds.erlang("""
      -module(#{module}).
      -export([handle_info/2]).
      handle_info({add, N}, S) -> {noreply, S + N};
      handle_info({flush, N}, S) -> flush(), {noreply, S + N};
      handle_info({wait, N}, S) ->
          More = lists:seq(1, N), Sum = lists:sum(More),
          receive {more, X} -> {noreply, [X, Sum | More]} after 0 -> {noreply, S + Sum + length(More)} end;
      handle_info({asked, Pid, N}, S) ->
          Ref = make_ref(), Pid ! {self(), Ref, N}, receive {Ref, Answer} -> {noreply, S + Answer} end;
      handle_info({sleep, N}, S) -> receive after N -> ok end, {noreply, S};
      handle_info({sure, N}, S) -> sure(N), {noreply, S}.
      flush() -> receive _ -> flush() after 0 -> ok end.
      sure(N) when N > 1 -> N;
      sure(N) -> try receive X -> X after N -> ok end catch _:_ -> ok end.
      """)

    how = replay([{module, beam, beam}], 1)
    :ok = Shadow.load(how.new)
    on_exit(fn -> Shadow.unload(how.new) end)

    play = fn message ->
      actor = %{
        side: :new,
        kind: :server,
        module: hd(how.new).name,
        family: %{module => hd(how.new).name},
        real: self(),
        funs: %{},
        state: 1,
        dictionary: []
      }

      Callback.run(actor, message, %{})
    end

    asked = fn ->
      # What is there is not taken.
      send(self(), {:more, 1})
      :erlang.garbage_collect()
      assert {{:done, _done}, %{state: 3}, _reads} = play.({:add, 2})

      for message <- [{:flush, 1}, {:wait, 50}, {:asked, self(), 1}, {:sleep, 1}, {:sure, 1}] do
        :erlang.garbage_collect()
        assert {{:left, :receives}, _actor, _reads} = play.(message)
      end

      # Where something is caught, the function is left as a whole.
      assert {{:left, :receives}, _actor, _reads} = play.({:sure, 2})
      assert_received {:more, 1}
      refute_received _anything
    end

    # In a process without anything that catches below it.
    {pid, monitor} = spawn_monitor(fn -> for _n <- 1..50, do: asked.() end)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}
  end

  @tag :slow
  test "made for real, each of these attempts is seen", %{new: new, path: file} do
    load(@module, new)

    for name <- Leaks.seen() do
      {:ok, pid} = :gen_server.start(@module, Leaks.state(file), [])
      monitor = Process.monitor(pid)
      send(pid, {:attempt, name})
      until(fn -> Leaks.marks(file) != [] end, "#{name} is seen")
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}
    end
  end
end
