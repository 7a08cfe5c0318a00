defmodule HotPatch.RelupTest do
  # What an upgrade is made of where the new release has a relup that systools has made.
  use ExUnit.Case, async: true

  alias HotPatch.Build
  alias HotPatch.Test.NextRelease
  alias HotPatch.Test.Upgrade

  @moduletag :tmp_dir

  setup_all do
    {:ok, _} = Application.ensure_all_started(:sasl)
    :ok
  end

  defp application(name, version, code, more \\ []) do
    server = :"#{name}_server"
    sup = :"#{name}_sup"

    converts = "code_change(_, {_, All}, _) -> {ok, {v#{code}, All}}."

    {version, [Upgrade.server(server, code, converts), Upgrade.supervisor(sup, server)] ++ more,
     mod: {sup, []}}
  end

  # `till` and `web` go from 1 to 2, `came` comes, `gone` goes, `same` stays.
  defp releases(dir) do
    gone = Upgrade.erlang(:till_old, "-export([f/0]). f() -> 1.")
    new = Upgrade.erlang(:till_new, "-export([f/0]). f() -> 1.")
    same = {:same, application(:same, "1", 1)}

    old = [
      same,
      till: application(:till, "1", 1, [gone]),
      web: application(:web, "1", 1),
      gone: application(:gone, "1", 1)
    ]

    later = [
      same,
      till: application(:till, "2", 2, [new]),
      web: application(:web, "2", 2),
      came: application(:came, "1", 1)
    ]

    for {name, vsn, applications} <- [{"old", "1", old}, {"new", "2", later}] do
      root = Upgrade.make(Path.join(dir, name), vsn, applications)
      File.write!(Path.join([root, "releases", vsn, "start.boot"]), vsn)
      root
    end
  end

  @up [
    {:apply, {:till_server, :handle_cast, [:prepare, "state"]}},
    {:add_module, :till_new},
    {:update, :till_server, 5_000, {:advanced, %{text: "ü"}}, :soft_purge, :soft_purge, []},
    {:delete_module, :till_old},
    {:restart_application, :same},
    {:apply, {:till_new, :f, []}}
  ]
  @down [
    {:add_module, :till_old},
    {:update, :till_server, :static, :default, {:advanced, [{:down, ~c"x"}]}, :soft_purge,
     :soft_purge, []},
    {:delete_module, :till_new}
  ]

  defp with_relup([old, new]) do
    restart = [{~c"1", [{:restart_application, :web}]}]
    Upgrade.appup(new, :till, "2", {~c"2", [{~c"1", @up}], [{~c"1", @down}]})
    Upgrade.appup(new, :web, "2", {~c"2", restart, restart})
    Upgrade.relup({old, "1"}, {new, "2"})

    # The relup is what counts now.
    for name <- [:till, :web],
        do: File.rm!(Path.join([new, "lib", "#{name}-2", "ebin", "#{name}.appup"]))

    [old, new]
  end

  defp built([old, new]) do
    zip = Path.join(Path.dirname(old), "upgrade.zip")
    {:ok, built} = Build.run(from: old, to: new, out: zip)
    built
  end

  test "systools's own low-level instructions are taken back to what they are for", context do
    built = context.tmp_dir |> releases() |> with_relup() |> built()
    manifest = built.composition.manifest
    assert manifest.upgrade.relup == %{up: true, down: true}

    assert manifest.instructions == %{
             up: [
               "{apply,{till_server,handle_cast,[prepare,<<\"state\">>]}}",
               "{add_module,came_server}",
               "{add_module,came_sup}",
               "{add_module,till_new}",
               "{update,till_server,5000,{advanced,\#{text => <<\"ü\"/utf8>>}},soft_purge,soft_purge,[]}",
               "{delete_module,till_old}",
               "{restart_application,same}",
               "{apply,{till_new,f,[]}}",
               "{restart_application,web}",
               "{load_module,web_server}",
               "{delete_module,gone_server}",
               "{delete_module,gone_sup}"
             ],
             down: [
               "{add_module,gone_server}",
               "{add_module,gone_sup}",
               "{add_module,till_old}",
               "{update,till_server,{advanced,[{down,\"x\"}]},soft_purge,soft_purge,[]}",
               "{delete_module,till_new}",
               "{restart_application,web}",
               "{load_module,web_server}",
               "{delete_module,came_server}",
               "{delete_module,came_sup}"
             ]
           }

    # To who builds it, to who looks at it, and (HotPatch.LiveUpgradeTest) to who applies it.
    assert manifest.upgrade.remarks == [
             "the way up is as releases/2/relup says",
             "releases/2/relup: till_server:handle_cast is called before anything changes, and so before came " <>
               "starts, though that stands before it",
             "the way back is as releases/2/relup says"
           ]

    shown = to_string(built)
    for remark <- manifest.upgrade.remarks, do: assert(shown =~ remark, shown)
    assert manifest.upgrade.remarks -- built.notes == []
  end

  @stays "code_change(_, State, _) -> {ok, State}."

  test "states that no code_change converts are none of an application that both ways restart",
       %{tmp_dir: dir} do
    made =
      for {name, vsn, code} <- [{"old", "1", 1}, {"new", "2", 2}] do
        modules = [
          Upgrade.server(:web_server, code, @stays),
          Upgrade.supervisor(:web_sup, :web_server)
        ]

        root = Upgrade.make(Path.join(dir, name), vsn, web: {vsn, modules, mod: {:web_sup, []}})
        File.write!(Path.join([root, "releases", vsn, "start.boot"]), vsn)
        root
      end

    [old, new] = made
    restart = [{:restart_application, :web}]

    relup = fn up, down ->
      Upgrade.appup(new, :web, "2", {~c"2", [{~c"1", up}], [{~c"1", down}]})
      Upgrade.relup({old, "1"}, {new, "2"})
    end

    options = [from: old, to: new, out: Path.join(dir, "upgrade.zip")]
    relup.(restart, [{:update, :web_server}])
    assert {:error, %{reason: :dangerous} = error} = Build.run(options)
    assert error.message =~ "state_changed_without_code_change:web_server"
    relup.(restart, restart)
    assert {:ok, built} = Build.run(options)
    assert Enum.any?(built.notes, &(&1 =~ "web is restarted on both ways"))
  end

  test "one that mix hot_patch.relup has made of the analysis comes to what the analysis says" do
    made = NextRelease.make()
    of = fn built -> built.composition.manifest end
    {:ok, without} = Build.run(from: made.old, to: made.new, out: made.zip)
    assert {of.(without).upgrade.relup, of.(without).upgrade.remarks} == {nil, []}
    {:ok, _relup} = Build.Relup.run(from: made.old, to: made.new)
    {:ok, with} = Build.run(from: made.old, to: made.new, out: made.zip)
    assert of.(with).upgrade.relup == %{up: true, down: true}

    # The order of modules means nothing where all of them change in one step.
    sorted = &Map.new(of.(&1).instructions, fn {way, all} -> {way, Enum.sort(all)} end)
    assert sorted.(with) == sorted.(without)
  end

  test "one that restarts the VM is refused, with what to do", context do
    [old, new] = context.tmp_dir |> releases()
    restart = [{~c"1", [{:restart_application, :web}]}]
    Upgrade.appup(new, :web, "2", {~c"2", restart, restart})
    Upgrade.appup(new, :till, "2", {~c"2", [{~c"1", []}], [{~c"1", []}]})
    Upgrade.relup({old, "1"}, {new, "2"}, [:restart_emulator])
    options = [from: old, to: new, out: Path.join(context.tmp_dir, "upgrade.zip")]
    assert {:error, error} = Build.run(options)

    assert error.message =~
             "releases/2/relup: restart_emulator restarts the VM, which no live upgrade does"

    assert error.message =~ "restart: :rolling"
    refute File.exists?(options[:out])
  end
end
