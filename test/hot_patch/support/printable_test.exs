defmodule HotPatch.Support.PrintableTest do
  # Whatever a struct holds of others' texts, a terminal and a log get nothing from it that they obey or hide.
  use ExUnit.Case, async: true

  alias HotPatch.Analysis
  alias HotPatch.Composition
  alias HotPatch.Console
  alias HotPatch.Manifest
  alias HotPatch.Plan
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Support.Printable

  require HotPatch.Support.Log

  doctest Printable

  # Clears the screen, begins a line of its own, goes back over the line, turns the text around, by a C1
  # control, hides; and a byte that is no text.
  @forged "2026-01-01 00:00:00 UTC apply of forged"
  @hostile "a\e[2J\e]0;owned\a\n#{@forged}\r\n#{@forged}\rb\u202Ec\u2066d\u009B2Je\u200Bf\u2028g\x7Fh" <>
             <<0xFF>>

  @obeyed ~r/[\x{0}-\x{9}\x{B}-\x{1F}\x{7F}-\x{9F}\x{AD}\x{61C}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{206F}\x{FEFF}]/u

  defp harmless!(text, what) do
    assert String.valid?(text), "#{what}: #{inspect(text)}"
    refute text =~ @obeyed, "#{what}: #{inspect(text)}"

    for line <- String.split(text, "\n"),
        do: refute(String.starts_with?(String.trim_leading(line), @forged), "#{what}: #{line}")
  end

  # As long as tables are not folded at it.
  defp shown!(text, what),
    do: assert(text =~ "\\u{1b}" or text =~ "\\e", "#{what} does not show it: #{text}")

  # A node's name and a module's can hold anything, too.
  defp hostile_atom, do: :"a\e[2J\n#{@forged}\u202E@h"

  defp at, do: ~U[2026-01-02 03:04:05Z]
  defp release, do: %Release{name: @hostile, version: @hostile}
  defp version, do: %{md5: @hostile, vsn: @hostile}

  defp file do
    %Report.FileResult{
      path: @hostile,
      module: @hostile,
      status: :error,
      reason: @hostile,
      target: @hostile
    }
  end

  defp phase,
    do: %Report.Phase{phase: :suspend, from_us: 0, until_us: 1_000, error: @hostile}

  defp straggler do
    %HotPatch.Straggler{
      node: hostile_atom(),
      pid: self(),
      name: hostile_atom(),
      module: hostile_atom(),
      kind: :in_call,
      stack: [@hostile]
    }
  end

  defp report_node do
    %Report.NodeResult{
      node: hostile_atom(),
      status: :error,
      files: [file()],
      phases: [phase()],
      restart_needed: @hostile,
      error: "#{@hostile} of the node",
      killed: [self()],
      stragglers: [straggler()]
    }
  end

  defp watch do
    seen = %{node: hostile_atom(), sign: :health, value: 1, limit: 0, text: @hostile}
    %HotPatch.Watch{duration_ms: 1, watched_ms: 1, signs: [seen], exceeded: seen}
  end

  defp report do
    %Report{
      operation: :apply,
      patch: @hostile,
      status: :error,
      nodes: [report_node()],
      unmanaged: [hostile_atom()],
      by: @hostile,
      signed_by: @hostile,
      overridden: %{transition: %{manifest: @hostile, given: @hostile}},
      started_at: at(),
      watch: watch()
    }
  end

  defp upgrade do
    %HotPatch.Upgrade{
      to: @hostile,
      erts: @hostile,
      applications: [
        %HotPatch.Upgrade.Application{name: @hostile, from: @hostile, to: @hostile, type: :load}
      ],
      shared: [%{path: @hostile, sha256: @hostile}],
      files: [@hostile],
      remarks: [@hostile]
    }
  end

  defp replay do
    values = %{message: @hostile, from: @hostile, to: @hostile}

    %HotPatch.Rehearsal.Replay{
      module: @hostile,
      messages: 3,
      crashes: [
        %{
          message: @hostile,
          reason: @hostile,
          place: @hostile,
          stack: [@hostile],
          count: 1,
          values: [values]
        }
      ],
      differences: [
        %{
          what: :reply,
          message: @hostile,
          from: @hostile,
          to: @hostile,
          count: 1,
          values: [values]
        }
      ],
      left_aside: [%{why: :calls, text: @hostile, count: 1}],
      unheard: [%{why: :late, text: @hostile, count: 1}]
    }
  end

  defp finding do
    %Analysis.Finding{
      name: :on_load,
      severity: :danger,
      module: @hostile,
      items: [@hostile],
      message: @hostile
    }
  end

  defp change do
    %Analysis.Change{
      module: @hostile,
      operation: :replace,
      roles: [hostile_atom()],
      pause: hostile_atom(),
      functions: %{added: [@hostile], removed: [@hostile], changed: [@hostile]},
      exports_added: [@hostile],
      exports_removed: [@hostile],
      calls: [@hostile],
      callers: [@hostile],
      code_change: :absent,
      state_moves?: false,
      why: @hostile
    }
  end

  defp analysis do
    %Analysis{
      modules: [change()],
      order: [[@hostile]],
      findings: [finding()],
      stateless?: false
    }
  end

  defp risk do
    %Plan.Risk{message: @hostile, about: @hostile, processes: [@hostile], kind: hostile_atom()}
  end

  defp plan_node do
    %Plan.NodePlan{
      node: hostile_atom(),
      status: :error,
      order: [replace: @hostile],
      processes: [
        %{
          module: @hostile,
          kind: hostile_atom(),
          rule: hostile_atom(),
          count: 1,
          change_code?: true,
          pauses?: true
        }
      ],
      disk: [@hostile],
      config: [@hostile],
      instructions: [@hostile],
      risks: [risk()],
      analysis: analysis(),
      error: @hostile
    }
  end

  defp entry do
    %Composition.Entry{
      path: "#{@hostile}/ebin/#{@hostile}",
      size: 1,
      sha256: <<0::256>>,
      crc32: 0,
      kind: :damaged,
      rule: @hostile,
      reason: @hostile,
      bytes: @hostile
    }
  end

  defp manifest do
    %Manifest{
      bytes: @hostile,
      name: @hostile,
      release: release(),
      built_with: %{otp: @hostile},
      author: @hostile,
      text: @hostile,
      modules: %{@hostile => %{change: :any, replaces: version(), brings: version()}},
      removed: [%{path: @hostile, module: %{name: @hostile, replaces: version()}}],
      load_order: [@hostile],
      instructions: %{up: [@hostile], down: [@hostile]},
      config: [%{application: @hostile, key: @hostile, value: @hostile}],
      accepted_findings: [%{rule: @hostile, module: @hostile, reason: @hostile}]
    }
  end

  defp signature, do: %HotPatch.Signature{key: <<1::256>>, name: @hostile, signature: <<1::512>>}

  defp composition do
    %Composition{
      id: @hostile,
      sha256: <<0::256>>,
      size: 1,
      files: [entry()],
      left_out: [@hostile],
      manifest: manifest(),
      signature: signature()
    }
  end

  defp examples do
    [
      report(),
      report_node(),
      file(),
      phase(),
      straggler(),
      watch(),
      analysis(),
      change(),
      finding(),
      %Analysis.Steps{first: [@hostile], why: [{@hostile, @hostile}], across: [@hostile]},
      %Report.Phase{phase: :convert, from_us: 0, until_us: 1, error: @hostile},
      upgrade(),
      hd(upgrade().applications),
      replay(),
      %Plan{patch: @hostile, status: :error, nodes: [plan_node()], unmanaged: [hostile_atom()]},
      plan_node(),
      risk(),
      composition(),
      entry(),
      manifest(),
      signature(),
      release(),
      %HotPatch.Build{
        composition: composition(),
        zip: @hostile,
        out: @hostile,
        notes: [@hostile],
        analysis: analysis()
      },
      %HotPatch.Drift{
        node: hostile_atom(),
        module: @hostile,
        from: :disk,
        running: @hostile,
        expected: @hostile,
        cause: @hostile
      },
      %HotPatch.InstalledRelease{
        node: hostile_atom(),
        name: @hostile,
        version: @hostile,
        status: :old,
        boots?: true,
        note: @hostile
      },
      relup(),
      rehearsal(),
      hd(rehearsal().nodes),
      hd(hd(rehearsal().nodes).modules),
      hd(hd(rehearsal().nodes).replays),
      %HotPatch.Proving{
        outcome: :failed,
        patch: @hostile,
        nodes: [hostile_atom()],
        steps: [step()],
        logs: @hostile,
        started_at: at()
      },
      step(),
      %HotPatch.Error{
        reason: :refused,
        message: @hostile,
        report: report(),
        details: %{by: @hostile}
      },
      %HotPatch.Refusal{rule: :name_control, entry: @hostile, message: @hostile},
      %HotPatch.Event{
        operation: @hostile,
        kind: :apply,
        patch: @hostile,
        by: @hostile,
        node: hostile_atom(),
        phase: :commit,
        state: :failed,
        text: @hostile,
        at: at()
      },
      %HotPatch.JournalEntry{
        at: at(),
        what: :apply,
        operation: :rollback,
        patch: @hostile,
        by: @hostile,
        reason: @hostile,
        from: @hostile,
        signed_by: @hostile,
        overridden: %{transition: %{manifest: @hostile, given: @hostile}},
        accepted: [@hostile],
        coordinator: hostile_atom(),
        release: release(),
        status: :ok,
        nodes: [%{node: hostile_atom(), at: at(), error: @hostile}]
      },
      %HotPatch.NodeInfo{
        node: hostile_atom(),
        managed?: true,
        problem: @hostile,
        roles: [hostile_atom()],
        release: release(),
        otp: @hostile,
        elixir: @hostile,
        applied: [@hostile],
        restart_needed: [@hostile],
        behind: @hostile,
        forced: [@hostile],
        operation: %{by: @hostile}
      },
      %HotPatch.NodeInfo{node: hostile_atom(), managed?: false, problem: @hostile},
      %HotPatch.Patch{
        id: @hostile,
        name: @hostile,
        sha256: <<0::256>>,
        size: 1,
        files: 1,
        modules: 1,
        release: release(),
        uploaded_at: at(),
        by: @hostile,
        signed_by: @hostile,
        follows: %{name: @hostile, modules: [@hostile]},
        upgrade: @hostile
      },
      %HotPatch.Answers{
        of: :patches,
        items: [report()],
        nodes: [hostile_atom()],
        failed: [%{node: hostile_atom(), problem: @hostile}],
        missing: [hostile_atom()]
      },
      %HotPatch.Cancellation{
        operation: @hostile,
        kind: :apply,
        patch: @hostile,
        by: @hostile,
        outcome: :rolled_back,
        message: @hostile,
        report: report()
      },
      %HotPatch.Host.Config{
        data_dir: @hostile,
        peers: [hostile_atom()],
        release: {@hostile, @hostile}
      },
      %Console.User{name: @hostile, role: :admin},
      %Console.Request{
        method: @hostile,
        path: [@hostile],
        query: %{@hostile => [@hostile]},
        headers: %{@hostile => @hostile},
        body: @hostile,
        peer: @hostile,
        base: @hostile,
        form: %{@hostile => [@hostile]},
        csrf: @hostile
      },
      %Console.Response{headers: [{@hostile, @hostile}], body: @hostile}
    ]
  end

  defp step,
    do: %HotPatch.Proving.Step{name: hostile_atom(), outcome: :failed, text: @hostile}

  defp rehearsal do
    module = %HotPatch.Rehearsal.ModuleResult{
      module: @hostile,
      kind: hostile_atom(),
      processes: 2,
      tried: 1,
      forms: [%{from: @hostile, to: @hostile, count: 1}],
      failures: [%{reason: @hostile, place: @hostile, count: 1, processes: [@hostile]}],
      left_out: [%{why: :late, text: @hostile, count: 1}]
    }

    values = [%{message: @hostile, from: @hostile, to: @hostile}]

    node = %HotPatch.Rehearsal.NodeResult{
      node: hostile_atom(),
      outcome: :failed,
      modules: [module],
      replays: [replay(values)],
      instructions: [@hostile],
      late: [@hostile],
      uncertain: [@hostile],
      refused: [@hostile],
      warnings: [@hostile],
      error: @hostile
    }

    %HotPatch.Rehearsal{
      patch: @hostile,
      outcome: :failed,
      nodes: [node],
      replay: 3,
      effective: [%{module: @hostile, function: @hostile, calls: [@hostile]}],
      unmanaged: [hostile_atom()],
      missing: [hostile_atom()],
      by: @hostile,
      started_at: at()
    }
  end

  defp replay(values) do
    %HotPatch.Rehearsal.Replay{
      module: @hostile,
      processes: 1,
      messages: 3,
      same: 1,
      crashes: [
        %{
          message: @hostile,
          reason: @hostile,
          place: @hostile,
          stack: [@hostile],
          count: 1,
          values: values
        }
      ],
      differences: [
        %{what: :reply, message: @hostile, from: @hostile, to: @hostile, count: 1, values: values}
      ],
      left_aside: [%{why: :calls, text: @hostile, count: 1}],
      unheard: [%{why: :late, text: @hostile, count: 1}]
    }
  end

  defp relup do
    %HotPatch.Build.Relup{
      name: @hostile,
      from: @hostile,
      to: @hostile,
      appups: [
        %{
          application: @hostile,
          from: @hostile,
          to: @hostile,
          up: [{:load_module, hostile_atom()}],
          down: [],
          origins: %{up: :own, down: :analysis},
          own?: true
        }
      ],
      added: [{@hostile, @hostile}],
      removed: [{@hostile, @hostile}],
      protocols: [@hostile],
      findings: %{up: [finding()], down: [finding()]},
      notes: [@hostile],
      relup: {},
      written: [@hostile]
    }
  end

  defp public_structs do
    {:ok, modules} = :application.get_key(:hot_patch, :modules)

    for module <- modules,
        String.starts_with?(Atom.to_string(module), "Elixir.HotPatch"),
        not String.starts_with?(Atom.to_string(module), "Elixir.HotPatch.Test."),
        Code.ensure_loaded?(module),
        function_exported?(module, :__struct__, 0),
        public?(module),
        do: module
  end

  defp public?(module) do
    case Code.fetch_docs(module) do
      {:docs_v1, _, _, _, hidden, _, _} when hidden in [:hidden, :none] -> false
      {:docs_v1, _, _, _, %{}, _, _} -> true
    end
  end

  test "every public struct is looked at here, with a hostile text in each field that is text" do
    examples = examples()
    given = examples |> Enum.map(& &1.__struct__) |> Enum.uniq() |> Enum.sort()
    assert given == Enum.sort(public_structs())

    for module <- given, field <- text_fields(module) do
      values = for %{__struct__: ^module} = example <- examples, do: Map.fetch!(example, field)

      assert Enum.any?(values, &(is_binary(&1) and &1 =~ "\e")),
             "#{inspect(module)}.#{field} has no hostile text"
    end
  end

  # Those that are a text, or a text and something else, by the type `t`.
  defp text_fields(module) do
    {:ok, types} = Code.Typespec.fetch_types(module)
    fields = Enum.find_value(types, fn {_kind, type} -> fields(type) end)

    for {:type, _, _, [{:atom, _, field}, type]} <- fields, text?(type), do: field
  end

  defp fields({:t, {:type, _, :map, fields}, _variables}), do: fields
  defp fields(_another_type), do: nil

  defp text?({:remote_type, _, [{:atom, _, module}, {:atom, _, :t}, []]}),
    do: module in [String, Path]

  defp text?({:type, _, :union, types}), do: Enum.any?(types, &text?/1)
  defp text?(_type), do: false

  test "nothing that a terminal obeys or hides comes out of them, and no line of a forger's" do
    for example <- examples() do
      name = inspect(example.__struct__)
      harmless!(inspect(example), "inspect of #{name}")
      harmless!(inspect(example, pretty: true, limit: :infinity), "inspect of #{name}")

      if String.Chars.impl_for(example) do
        text = to_string(example)
        harmless!(text, "text of #{name}")
        shown!(text, name)
      end

      if is_exception(example) do
        harmless!(Exception.message(example), "message of #{name}")
        assert Map.fetch!(example, :message) == @hostile
      end

      if function_exported?(example.__struct__, :line, 1) and
           example.__struct__ != HotPatch.Watch,
         do: harmless!(example.__struct__.line(example), "line of #{name}")
    end
  end

  test "an inspected struct within another term is as harmless" do
    harmless!(inspect({:error, hd(examples())}), "tuple")
    harmless!(inspect(%{patch: [release()]}), "map")
  end

  test "a table's cell is one line" do
    text =
      HotPatch.Support.Table.render(["a", "b"], [["x", "y\n#{@forged}"]]) |> IO.iodata_to_binary()

    assert length(String.split(text, "\n", trim: true)) == 3
    harmless!(text, "table")
  end

  test "what is harmless stays as it is, in any language" do
    for text <- ["", "fix: ticket 4711", "Größe → 世界 🎉", "a\\u{1b}"],
        do: assert(Printable.line(text) == text)

    assert Printable.line(Printable.line(@hostile)) == Printable.line(@hostile)
  end

  test "an exception of somebody else's has lines for its stack alone" do
    text =
      try do
        raise ArgumentError, @hostile
      rescue
        error -> Printable.exception(:error, error, __STACKTRACE__)
      end

    harmless!(text, "exception")
    assert text =~ "printable_test.exs"
    harmless!(Printable.exception(:throw, @hostile, []), "throw")
  end

  test "the log gets one line, and metadata without anything to obey" do
    metadata = [by: @hostile, node: :n, count: 1]

    logged =
      ExUnit.CaptureLog.capture_log([metadata: [:by], colors: [enabled: false]], fn ->
        HotPatch.Support.Log.error("HotPatch: #{@hostile}", metadata)
      end)

    harmless!(logged, "log")
    shown!(logged, "log")
    assert length(String.split(String.trim(logged), "\n")) == 1
    assert HotPatch.Support.Log.metadata(metadata)[:node] == :n
  end

  # An operator's call from another node has that node's group leader, and OTP would log it there.
  test "the log of what another node has called is written here" do
    {pid, monitor} =
      spawn_monitor(fn ->
        name = :erlang.term_to_binary(:"operator@127.0.0.1")

        elsewhere =
          <<131, 88>> <> binary_part(name, 1, byte_size(name) - 1) <> <<9::32, 0::32, 1::32>>

        Process.group_leader(self(), :erlang.binary_to_term(elsewhere))
        exit({node(Process.group_leader()), HotPatch.Support.Log.metadata(by: "alice")})
      end)

    assert_receive {:DOWN, ^monitor, :process, ^pid, {leader, metadata}}
    assert leader == :"operator@127.0.0.1"
    assert Keyword.take(metadata, [:by, :gl]) == [by: "alice", gl: Process.whereis(:user)]
    assert HotPatch.Support.Log.metadata([]) == []
  end

  test "nothing goes to the log another way" do
    root = Path.expand("../../..", __DIR__)

    logging =
      for path <- Path.wildcard(Path.join(root, "lib/**/*.ex")),
          Path.basename(path) != "log.ex",
          File.read!(path) =~
            ~r/(\bLogger|:logger)\.(debug|info|notice|warn|warning|error|log)\b/,
          do: Path.relative_to(path, root)

    assert logging == []
  end
end
