defmodule HotPatch.ReportTest do
  # What reports look like: everything is said once, however many it is about.
  use ExUnit.Case, async: true

  alias HotPatch.Drift
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Straggler

  doctest HotPatch.Report.FileResult
  doctest HotPatch.Report.Phase
  doctest HotPatch.Support.Table

  defp file(path, status, reason \\ nil),
    do: %Report.FileResult{path: path, status: status, reason: reason}

  defp report(nodes) do
    %Report{
      operation: :apply,
      patch: "fix-1",
      status: nodes |> Enum.map(& &1.status) |> Status.combine(),
      nodes: nodes,
      started_at: ~U[2026-01-01 00:00:00Z]
    }
  end

  defp node_report(name, more),
    do: struct!(Report.NodeResult, [node: name, status: :ok] ++ more)

  defp lines(report), do: report |> to_string() |> String.split("\n")

  defp phase(name, from_us, until_us, error \\ nil),
    do: %Report.Phase{phase: name, from_us: from_us, until_us: until_us, error: error}

  test "what a pause went into is a line of bars for each node, those that took longest, to one scale" do
    short = [phase(:suspend, 0, 100), phase(:load, 100, 150), phase(:resume, 150, 300)]
    long = [phase(:suspend, 0, 300), phase(:load, 400, 450), phase(:resume, 450, 600)]
    others = for n <- 1..5, do: node_report(:"n#{n}@h", phases: short)
    nodes = others ++ [node_report(:slow@h, phases: long), node_report(:none@h, [])]

    lines = lines(report(nodes))
    assert [bar] = Enum.filter(lines, &(&1 =~ "slow@h: suspend 0.3 ms, load 0.1 ms"))
    assert bar =~ ~r/^s{30}\.{10}l{5}r{15}  slow@h: /
    assert [first | _] = bars = Enum.filter(lines, &(&1 =~ ~r/^s{10}l{5}r{15}  n\d@h: /))
    assert length(bars) == 4 and is_binary(first)
    assert "and 1 more, which took less" in lines
    refute to_string(report([node_report(:none@h, [])])) =~ "the time went into"
  end

  test "a reason that many files have is given once, with how many they are" do
    reason = "the swap engine died"
    files = for n <- 1..12, do: file("a-1/ebin/m#{n}.beam", :error, reason)

    nodes =
      for name <- [:a@h, :b@h], do: node_report(name, status: :error, files: files, error: reason)

    lines = lines(report(nodes))

    assert [row] = Enum.filter(lines, &(&1 =~ reason))
    assert row =~ ~r/12 files: .*error \(1\).* all /
    assert Enum.any?(lines, &(&1 =~ "and 9 more"))
    assert length(lines) < 15
  end

  test "files of which nothing is to be said have rows of their own, the worst first" do
    files = [
      file("a-1/ebin/a.beam", :ok),
      file("a-1/ebin/b.beam", :not_updated, "NIF"),
      file("a-1/ebin/c.beam", :ok)
    ]

    text = to_string(report([node_report(:a@h, files: files)]))
    assert [_, rows] = String.split(text, "reason\n")
    assert ["b.beam", "a.beam", "c.beam"] == Regex.scan(~r/^(.\.beam)/m, rows) |> Enum.map(&hd/1)
    assert rows =~ ~r/b\.beam +not_updated \(4\) +all +NIF/
  end

  test "files of one name in two places are told apart" do
    files = [file("a-1/ebin/m.beam", :ok, "moves"), file("b-1/ebin/m.beam", :ok)]
    text = to_string(report([node_report(:a@h, files: files)]))
    assert text =~ "a-1/ebin/m.beam" and text =~ "b-1/ebin/m.beam"
  end

  test "six hundred stragglers of three kinds take three lines" do
    kinds = [in_loop: :a, in_callback: :a, in_loop: :b]

    stragglers =
      for {kind, module} <- kinds, _ <- 1..200 do
        %Straggler{node: :a@h, pid: self(), module: module, kind: kind, name: nil}
      end

    lines = lines(report([node_report(:a@h, stragglers: Enum.shuffle(stragglers))]))
    told = Enum.filter(lines, &(&1 =~ "200 processes still run old code of"))
    assert length(told) == 3
    assert length(lines) < 20
    assert Enum.any?(told, &(&1 =~ ":a, in a callback"))
    one = %Straggler{node: :a@h, pid: self(), module: :c, kind: :in_call, name: :clerk}
    assert Straggler.lines([one]) == [Straggler.line(one)]
    assert IO.iodata_to_binary(Straggler.to_table([])) == "nobody runs old code\n"
    assert IO.iodata_to_binary(Straggler.to_table(stragglers)) =~ "197 more"
  end

  test "drift of many modules for one cause takes one row" do
    drift =
      for n <- 1..50, node <- [:a@h, :b@h] do
        %Drift{
          node: node,
          module: "Elixir.M#{n}",
          from: :disk,
          running: "1",
          expected: nil,
          cause: "its file is missing"
        }
      end

    table = IO.iodata_to_binary(Drift.to_table(drift))
    assert table =~ "50 modules: M1, M10, M11 and 47 more"
    assert length(String.split(table, "its file is missing")) == 2
    assert IO.iodata_to_binary(Drift.to_table([])) =~ "as it should"
  end

  test "warnings of nodes are notes, each once" do
    nodes = for name <- [:a@h, :b@h], do: node_report(name, warnings: ["take care"])
    assert [_once] = Enum.filter(lines(report(nodes)), &(&1 =~ "take care"))
  end

  test "every status has its code in tables, and in JSON" do
    nodes = for status <- Status.all(), do: node_report(:"#{status}@h", status: status)
    report = report(nodes)
    table = to_string(report)
    for status <- Status.all(), do: assert(table =~ "#{status} (#{Status.code(status)})")

    assert {:ok, json} = HotPatch.to_json(report)

    for status <- Status.all(),
        do: assert(json =~ ~r/"status":"#{status}","status_code":#{Status.code(status)}\b/)

    assert {:ok, json} = HotPatch.to_json(%{status: "else"})
    refute json =~ "status_code"
  end
end
