defmodule HotPatch.Cluster.ShadowsTest do
  use ExUnit.Case, async: true

  alias HotPatch.Cluster.Shadows
  alias HotPatch.Composition.Entry

  @code_change [{"code_change", 3}]

  # A module that calls others, each as `{module, function, arity}` of no meaning here.
  defp entry(name, calls, more \\ []) do
    beam = %{
      module: name,
      imports: for(module <- calls, do: {module, "f", 0}),
      exports: Keyword.get(more, :exports, []),
      behaviours: Keyword.get(more, :behaviours, []),
      on_load: Keyword.get(more, :on_load, false),
      load_nif: Keyword.get(more, :load_nif, false),
      attributes: Keyword.get(more, :attributes, :erlang.term_to_binary(vsn: [1]))
    }

    %Entry{path: name, size: 0, crc32: 0, sha256: "", bytes: name, kind: :beam, beam: beam}
  end

  # What the native core would say: of those that fail an error, of `lambdas` and `by_name` so.
  defp make(entries, said \\ []) do
    maker = fn modules ->
      send(self(), {:asked, Enum.sort(modules)})

      {:ok,
       for module <- modules do
         if module in Keyword.get(said, :fail, []) do
           {:error, "it cannot be copied"}
         else
           {:ok,
            %{
              name: module <> "@",
              bytes: module,
              lambdas: module in Keyword.get(said, :lambdas, []),
              by_name: module in Keyword.get(said, :by_name, []),
              effect: if(module in Keyword.get(said, :pure, []), do: nil, else: ":ets.lookup/2"),
              makes_funs: module in Keyword.get(said, :makes_funs, [])
            }}
         end
       end}
    end

    {:ok, shadows} = Shadows.make(entries, maker)
    shadows
  end

  defp names(shadows), do: shadows |> Enum.map(& &1.module) |> Enum.sort()

  test "of what converts states, and of all that it leads to" do
    entries = [
      entry("server", ["helper", "lists"], exports: @code_change),
      entry("helper", ["deep"]),
      entry("deep", ["server"]),
      entry("other", ["server"]),
      entry("tree", [], behaviours: ["Elixir.Supervisor"])
    ]

    assert names(make(entries)) == ~w(deep helper server tree)
    assert make([entry("other", ["x"])]) == []
    assert make([]) == []
  end

  test "of nobody who leads to a module that can have none" do
    nif = entry("nif", [], load_nif: true)
    on_load = entry("loads", [], on_load: true)
    server = entry("server", ["helper"], exports: @code_change)
    free = entry("free", ["own"], exports: @code_change)

    for cannot <- [nif, on_load] do
      entries = [server, free, entry("own", []), entry("helper", [cannot.beam.module]), cannot]
      assert names(make(entries)) == ~w(free own)
    end

    entries = [server, free, entry("own", []), entry("helper", [])]
    assert names(make(entries, fail: ["helper"])) == ~w(free own)
    assert names(make(entries, fail: ["server"])) == ~w(free own)
    assert make(entries, fail: ~w(own helper)) == []
  end

  test "of all, where a module is called by a name that is known only when the code runs" do
    server = entry("server", ["helper"], exports: @code_change)
    entries = [server, entry("helper", []), entry("state", ["deep"]), entry("deep", [])]
    assert names(make(entries)) == ~w(helper server)
    assert names(make(entries, by_name: ["helper"])) == ~w(deep helper server state)
    # It could lead to one that has none.
    assert make(entries ++ [entry("nif", [], load_nif: true)], by_name: ["helper"]) == []
    assert make(entries, by_name: ["helper"], fail: ["deep"]) == []
    # Nobody converts: nobody is asked.
    assert make([entry("helper", []), entry("state", [])], by_name: ["helper"]) == []
  end

  test "of nobody whom a protocol outside the patch leads to the implementation before" do
    implementation = fn name, protocol ->
      attributes = :erlang.term_to_binary(__impl__: [protocol: protocol, for: Other])
      entry(name, [], exports: [{"__impl__", 1}], attributes: attributes)
    end

    server = &entry("server", &1, exports: @code_change)
    of_others = implementation.("Elixir.Enumerable.Demo", Enumerable)
    of_own = implementation.("Elixir.Demo.Show.Demo", Demo.Show)
    protocol = entry("Elixir.Demo.Show", [], exports: [{"__protocol__", 1}])

    assert make([server.(["Elixir.Enum"]), of_others]) == []
    assert make([server.(["Elixir.Demo.Show"]), of_own]) == []
    assert names(make([server.(["Elixir.Demo"]), of_own])) == ["server"]
    # That of the patch goes by name.
    entries = [server.(["Elixir.Demo.Show"]), of_own, protocol]

    assert names(make(entries, by_name: ["Elixir.Demo.Show"])) ==
             ["Elixir.Demo.Show", "Elixir.Demo.Show.Demo", "server"]
  end

  test "tell whether funs may come of what they call" do
    entries = [
      entry("server", ["helper"], exports: @code_change),
      entry("helper", []),
      entry("alone", [], exports: @code_change)
    ]

    lambdas = fn said -> for %{lambdas?: true, module: name} <- make(entries, said), do: name end
    assert Enum.sort(lambdas.(lambdas: ["helper"])) == ~w(helper server)
    assert lambdas.(lambdas: ["server"]) == ["server"]
    assert lambdas.([]) == []
    # What the callback leads to is known better.
    assert lambdas.(lambdas: ["helper", "server"], pure: ["server"]) == ["helper"]
    both = [lambdas: ["server"], pure: ["server"], makes_funs: ["server"]]
    assert lambdas.(both) == ["server"]
    assert Enum.sort(lambdas.(lambdas: ["helper"], by_name: ["alone"])) == ~w(alone helper server)
  end

  test "are asked for no more often than something new is known" do
    server = entry("server", ["helper"], exports: @code_change)
    make([server, entry("helper", []), entry("state", [])], by_name: ["server"])
    assert_received {:asked, ~w(helper server)}
    assert_received {:asked, ~w(helper server state)}
    refute_received {:asked, _again}
  end
end
