defmodule HotPatch.ReleaseHandlerTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Releases

  @moduletag :starts_nodes
  @moduletag timeout: 120_000

  # A release whose next version OTP's own release handler installs while it runs.

  setup_all do
    {:ok, _} = Application.ensure_all_started(:sasl)
    :ok
  end

  setup do
    %{system: Releases.boot(Releases.make(), "1")}
  end

  defp hot_patch(system, function, args), do: Cluster.call(system.node, HotPatch, function, args)

  defp upload!(system, name, files) do
    {:ok, patch} = hot_patch(system, :upload, [zip(files), [name: name]])
    patch
  end

  defp me(system), do: hd(hot_patch(system, :nodes, []))

  test "patches end with the version that was installed over, as on a boot", %{system: system} do
    name = Releases.name()
    original = for app <- [:till, :scales], do: File.read!(Releases.path(system, app, "1"))
    assert to_string(me(system).release) == "#{name} 1"
    files = [Releases.file(:till, "1", "11"), Releases.file(:scales, "1", "11")]
    patch = upload!(system, "fix", files)
    assert to_string(patch.release) == "#{name} 1"
    assert {:ok, %{status: :ok}} = hot_patch(system, :apply, [patch.id])
    assert {Releases.state(system, :till), Releases.state(system, :scales)} == {{11, 0}, {11, 0}}

    :ok = Releases.install(system)
    assert Releases.state(system, :till) == {2, 0}
    info = me(system)
    assert to_string(info.release) == "#{name} 2"
    assert info.applied == []
    # The application that is the same in both runs on.
    assert [reason] = info.restart_needed
    assert reason == "code of #{patch.id}, which has ended, is in memory: scales_server"
    assert %{items: [%{state: :retired}]} = hot_patch(system, :list, [])
    assert {:error, %Error{reason: :retired}} = hot_patch(system, :apply, [patch.id])
    assert {:error, %Error{reason: :not_applied}} = hot_patch(system, :rollback, [patch.id])

    # What is made for it now is bound to what runs, and takes nothing that was left.
    next = upload!(system, "next", [Releases.file(:till, "2", "22")])
    assert to_string(next.release) == "#{name} 2"
    assert {:ok, %{status: :ok}} = hot_patch(system, :apply, [next.id])
    assert Releases.state(system, :till) == {22, 0}
    assert me(system).applied == [next.id]

    assert for(app <- [:till, :scales], do: File.read!(Releases.path(system, app, "1"))) ==
             original

    assert [_still_in_memory] = me(system).restart_needed

    assert {:ok, entries} = hot_patch(system, :journal, [])
    assert %{reason: why} = Enum.find(entries, &(&1.what == :retire))
    assert why =~ "the release is #{name} 2 now"

    # It was not made permanent: a restart goes back to the first.
    before = File.read!(Releases.path(system, :till, "2"))
    system = system |> Releases.stop() |> Releases.boot("1")
    assert to_string(me(system).release) == "#{name} 1"
    assert %{applied: [], restart_needed: []} = me(system)
    assert {Releases.state(system, :till), Releases.state(system, :scales)} == {{1, 0}, {1, 0}}
    assert File.read!(Releases.path(system, :till, "2")) != before
    assert {:ok, %{items: []}} = hot_patch(system, :drift, [])
  end

  test "one that was made permanent counts, and so does one that is booted by hand", %{
    system: system
  } do
    :ok = Releases.install(system)
    :ok = Cluster.call(system.node, :release_handler, :make_permanent, [~c"2"])
    assert to_string(me(system).release) == "#{Releases.name()} 2"
    system = system |> Releases.stop() |> Releases.boot("1")
    assert to_string(me(system).release) == "#{Releases.name()} 1"
    system = system |> Releases.stop() |> Releases.boot("2")
    assert to_string(me(system).release) == "#{Releases.name()} 2"
  end

  test "while a release is being installed nothing is applied, and the node answers", %{
    system: system
  } do
    patch = upload!(system, "fix", [Releases.file(:till, "1", "11")])
    # The release handler is busy with a request for as long as we like.
    :ok = Cluster.call(system.node, :sys, :suspend, [:release_handler])
    assert to_string(me(system).release) == "#{Releases.name()} 1"
    assert {:error, %Error{reason: :busy} = error} = hot_patch(system, :apply, [patch.id])
    assert error.message =~ "install of a release by release_handler"
    assert Releases.state(system, :till) == {1, 0}
    :ok = Cluster.call(system.node, :sys, :resume, [:release_handler])

    until(
      fn -> match?({:ok, _report}, hot_patch(system, :apply, [patch.id])) end,
      "it is applied when the release handler has nothing to do"
    )
  end
end
