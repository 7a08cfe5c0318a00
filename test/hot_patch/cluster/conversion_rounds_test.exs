defmodule HotPatch.Cluster.ConversionRoundsTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Servers, only: [server: 3, exports: 1]

  alias HotPatch.Cluster.ConversionRounds
  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Plan.NodePlan
  alias HotPatch.Release

  @module :hot_patch_test_rounds

  defp lines(code_change, processes) do
    bytes = server(@module, "2", code_change)

    beam = %{
      module: "#{@module}",
      imports: [],
      exports: exports(bytes),
      behaviours: ["gen_server"],
      on_load: false,
      load_nif: false,
      attributes: :erlang.term_to_binary(vsn: ["2"])
    }

    entry = %Entry{
      path: "#{@module}.beam",
      size: byte_size(bytes),
      crc32: 0,
      sha256: "",
      bytes: bytes,
      kind: :beam,
      beam: beam
    }

    payload = %Payload{patch: "rounds@000000000000", release: Release.none(), entries: [entry]}
    plan = %NodePlan{node: node(), status: :ok, processes: processes}
    [%{risks: risks}] = ConversionRounds.add([plan], payload)
    for risk <- risks, do: {risk.about, to_string(risk)}
  end

  defp processes(pauses?) do
    [
      %{
        module: inspect(@module),
        kind: :server,
        rule: :initial_call,
        count: 3,
        change_code?: true,
        pauses?: pauses?
      }
    ]
  end

  test "a code_change that may have an effect is named with it" do
    assert [{about, line}] = lines("put(seen, Count), {ok, {VERSION, Count}}", processes(true))
    assert about == inspect(@module)
    assert line =~ "states of :hot_patch_test_rounds are converted when all stand still"
    assert line =~ ":erlang.put/2"
  end

  test "of others, and where nobody pauses, nothing is said" do
    assert lines("{ok, {VERSION, Count + 1}}", processes(true)) == []
    assert lines("put(seen, Count), {ok, {VERSION, Count}}", processes(false)) == []
  end
end
