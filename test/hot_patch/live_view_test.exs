defmodule HotPatch.LiveViewTest do
  # Which views render again after a change, and which endpoints read their manifests again.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Settings, only: [configure: 2]
  import HotPatch.Test.Until

  alias HotPatch.LiveView
  alias HotPatch.NodeAgent.IdleConversions
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.ReplayCode
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Replay.Coming
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Phoenix, as: Fake

  @shows :hot_patch_test_shows
  @shows_not :hot_patch_test_shows_not
  @parts :hot_patch_test_lv_parts
  @inner :hot_patch_test_lv_inner
  @helper :hot_patch_test_lv_helper
  @box :hot_patch_test_lv_box
  @endpoint :hot_patch_test_endpoint

  setup do
    Fake.load!()
    modules = [@shows, @shows_not, @parts, @inner, @helper, @box, @endpoint]
    on_exit(fn -> Enum.each(modules, &unload/1) end)
  end

  # Files of them are looked at, as those of a release are.
  defp installed(module, beam) do
    on_disk(module, beam)
    {:module, ^module} = :code.load_file(module)
  end

  defp part(module, calls) do
    Builds.erlang("""
    -module(#{module}).
    -export(['__components__'/0, show/0]).
    '__components__'() -> \#{}.
    show() -> #{calls}.
    """)
  end

  # One shows a function component that shows another, which calls a function of a helper; and a component
  # by its name.
  defp views do
    installed(@helper, Builds.erlang("-module(#{@helper}). -export([text/0]). text() -> helped."))
    installed(@inner, part(@inner, "#{@helper}:text()"))
    installed(@parts, part(@parts, "#{@inner}:show()"))
    installed(@box, Fake.component(@box, :p1))
    text = "{#{@parts}:show(), maps:get(n, A)}"
    installed(@shows, Fake.view(@shows, "v1", key: "n", text: text, shows: "[{1, #{@box}}]"))
    installed(@shows_not, Fake.view(@shows_not, "v1", key: "n"))
    pids = for view <- [@shows, @shows, @shows_not], do: Fake.connect(:view, view)
    Enum.each(pids, &assert(Fake.shown(&1)))
    pids
  end

  defp change(modules, files \\ []), do: %{patch: "fix", modules: modules, files: files}

  test "the plan says how many views render again: those that name what changes, over however many" do
    views()

    for module <- [@shows, @parts, @inner, @helper, @box] do
      assert [line] = LiveView.lines([module])
      assert line =~ "2 connected LiveViews render again after the change: 2 #{inspect(@shows)};"
    end

    assert [line] = LiveView.lines([@shows_not, @parts])
    assert line =~ "3 connected LiveViews"
    assert LiveView.lines([:lists]) == []
    assert LiveView.lines([]) == []
    configure(:live_view, false)
    assert LiveView.lines([@shows]) == []
  end

  test "these render after the change, and nobody else" do
    [one, two, other] = views()
    assert LiveView.after_write(change([@inner])) == :ok
    assert {{:helped, 0}, []} = Fake.shown(one)
    assert {{:helped, 0}, []} = Fake.shown(two)
    assert LiveView.after_write(change([@shows_not])) == :ok
    # The hook before had its turn before this one.
    assert {{:v1, 0}, []} = Fake.shown(other)
    refute_received {:diff, _, _, _}
  end

  test "switched off, they render only by hand" do
    pids = views()
    configure(:live_view, false)
    assert LiveView.after_write(change([@shows])) == :ok
    assert LiveView.render_again() == {3, 0}
    Enum.each(pids, &Fake.shown/1)
    refute_received {:diff, _, _, _}
  end

  test "where a component changes, the views that show it are played in a rehearsal, with the code of their library" do
    installed(Elixir.Phoenix.LiveView.Channel, Fake.channel())
    [one, two, other] = views()
    new = Builds.erlang("-module(#{@helper}). -export([text/0]). text() -> {helped, more}.")
    {:ok, old} = File.read(:code.which(@helper))

    assert %{@shows => shown} = views = LiveView.showing([@helper])
    assert {Enum.sort(shown), map_size(views)} == {Enum.sort([one, two]), 1}

    verdict = struct!(Verdict, status: :new, change: :replace, entry: %{bytes: new})
    assert {:ok, %{warnings: []} = code} = ReplayCode.make([{@helper, verdict}], [@shows])
    how = Map.merge(code, %{seconds: 1, values?: false, shown: views, coming: %Coming{}})
    asks = spawn_link(fn -> ask([one, other]) end)
    assert {:ok, %{replays: [played]}} = rehearse(job([{@helper, old, new}]), replay: how)
    send(asks, {:enough, self()})
    assert_receive :ended

    assert {played.module, played.processes} == {inspect(@shows), 2}
    assert {played.left_aside, played.unheard, played.crashes} == {[], [], []}

    assert [%{what: :sent, to: "send {:diff, pid, {_, _}, []}"}] = played.differences
    # Nobody has been shown it.
    assert {{:helped, _n}, []} = Fake.shown(one)
    refute_received {:diff, _, {{:helped, :more}, _}, _}
  end

  defp ask(pids) do
    receive do
      {:enough, from} -> send(from, :ended)
    after
      1 ->
        for pid <- pids, do: :ok = :gen_server.call(pid, {:event, :inc})
        ask(pids)
    end
  end

  test "without LiveView nothing is done" do
    _ = :application.unload(:phoenix_live_view)
    assert LiveView.after_write(change([@shows])) == :ok
    assert LiveView.lines([@shows]) == []
    assert LiveView.render_again() == {0, 0}
  end

  test "a code_change that nobody is there for is told by what the module is to Phoenix" do
    views()
    load(@helper, Fake.room(@helper, "v1", key: "n"))
    with_it = %{@shows_not => Fake.view(@shows_not, "v2", key: "n", code_change: "A")}
    with_it = Map.put(with_it, @helper, Fake.room(@helper, "v2", key: "n", code_change: "A"))

    told = fn module, exports ->
      change = %Change{module: module, kind: :replace, exports: exports, md5: nil}
      IdleConversions.warnings([change], [], %Instructions{})
    end

    for {module, text} <- [
          {@shows_not, "a LiveView, and nobody is connected to it here"},
          {@helper, "a channel, and nobody has joined it here"},
          {@box, "a LiveComponent: its state is kept by the process of the view that shows it"}
        ] do
      exports = if beam = with_it[module], do: exports(beam), else: [{"code_change", 3}]
      assert [line] = told.(module, exports)
      assert line =~ "#{inspect(module)}: its code_change is called for no process"
      assert line =~ text
      refute line =~ "wrappers"
      assert told.(module, []) == []
    end
  end

  # As an endpoint of Phoenix: what the manifest says it keeps in a table of its name, the oldest
  # versions for ever.
  defp endpoint(manifest) do
    load(
      @endpoint,
      Builds.erlang(
        """
        -module(#{@endpoint}).
        -export([start/0, config/1, config_change/2, static_lookup/1, static_path/1]).
        start() -> register(?MODULE, self()), ets:new(?MODULE, [named_table, public]), config_change([], []),
            receive stop -> ok end.
        config(cache_static_manifest) -> #{manifest};
        config(otp_app) -> my_app.
        config_change([], []) ->
            ets:insert_new(?MODULE, {cache_static_manifest_latest, persistent_term:get(?MODULE)}), ok.
        static_lookup(Path) -> {static_path(Path), nil}.
        static_path(<<"/", Path/binary>>) ->
            [{_, Latest}] = ets:lookup(?MODULE, cache_static_manifest_latest),
            <<"/", (maps:get(Path, Latest))/binary, "?vsn=d">>.
        """
        |> String.replace("?MODULE", "#{@endpoint}")
      )
    )

    manifest_of("app-1.css")
    pid = spawn(@endpoint, :start, [])
    on_exit(fn -> kill([pid]) end)
    until(fn -> Process.whereis(@endpoint) == pid end, "the endpoint runs")
    until(fn -> :ets.whereis(@endpoint) != :undefined end, "it has its table")
  end

  defp manifest_of(css) do
    :persistent_term.put(@endpoint, %{"app.css" => css, "same.js" => "same-1.js"})
    on_exit(fn -> :persistent_term.erase(@endpoint) end)
  end

  for {what, manifest} <- [
        {"of its own application", ~S(<<"priv/static/cache_manifest.json">>)},
        {"of an application that it names", ~S({my_app, <<"priv/static/cache_manifest.json">>})}
      ] do
    test "a manifest #{what} that came with a patch is read again, and open pages hear of it" do
      endpoint(unquote(manifest))
      views = views()
      # Views that show nothing of it change their pages, too.
      load(Phoenix.LiveView, pusher())
      on_exit(fn -> unload(Phoenix.LiveView) end)

      manifest_of("app-2.css")
      path = "my_app-1.0.0/priv/static/cache_manifest.json"

      for other <- ["other-1.0.0/priv/static/cache_manifest.json", "my_app-1.0.0/priv/x.json"] do
        assert LiveView.after_write(change([], [other])) == :ok
      end

      assert LiveView.after_write(change([], [path])) == :ok
      files = %{"/app.css" => "/app-2.css?vsn=d"}

      for pid <- views,
          do: assert({_, [["hot_patch:static", %{files: ^files}]]} = Fake.shown(pid))

      assert apply(@endpoint, :static_path, ["/app.css"]) == "/app-2.css?vsn=d"

      manifest_of("app-1.css")
      assert LiveView.after_write(change([], [path])) == :ok
      back = %{"/app.css" => "/app-1.css?vsn=d"}
      for pid <- views, do: assert({_, [[_, %{files: ^back}]]} = Fake.shown(pid))
      refute_received {:diff, _, _, _}
    end
  end

  defp pusher do
    Builds.erlang("""
    -module('Elixir.Phoenix.LiveView').
    -export([push_event/3]).
    push_event(\#{private := P} = S, Name, Payload) -> S\#{private := P\#{push_events => [[Name, Payload]]}}.
    """)
  end
end
