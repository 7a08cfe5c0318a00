defmodule Bench.Swap.Ways do
  # The ways to change code that are compared. Each takes the modules from version 1 to
  # version 2, with every process's state, and purges the old code.

  alias Bench.Swap.Subject
  alias HotPatch.Swap

  def names do
    [
      "release_handler_1",
      "sys:suspend 100 wide",
      "HotPatch",
      "HotPatch compatible",
      "HotPatch no change",
      "bare two turns",
      "bare in turn",
      "bare load",
      "nothing"
    ]
  end

  @doc "Whether the states are those of the second version afterwards; callers would not notice."
  def converts?(name), do: name not in ["HotPatch no change", "bare load", "nothing"]

  @doc "Prepares a change; the function that it gives carries it out."
  def prepare("release_handler_1", root, modules), do: release_handler(root, modules)
  def prepare("sys:suspend 100 wide", root, modules), do: parallel_sys(root, modules)
  def prepare("HotPatch", root, modules), do: hot_patch(root, modules, :suspend)
  def prepare("HotPatch compatible", root, modules), do: hot_patch(root, modules, :compatible)
  def prepare("HotPatch no change", root, modules), do: hot_patch(root, modules, :none)

  # What no way can do without where states change, all together.
  def prepare("bare two turns", root, modules), do: bare_two_turns(root, modules)

  # The same where each changes in its turn.
  def prepare("bare in turn", root, modules), do: bare_in_turn(root, modules)

  # The same where states stay as they are, and what callers wait when nothing is done.
  def prepare("bare load", root, modules), do: bare_load(root, modules)
  def prepare("nothing", _root, _modules), do: fn -> :nothing end

  # OTP's own, through its script evaluator, with the instructions that systools would make.
  defp release_handler(root, modules) do
    lib = {Subject.app(), ~c"2", String.to_charlist(Path.join(root, "bench_app-2"))}

    script =
      [
        {:load_object_code, {Subject.app(), ~c"2", modules}},
        :point_of_no_return,
        {:suspend, [Subject.server()]}
      ] ++
        for(module <- modules, do: {:load, {module, :soft_purge, :soft_purge}}) ++
        [{:code_change, :up, [{Subject.server(), []}]}, {:resume, [Subject.server()]}]

    fn ->
      {:ok, _unpurged} = :release_handler_1.eval_script(script, [], [lib], [], [])
      :ok
    end
  end

  # As FlyDeploy does it: processes by $initial_call, sys:suspend from a hundred tasks,
  # purge and load_binary module by module inside the pause.
  defp parallel_sys(root, modules) do
    server = Subject.server()
    beams = for module <- modules, do: {module, Subject.beam(root, 2, module)}
    wide = [max_concurrency: 100, ordered: false, timeout: :infinity]

    fn ->
      pids =
        for pid <- Process.list(),
            {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
            match?({^server, _, _}, dictionary[:"$initial_call"]),
            do: pid

      pids |> Task.async_stream(&:sys.suspend(&1, 60_000), wide) |> Stream.run()

      for {module, beam} <- beams do
        :code.purge(module)
        {:module, _} = :code.load_binary(module, ~c"nofile", beam)
      end

      pids
      |> Task.async_stream(&:sys.change_code(&1, server, 1, [], 60_000), wide)
      |> Stream.run()

      pids |> Task.async_stream(&:sys.resume(&1, 60_000), wide) |> Stream.run()
    end
  end

  # What an agent prepares before it commits is prepared here.
  defp hot_patch(root, modules, transition) do
    versions =
      for module <- modules,
          do: {module, Subject.beam(root, 1, module), Subject.beam(root, 2, module)}

    {funs, []} = HotPatch.NodeAgent.FunMaps.of(versions)

    {:ok, ready} =
      Swap.prepare(%Swap.Job{
        changes: for(module <- modules, do: %{change(root, module) | funs: funs[module]}),
        prepared: prepared(root, 2, modules),
        shadows: shadows(root, [Subject.server()]),
        pause_timeout: 60_000,
        transition: transition
      })

    fn ->
      {:ok, _done} = Swap.run(ready)
      :ok
    end
  end

  # Nothing but what has to be: each process is told once to stand still, converts its state by the new
  # code under another name and counts that, and is told once more to go on. Who is late, what fails, who
  # is born or dies meanwhile, whose state holds a fun: nothing of that is looked at, and there is no way back.
  defp bare_two_turns(root, modules) do
    prepared = prepared(root, 2, modules)
    [%{name: shadow, bytes: bytes}] = shadows(root, [Subject.server()])
    {:module, ^shadow} = :code.load_binary(shadow, ~c"nofile", bytes)
    pids = for {_id, pid, _type, _modules} <- :supervisor.which_children(:bench_sup), do: pid
    count = :erlang.system_info(:schedulers_online)
    parts = Enum.chunk_every(pids, div(length(pids) + count - 1, count))

    fn ->
      left = :atomics.new(1, [])
      :atomics.put(left, 1, length(pids))
      waiter = self()
      still = fn state -> bare_still(state, shadow, left, waiter) end
      senders = for part <- parts, do: bare_sender(part, still, waiter)
      receive(do: (:all -> :ok))
      :ok = :code.finish_loading(prepared)
      for sender <- senders, do: send(sender, :go)
      for sender <- senders, do: receive(do: ({^sender, :done} -> :ok))
      :code.purge(shadow)
      :code.delete(shadow)
      :code.purge(shadow)
      :ok
    end
  end

  defp bare_sender(pids, still, waiter) do
    nobody = nobody()

    :erlang.spawn_opt(
      fn ->
        for pid <- pids, do: send(pid, {:system, nobody, {:replace_state, still}})
        receive(do: (:go -> :ok))
        for pid <- pids, do: send(pid, {:system, nobody, {:hot_patch, nil, :look}})
        send(waiter, {self(), :done})
      end,
      [:link, priority: :high, min_heap_size: 100_000]
    )
  end

  # The load, and then each process converts its state, so many at a time as HotPatch has; nobody is watched, nothing tried
  # before.
  defp bare_in_turn(root, modules) do
    prepared = prepared(root, 2, modules)
    server = Subject.server()
    pids = for {_id, pid, _type, _modules} <- :supervisor.which_children(:bench_sup), do: pid
    windows = Enum.chunk_every(pids, 25)

    fn ->
      :ok = :code.finish_loading(prepared)
      Enum.each(windows, &bare_window(&1, server, nobody()))
      :ok
    end
  end

  defp bare_window(pids, server, nobody) do
    waiter = self()
    last = List.last(pids)

    for pid <- pids do
      change = fn state ->
        {:ok, new} = server.code_change(1, state, [])
        if pid == last, do: send(waiter, :last)
        new
      end

      send(pid, {:system, nobody, {:replace_state, change}})
    end

    receive(do: (:last -> :ok))
  end

  # An alias that is in use no more: what is sent to it is dropped.
  defp nobody do
    ref = :erlang.alias([:explicit_unalias])
    :erlang.unalias(ref)
    {self(), [:alias | ref]}
  end

  defp bare_still(state, shadow, left, waiter) do
    {:ok, new} = shadow.code_change(1, state, [])
    if :atomics.sub_get(left, 1, 1) == 0, do: send(waiter, :all)
    receive(do: ({:system, _from, {:hot_patch, nil, :look}} -> new))
  end

  defp bare_load(root, modules) do
    prepared = prepared(root, 2, modules)
    fn -> :ok = :code.finish_loading(prepared) end
  end

  defp shadows(root, modules) do
    beams = for module <- modules, do: Subject.beam(root, 2, module)

    {:ok, answers} = HotPatch.Archive.copies(beams, Swap.DynamicCalls.naming(), "the subjects")

    for {{:ok, shadow}, module} <- Enum.zip(answers, modules) do
      %{
        module: module,
        name: String.to_atom(shadow.name),
        bytes: shadow.bytes,
        lambdas?: shadow.lambdas and (shadow.effect != nil or shadow.makes_funs),
        effect: shadow.effect
      }
    end
  end

  defp change(root, module) do
    exports = for {name, arity} <- module.module_info(:exports), do: {Atom.to_string(name), arity}
    md5 = :code.module_md5(Subject.beam(root, 2, module))
    %Swap.Change{module: module, kind: :replace, exports: exports, md5: md5, old_vsn: 1}
  end

  defp prepared(root, version, modules) do
    {:ok, prepared} =
      :code.prepare_loading(
        for module <- modules,
            do:
              {module, ~c"#{Subject.ebin(root, version)}/#{module}.beam",
               Subject.beam(root, version, module)}
      )

    prepared
  end
end
