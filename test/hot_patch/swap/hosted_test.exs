defmodule HotPatch.Swap.HostedTest do
  # LiveViews and channels: processes that work for a module which only the library's state names.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Swap.Views
  alias HotPatch.Test.Phoenix, as: Fake

  @view :hot_patch_test_view
  @room :hot_patch_test_room
  @box :hot_patch_test_box
  @parts :hot_patch_test_parts

  @channel Phoenix.LiveView.Channel

  # Up it multiplies, down it keeps: which of them was called, and how often, shows in the number.
  @convert """
  case Old of
    {down, _} -> maps:remove(m, A\#{n => maps:get(m, A)});
    _ -> maps:remove(n, A\#{m => 10 * maps:get(n, A)})
  end
  """
  @with_fun """
  case Old of
    {down, _} -> maps:without([m, f], A\#{n => maps:get(m, A)});
    _ -> maps:remove(n, A\#{m => 10 * maps:get(n, A), f => fun(X) -> {made_by, v2, X} end})
  end
  """

  setup do
    Fake.load!()
    on_exit(fn -> Enum.each([@view, @room, @box, @parts], &unload/1) end)
  end

  defp event(pid, event), do: :gen_server.call(pid, {:event, event})
  defp assigns(pid), do: Map.drop(:gen_server.call(pid, :socket).assigns, [:__changed__])
  defp back(job), do: %{job | changes: Enum.map(job.changes, &down/1), shadows: []}

  defp down(change),
    do: %{change | direction: :down, old_vsn: {:down, change.old_vsn}, callback_mode: nil}

  # The way back of a job between two versions of a module.
  defp down_job(module, v1, v2) do
    job = job([{module, v2, v1}])
    [change] = job.changes
    %{back(job) | changes: [%{down(change) | exports: exports(v2), arriving: exports(v1)}]}
  end

  for {what, options} <- [
        {"a view without handle_info", [kind: :view]},
        {"a view with handle_info", [kind: :view, handle_info: true]},
        {"a view whose new state holds a fun", [kind: :view, convert: @with_fun]},
        {"a channel", [kind: :channel]}
      ] do
    test "#{what} is converted by its code_change, which gets its socket, up and down" do
      options = unquote(options)
      convert = Keyword.get(options, :convert, @convert)
      {module, v1} = version(options, "v1", key: "n")
      {^module, v2} = version(options, "v2", key: "m", code_change: convert)
      load(module, v1)
      pid = Fake.connect(options[:kind], module, %{n: 3})
      :ok = event(pid, :inc)

      job = job([{module, v1, v2}])
      assert %{targets: [target], silent: []} = Swap.find(job.changes)
      assert %{pid: ^pid, kind: :hosted, rule: :hosted, modules: [{^module, true}]} = target

      before = assigns(pid)
      assert {:ok, %{modules: [%{kind: :hosted, tried: 1, failures: []} = tried]}} = rehearse(job)
      assert [%{from: from, to: to}] = tried.forms
      assert from =~ ~r/\bn\b/ and to =~ ~r/\bm\b/
      assert assigns(pid) == before

      assert {:ok, %{suspended: 1, unsure: []}} = run(job)
      assert %{m: 40} = now = assigns(pid)
      refute is_map_key(now, :n)

      if is_map_key(now, :f),
        do: assert({now.f.(1), made_by(now.f)} == {{:made_by, :v2, 1}, module})

      assert goes_on?(pid)
      :ok = event(pid, :inc)

      assert {:ok, %{suspended: 1}} = run(down_job(module, v1, v2))
      assert assigns(pid) == %{n: 41}
      :ok = event(pid, :inc)
      assert assigns(pid) == %{n: 42}
      assert Process.info(pid, :message_queue_len) == {:message_queue_len, 0}
    end

    test "#{what} has its very state after a change that failed" do
      options = unquote(options)
      {module, v1} = version(options, "v1", key: "n")
      {^module, bad} = version(options, "v2", key: "m", code_change: "error({refused, A})")
      load(module, v1)
      pid = Fake.connect(options[:kind], module, %{n: 3})
      before = :sys.get_state(pid)
      assert {:error, %{reason: :taken_back, text: text}} = run(job([{module, v1, bad}]))
      assert text =~ "code_change of #{inspect(module)} failed"
      assert :sys.get_state(pid) == before
      :ok = event(pid, :inc)
      assert assigns(pid) == %{n: 4}
    end
  end

  defp version(options, version, more) do
    more = more ++ Keyword.take(options, [:handle_info])

    if options[:kind] == :view,
      do: {@view, Fake.view(@view, version, more)},
      else: {@room, Fake.room(@room, version, more)}
  end

  defp made_by(fun), do: fun |> Function.info(:module) |> elem(1)

  test "a code_change that gives something else than its socket is refused" do
    v1 = Fake.view(@view, "v1", key: "n")
    load(@view, v1)
    pid = Fake.connect(:view, @view)
    before = :sys.get_state(pid)

    for what <- [
          "{ok, A}",
          "{error, no}",
          "A",
          "{ok, A\#{'__struct__' => 'Elixir.Phoenix.LiveView.Socket', view => lists}}"
        ] do
      bad = Fake.view(@view, "v2", key: "n", code_change: {:gives, what})
      assert {:error, %{reason: :taken_back, text: text}} = run(job([{@view, v1, bad}]))
      if what =~ "{ok", do: assert(text =~ "it did not give back the socket that it was given")
      assert :sys.get_state(pid) == before
    end
  end

  test "a state that has not the form that is known is not guessed at" do
    v1 = Fake.view(@view, "v1", key: "n")
    load(@view, v1)
    pid = Fake.connect(:view, @view)
    strange = {:another, :sys.get_state(pid)}
    :sys.replace_state(pid, fn _ -> strange end)
    v2 = Fake.view(@view, "v2", key: "m", code_change: @convert)
    assert {:error, %{reason: :taken_back, text: text}} = run(job([{@view, v1, v2}]))
    assert text =~ "Phoenix keeps its state in another form"
    assert :sys.get_state(pid) == strange
  end

  # With its stack from OTP 28 on, without one before.
  defp asleep?(pid) do
    {:current_function, {_module, function, _arity}} = Process.info(pid, :current_function)
    Atom.to_string(function) =~ "hibernate"
  end

  test "a view that hibernates is converted, and one that is mounting is waited for" do
    v1 = Fake.view(@view, "v1", key: "n")
    load(@view, v1)
    asleep = Fake.begin(:view, 1)
    :ok = Fake.tell(asleep, @view, %{n: 1})
    until(fn -> asleep?(asleep) end, "it hibernates")
    mounting = Fake.begin(:view)
    :ok = :sys.suspend(mounting)
    v2 = Fake.view(@view, "v2", key: "m", code_change: @convert)
    job = job([{@view, v1, v2}])

    # It works for nobody yet, and is looked at again when it does.
    assert {:ok, ready} = Swap.prepare(job)
    assert [%{pid: ^asleep}] = ready.found.targets
    :ok = :sys.resume(mounting)
    :ok = Fake.tell(mounting, @view, %{n: 2})
    assert {:ok, %{suspended: 2, unsure: []}} = Swap.run(ready)
    assert {assigns(asleep), assigns(mounting)} == {%{m: 10}, %{m: 20}}
  end

  test "where the library changes too, its own code_change hands the state on to the new view" do
    v1 = Fake.view(@view, "v1", key: "n")
    load(@view, v1)
    pid = Fake.connect(:view, @view, %{n: 2})
    v2 = Fake.view(@view, "v2", key: "m", code_change: @convert)
    library = {@channel, Fake.channel(), Fake.channel("\#{noted => yes}")}
    assert {:ok, %{suspended: 1}} = run(job([library, {@view, v1, v2}]))
    assert assigns(pid) == %{m: 20}
    assert %{noted: :yes} = :gen_server.call(pid, :state)
  end

  test "a view that goes while sessions of it are there is refused" do
    v1 = Fake.view(@view, "v1", key: "n")
    load(@view, v1)
    pid = Fake.connect(:view, @view)
    assert {:error, %{reason: :fatal, text: text}} = run(job([{@view, v1, nil}]))
    assert text =~ "1 process would die: #{inspect(@view)} goes, and they work for it"
    :ok = event(pid, :inc)
  end

  test "funs in a view's assigns live through changes, also where it has no code_change" do
    maker = fn version ->
      HotPatch.Test.Builds.erlang("""
      -module(#{@parts}). -vsn("#{version}"). -export([made/1]).
      made(N) -> fun() -> {#{version}, N} end.
      """)
    end

    view = Fake.view(@view, "v1", key: "n")
    load(@view, view)
    load(@parts, maker.("v1"))
    pid = Fake.connect(:view, @view)
    :ok = event(pid, {:keep, apply(@parts, :made, [1])})

    for {from, to} <- [{"v1", "v2"}, {"v2", "v3"}, {"v3", "v1"}] do
      assert {:ok, _} = run(job([{@parts, maker.(from), maker.(to)}]))
      assert assigns(pid).kept.() == {String.to_existing_atom(to), 1}
    end
  end

  describe "rendering again" do
    defp view_with(box, version), do: Fake.view(@view, version, key: "n", shows: "[{1, #{box}}]")

    defp click(pid) do
      :sys.replace_state(pid, fn %{components: {by_cid, ids, next}} = state ->
        by_cid = Map.new(by_cid, fn {cid, c} -> {cid, put_elem(c, 2, %{clicks: 7})} end)
        %{state | components: {by_cid, ids, next}}
      end)
    end

    test "a view shows the new code, and its components keep their states though its template is another" do
      v1 = view_with(@box, "v1")
      load(@view, v1)
      load(@box, Fake.component(@box, :p1))
      pid = Fake.connect(:view, @view, %{n: 5})
      assert Fake.shown(pid) == {{:v1, 5}, []}
      click(pid)

      assert {:ok, _} = run(job([{@view, v1, view_with(@box, "v2")}]))
      assert Views.connected() == [{pid, @view}]

      assert Views.render_again(Views.connected()) ==
               %{again: 1, left: 0, unknown: 0, failed: []}

      assert Fake.shown(pid) == {{:v2, 5}, []}
      assert %{components: {%{1 => component}, _, _}} = :gen_server.call(pid, :state)
      assert {@box, "id", %{clicks: 7}, private, {:p1, %{}}} = component
      assert private == %{}
    end

    test "one that fails to render goes on as it was, and others are not concerned" do
      v1 = Fake.view(@view, "v1", key: "n")
      load(@view, v1)
      pid = Fake.connect(:view, @view)
      assert Fake.shown(pid) == {{:v1, 0}, []}
      bad = Fake.view(@view, "v2", key: "n", text: "maps:get(never_assigned, A)")
      assert {:ok, _} = run(job([{@view, v1, bad}]))
      before = :sys.get_state(pid)

      assert %{again: 0, failed: [{^pid, @view, why}]} = Views.render_again(Views.connected())
      assert why =~ "never_assigned"
      assert :sys.get_state(pid) == before
      refute_received {:diff, ^pid, _, _}
    end

    test "one with temporary assigns, which it could not show any more, is left as it is" do
      load(@view, Fake.view(@view, "v1", key: "n"))
      pid = Fake.connect(:view, @view, %{}, %{temporary_assigns: %{list: []}})
      Fake.shown(pid)
      assert %{again: 0, left: 1} = Views.render_again(Views.connected())
      refute_received {:diff, ^pid, _, _}
    end

    test "where this LiveView cannot render as a whole, it does what it would do by itself" do
      _ = :application.unload(:phoenix_live_view)
      Fake.load!(~c"1.0.17")
      load(@box, Fake.component(@box, :p1))
      load(@view, view_with(@box, "v1"))
      pid = Fake.connect(:view, @view)
      Fake.shown(pid)
      click(pid)
      assert %{again: 1} = Views.render_again(Views.connected())
      assert {{:v1, 0}, []} = Fake.shown(pid)
      assert %{components: {%{1 => {_, _, assigns, _, _}}, _, _}} = :gen_server.call(pid, :state)
      assert assigns == %{clicks: 7}
    end

    test "nothing is sent to a LiveView that could not understand it" do
      _ = :application.unload(:phoenix_live_view)
      refute Views.running?()
      Fake.load!(~c"0.18.3")
      refute Views.running?()
      _ = :application.unload(:phoenix_live_view)
      Fake.load!(~c"0.18.4")
      assert Views.running?()
    end

    @tag :slow
    test "what is busy for long is told, and renders when it comes to it" do
      load(@view, Fake.view(@view, "v1", key: "n"))
      pid = Fake.connect(:view, @view)
      Fake.shown(pid)
      :erlang.suspend_process(pid)
      task = Task.async(fn -> Views.render_again([{pid, @view}]) end)
      assert %{again: 0, unknown: 1} = Task.await(task, 120_000)
      :erlang.resume_process(pid)
      until(fn -> match?({_, _}, Fake.shown(pid)) end, "it renders")
    end
  end
end
