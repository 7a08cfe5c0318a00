defmodule HotPatch.NodeAgent.LoaderTrialTest do
  # On whose word a node takes modules to its loader.
  use ExUnit.Case, async: false

  import HotPatch.Test.Settings, only: [configure: 2]

  alias HotPatch.Composition.Entry
  alias HotPatch.LoaderVM
  alias HotPatch.NodeAgent.LoaderTrial
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Release
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Damaged

  @name "loader_trial_fatal"
  @accepted %{modules: :accepted, copies: :accepted}

  # What a node makes of a module that ends a VM, where the coordinator says this of it.
  defp judged(loader, bytes \\ Damaged.make(@name, :labels_without_end)) do
    entry = %Entry{
      path: "a-1/ebin/#{@name}.beam",
      kind: :beam,
      size: byte_size(bytes),
      bytes: bytes,
      crc32: :erlang.crc32(bytes),
      sha256: :crypto.hash(:sha256, bytes),
      beam: %{module: @name, needs_otp: nil}
    }

    payload = %Payload{
      patch: "fix@000000000000",
      release: Release.none(),
      entries: [entry],
      loader: loader
    }

    verdict = %{Verdict.new(entry, :ok) | change: :add}
    [%{status: status, reason: reason}] = LoaderTrial.judge([verdict], payload)
    {status, reason}
  end

  defp own(found), do: Map.put(found, :identity, LoaderVM.identity())

  test "what the same loader has accepted elsewhere is not tried again" do
    assert judged(own(@accepted)) == {:ok, nil}
  end

  test "another loader's word is none here, nor is that of a node that does without" do
    {version, flavour, machine} = LoaderVM.identity()

    for loader <- [
          nil,
          Map.put(@accepted, :identity, {version <> ".1", flavour, machine}),
          Map.put(@accepted, :identity, {version, :other, machine}),
          own(%{@accepted | modules: :off}),
          own(%{@accepted | copies: :off})
        ] do
      assert {:error, reason} = judged(loader)
      assert reason =~ "it would end the node"
      # A sound one is taken by what was found here.
      sound = Builds.erlang("-module(#{@name}). -export([f/0]). f() -> ok.")
      assert judged(loader, sound) == {:ok, nil}
    end
  end

  test "where this node does without, nothing is tried" do
    configure(:loader_vm, :off)
    assert judged(nil) == {:ok, nil}
  end
end
