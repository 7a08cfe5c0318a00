defmodule HotPatch.ReleasesTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Until

  alias HotPatch.Host.ReleaseListing
  alias HotPatch.InstalledRelease
  alias HotPatch.Test.BootedRelease
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Releases

  @moduletag timeout: 120_000

  # By version; what is said of each.
  defp releases(node) do
    {:ok, answers} = Cluster.call(node, HotPatch, :releases, [])
    assert answers.nodes == [node]
    for one <- answers.items, into: %{}, do: {one.version, one}
  end

  defp known(node) do
    for {version, one} <- releases(node), into: %{}, do: {version, {one.status, one.running?}}
  end

  describe "what is known of a release" do
    # What the source says of it, whether it runs and is what the next start boots, and what we say.
    for {source, said, running?, boots?, status, note} <- [
          {:release_handler, :permanent, true, true, :permanent, nil},
          {:release_handler, :permanent, true, nil, :permanent, nil},
          {:release_handler, :current, true, false, :current, nil},
          {:release_handler, :old, false, false, :old, nil},
          {:release_handler, :unpacked, false, nil, :unpacked, nil},
          {:release_handler, :tmp_current, true, nil, :current, nil},
          {:release_handler, nil, false, nil, nil, "release_handler does not know it"},
          {:release_handler, :permanent, true, false, :permanent, "names another"},
          {:release_handler, :old, false, true, :old, "names it for the next start"},
          {:file, :permanent, true, true, :permanent, nil},
          {:file, :current, false, false, :unpacked, nil},
          {:file, :tmp_current, true, false, :current, nil},
          {:file, nil, false, nil, nil, "RELEASES does not name it"},
          {:nobody, nil, true, true, :permanent, nil},
          {:nobody, nil, true, false, :current, nil},
          {:nobody, nil, true, nil, :current, nil},
          {:nobody, nil, false, true, :permanent, nil},
          {:nobody, nil, false, false, nil, "is written nowhere"},
          {:nobody, nil, false, nil, nil, "is written nowhere"}
        ] do
      test "#{source} says #{said}, running #{running?}, booting #{inspect(boots?)}" do
        id = {"shop", "1"}
        said = if unquote(said), do: {id, unquote(said)}
        about = %{running?: unquote(running?), boots?: unquote(boots?)}
        entry = ReleaseListing.entry(id, said, unquote(source), about)
        assert entry.status == unquote(status)

        case unquote(note) do
          nil -> assert entry.note == nil
          words -> assert entry.note =~ words
        end
      end
    end
  end

  test "of many nodes what is the same is said once" do
    one = %InstalledRelease{
      node: :a@h,
      name: "shop",
      version: "2",
      status: :current,
      running?: true
    }

    other = %{one | version: "1", status: nil, running?: false, note: "unknown"}
    table = IO.iodata_to_binary(InstalledRelease.to_table([other, one, %{one | node: :b@h}]))
    assert [_head, _rule, first, second] = String.split(table, "\n", trim: true)
    assert first =~ ~r/shop 2 +current +yes +not known +a@h, b@h/
    assert second =~ ~r/shop 1 +not known +no +not known +a@h +unknown/
    assert to_string(one) == "shop 2 on a@h: current, runs"
    assert inspect(other) =~ "shop 1 on a@h: not known, unknown"
  end

  @tag :starts_nodes
  test "are those of release_handler where it runs" do
    {:ok, _} = Application.ensure_all_started(:sasl)
    system = Releases.boot(Releases.make(), "1")
    assert known(system.node) == %{"1" => {:permanent, true}, "2" => {nil, false}}
    assert releases(system.node)["2"].note =~ "release_handler does not know it"

    :ok = Releases.install(system)
    same_as_there(system)
    assert known(system.node) == %{"1" => {:permanent, false}, "2" => {:current, true}}
    :ok = Cluster.call(system.node, :release_handler, :make_permanent, [~c"2"])
    same_as_there(system)
    assert known(system.node) == %{"1" => {:old, false}, "2" => {:permanent, true}}

    # One that is at work answers nobody: then its file counts.
    :ok = Cluster.call(system.node, :sys, :suspend, [:release_handler])
    assert known(system.node) == %{"1" => {:old, false}, "2" => {:permanent, true}}
    :ok = Cluster.call(system.node, :sys, :resume, [:release_handler])

    until(fn -> same_as_there(system) end, "it answers again")
  end

  defp same_as_there(system) do
    there = Cluster.call(system.node, :release_handler, :which_releases, [])
    there = for {_name, vsn, _libs, status} <- there, into: %{}, do: {to_string(vsn), status}
    assert for({vsn, {status, _}} <- known(system.node), into: %{}, do: {vsn, status}) == there
  end

  @tag :starts_nodes
  test "without it, as mix release makes them, are what the disk says" do
    root = BootedRelease.make()
    on_exit(fn -> BootedRelease.remove(root) end)
    folder = Path.join(root, "releases/0.9.0")
    File.mkdir_p!(folder)
    for name <- ~w(exchange.rel start_clean.rel), do: File.write!(Path.join(folder, name), "")
    node = BootedRelease.start(root)
    assert known(node) == %{"1.0.0" => {:permanent, true}, "0.9.0" => {nil, false}}
    assert releases(node)["0.9.0"].note =~ "is written nowhere"
    assert %{name: "exchange", boots?: true} = releases(node)["1.0.0"]

    # Torn, it says nothing; another is booted next.
    File.write!(Path.join(root, "releases/start_erl.data"), "13.1")
    assert %{status: :current, boots?: nil} = releases(node)["1.0.0"]
    File.write!(Path.join(root, "releases/start_erl.data"), "13.1 0.9.0")
    assert known(node) == %{"1.0.0" => {:current, true}, "0.9.0" => {:permanent, false}}

    release = &{:release, ~c"exchange", &1, ~c"13.1", [], &2}
    list = [release.(~c"1.0.0", :old), release.(~c"0.9.0", :permanent)]
    File.write!(Path.join(root, "releases/RELEASES"), :io_lib.format("~p.~n", [list]))
    assert known(node) == %{"1.0.0" => {:old, true}, "0.9.0" => {:permanent, false}}
  end

  test "of a system without a release are one, without a status" do
    assert {:ok, %{items: [one]} = answers} = HotPatch.releases()
    assert %InstalledRelease{status: nil, boots?: nil, name: "unreleased"} = one
    assert to_string(answers) =~ "this node runs without a release"
    {:ok, json} = HotPatch.to_json(answers)
    assert json =~ ~s("of":"releases") and json =~ ~s("status":null)
  end
end
