defmodule HotPatch.AnalysisTest do
  use ExUnit.Case, async: true

  alias HotPatch.Analysis
  alias HotPatch.Analysis.Finding
  alias HotPatch.Bridge
  alias HotPatch.Test.Builds

  defp files(build) do
    for file <- HotPatch.Support.Folder.files(Builds.ebin(build), ".beam"), do: File.read!(file)
  end

  defp changed(build), do: for({_path, bytes} <- Builds.changed(build), do: bytes)

  defp change(analysis, name) do
    Enum.find(analysis.modules, &(&1.module == "Elixir.Exchange.#{name}"))
  end

  test "findings have the names, severities and texts of the native library" do
    table =
      for {name, severity, what, next} <- Finding.table(),
          do: {"#{name}", "#{severity}", what, next}

    assert {:ok, ^table} = Bridge.request("finding_names", [], [], "the names")
  end

  describe "the patched exchange" do
    setup do
      {:ok, analysis} = Analysis.run(files("shipped"), changed("patched"))
      %{analysis: analysis}
    end

    test "converts every state that it changes", %{analysis: analysis} do
      assert for(%{severity: severity} = one when severity != :info <- analysis.findings, do: one) ==
               []

      for {name, role} <- [Call: :gen_server, Cdr: :gen_event, Trunk: :gen_statem] do
        change = change(analysis, name)
        assert role in change.roles
        assert %{code_change: :touched, state_moves?: true, pause: :state} = change
      end

      refute analysis.stateless?

      assert %{pause: :none, operation: :add, functions: %{removed: []}} =
               change(analysis, :Tariff)

      # Its processes are hand-written loops.
      assert %{pause: :none, roles: [:pure]} = change(analysis, :Meter)
    end

    test "says which functions are another, and who calls", %{analysis: analysis} do
      assert change(analysis, :Billing).functions == %{
               added: [],
               removed: [],
               changed: ["charge/2"]
             }

      call = change(analysis, :Call)
      assert "code_change/3" in call.functions.changed or "code_change/3" in call.functions.added
      refute "start_link/1" in call.functions.changed
      assert "Elixir.Exchange.Tariff" in change(analysis, :Billing).calls
      assert change(analysis, :Cdr).callers == ["Elixir.Exchange"]
    end

    test "is loaded with callees before callers", %{analysis: analysis} do
      order = List.flatten(analysis.order)
      place = fn name -> Enum.find_index(order, &(&1 == "Elixir.Exchange.#{name}")) end
      assert place.(:Tariff) < place.(:Billing)
      assert place.(:Billing) < place.(:Call)
      assert length(order) == length(analysis.modules)
      assert Analysis.cycles(analysis) == []
    end

    test "is a line in iex, a table within 100 columns, and JSON", %{analysis: analysis} do
      assert inspect(analysis) =~ "#HotPatch.Analysis<6 modules"

      for line <- analysis |> to_string() |> String.split("\n"),
          do: assert(String.length(line) <= 100)

      assert {:ok, json} = HotPatch.to_json(analysis)
      assert json =~ ~s("code_change":"touched")
    end
  end

  test "a call whose code_change was left out is a danger, until it is accepted" do
    {:ok, analysis} =
      Analysis.run(files("patched"), [Builds.changed("broken", "Call") |> elem(1)])

    assert Analysis.refused(analysis, []) == []
    # The state of the broken build, and nothing that converts it.
    {_path, bytes} = Builds.changed("broken", "Call")
    refute Builds.without_code_change(bytes) == bytes
    {:ok, analysis} = Analysis.run(files("patched"), [Builds.without_code_change(bytes)])
    assert [finding] = Analysis.refused(analysis, [])
    assert %{name: :state_changed_without_code_change, module: "Elixir.Exchange.Call"} = finding
    assert finding.message =~ "country"
    assert Analysis.refused(analysis, ["state_changed_without_code_change"]) == []
    assert Analysis.refused(analysis, ["state_changed_without_code_change:Exchange.Call"]) == []
    assert [_] = Analysis.refused(analysis, ["state_changed_without_code_change:Exchange.Cdr"])
  end

  test "modules that are left out of a patch are missed" do
    {_path, billing} = Builds.changed("patched", "Billing")
    {:ok, analysis} = Analysis.run(files("shipped"), [billing])

    assert [%{name: :unknown_module_called, items: ["Elixir.Exchange.Tariff"]}] =
             analysis.findings

    # What OTP and Elixir have is known.
    {:ok, analysis} = Analysis.run([], [billing, Builds.changed("patched", "Tariff") |> elem(1)])
    refute Enum.any?(analysis.findings, &match?(%{items: ["Elixir.Map"]}, &1))
  end

  test "two whole builds: what is in the first alone goes" do
    {:ok, analysis} = Analysis.run(files("patched"), files("shipped"), deleted: :rest)
    assert %{operation: :delete} = change(analysis, :Tariff)
    assert List.last(analysis.order) == ["Elixir.Exchange.Tariff"]
    assert Enum.any?(analysis.findings, &(&1.name == :module_unchanged))
    # As an upgrade it lacks every code_change; as the way back it has them.
    refused = for finding <- Analysis.refused(analysis, []), do: finding.module
    assert refused == ["Elixir.Exchange.Call", "Elixir.Exchange.Cdr", "Elixir.Exchange.Trunk"]
    options = [deleted: :rest, direction: :down]
    {:ok, analysis} = Analysis.run(files("patched"), files("shipped"), options)
    assert Analysis.refused(analysis, []) == []
  end

  describe "a protocol that is consolidated" do
    @describetag :tmp_dir

    setup %{tmp_dir: dir} do
      # In a VM of its own: this one is not to have the exchange on its path.
      script = """
      {:ok, bytes} = Protocol.consolidate(Exchange.Printable, [Exchange.Record])
      File.write!("#{dir}/consolidated.beam", bytes)
      """

      {_, 0} = System.cmd("elixir", ["-pa", Builds.ebin("shipped"), "-e", script])
      protocol = "Elixir.Exchange.Printable"
      plain = File.read!(Path.join(Builds.ebin("shipped"), protocol <> ".beam"))

      implementation =
        File.read!(Path.join(Builds.ebin("shipped"), protocol <> ".Exchange.Record.beam"))

      %{
        consolidated: File.read!(Path.join(dir, "consolidated.beam")),
        plain: plain,
        implementation: implementation
      }
    end

    test "is not to be replaced by one that is not", %{consolidated: consolidated, plain: plain} do
      {:ok, analysis} = Analysis.run([consolidated], [plain])
      assert [%{name: :protocol_not_consolidated}] = Analysis.refused(analysis, [])
      {:ok, analysis} = Analysis.run([plain], [consolidated])
      assert Analysis.refused(analysis, []) == []
    end

    test "does not know an implementation that is new", context do
      %{consolidated: consolidated, plain: plain, implementation: implementation} = context
      {:ok, analysis} = Analysis.run([consolidated], [implementation])

      assert [%{name: :implementation_not_consolidated, items: ["Exchange.Printable"]}] =
               Analysis.refused(analysis, [])

      {:ok, analysis} = Analysis.run([plain], [implementation])
      assert Analysis.refused(analysis, []) == []
      name = "Elixir.Exchange.Printable.Exchange.Record"
      {:ok, analysis} = Analysis.run([consolidated, implementation], [], deleted: [name])
      names = for finding <- Analysis.refused(analysis, []), do: finding.name
      assert names == [:module_deleted_but_called, :implementation_deleted]
    end
  end
end
