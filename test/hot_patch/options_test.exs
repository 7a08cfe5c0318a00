defmodule HotPatch.OptionsTest do
  # The table of options, and that everything which is derived from it has all of it.
  use ExUnit.Case, async: true

  alias HotPatch.Command
  alias HotPatch.Console.HTML
  alias HotPatch.Console.Page.Fields
  alias HotPatch.Console.Params
  alias HotPatch.Options
  alias HotPatch.Options.CommandLine
  alias HotPatch.Options.Schema
  alias HotPatch.Options.Type
  alias HotPatch.Options.WatchLimits

  # Every option of every call, once for each.
  defp all, do: for(call <- Schema.calls(), option <- Schema.options(call), do: {call, option})

  # A value of each type as code has it, as a form sends it, and as a command line parses it.
  defp sample({:one_of, values}),
    do: {List.last(values), ["#{List.last(values)}"], "#{List.last(values)}"}

  defp sample(type) do
    here = Atom.to_string(node())

    case type do
      type when type in [:boolean, :watch] -> {true, ["true"], true}
      :canary -> {0.5, ["0.5"], "0.5"}
      :config -> {["app.key=[1]"], ["app.key=[1]"], "app.key=[1]"}
      type when type in [:count, :milliseconds, :seconds] -> {7, ["7"], 7}
      :findings -> {["cycle:M"], ["cycle:M"], "cycle:M"}
      :function -> {fn _done, _all -> :ok end, nil, nil}
      type when type in [:nodes, :node_names] -> {[node()], [here], here}
      :names -> {["M", "N"], ["M,N"], "M,N"}
      :release -> {"app-1.0", ["app-1.0"], "app-1.0"}
      type when type in [:name, :path, :text, :words] -> {"x", ["x"], "x"}
    end
  end

  describe "an entry" do
    test "has what it needs, a default that its own rule takes, and is there once in a call" do
      for {call, option} <- all() do
        assert is_binary(option.doc), inspect({call, option.name})

        for value <- [option.default, option.alone], value != nil do
          assert {call, option.name, Type.check(option.type, value)} == {call, option.name, :ok}
        end
      end

      for call <- Schema.calls() do
        names = for option <- Schema.options(call), do: option.name
        assert names == Enum.uniq(names)
      end
    end

    test "of its type takes a value of that, and nothing else" do
      for {call, option} <- all() do
        {value, _form, _switch} = sample(option.type)
        assert {:ok, valid} = Options.validate(call, required(call, [{option.name, value}]))
        assert valid[option.name] == Type.normal(option.type, value)

        assert {:error, error} = Options.validate(call, required(call, [{option.name, {:no}}]))
        assert error.details.option == option.name
        assert error.message =~ "#{call}: option #{inspect(option.name)} must be"
      end
    end
  end

  defp required(call, options) do
    for(
      option <- Schema.options(call),
      option.required,
      do: {option.name, elem(sample(option.type), 0)}
    )
    |> Keyword.merge(options)
  end

  describe "every option of every call" do
    test "is documented with it" do
      for call <- Schema.calls(), option <- Schema.options(call) do
        assert Options.docs(call) =~ "`:#{option.name}` - #{option.doc}"
      end

      {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(HotPatch)

      for call <- Schema.functions() do
        text = for {{:function, ^call, _arity}, _, _, %{"en" => text}, _} <- docs, do: text
        assert Enum.join(text) =~ Options.docs(call), "the @doc of HotPatch.#{call}"
      end
    end

    test "is in the type of its options, and that is in the spec of the function" do
      {:ok, types} = Code.Typespec.fetch_types(HotPatch)
      {:ok, specs} = Code.Typespec.fetch_specs(HotPatch)
      names = Map.new(types, fn {:type, {name, type, _}} -> {name, type} end)

      for call <- Schema.functions() do
        {:type, _, :list, [type]} = names[:"#{call}_options"]

        pairs =
          case type do
            {:type, _, :union, pairs} -> pairs
            pair -> [pair]
          end

        written = for {:type, _, :tuple, [{:atom, _, name}, _value]} <- pairs, do: name

        assert Enum.sort(written) ==
                 Enum.sort(for(option <- Schema.options(call), do: option.name))

        [spec] = for {{^call, arity}, [spec]} <- specs, arity > 0, do: spec
        assert inspect(spec) =~ "#{call}_options"
      end
    end

    test "is a switch of the command line, with its help" do
      for call <- Command.functions(),
          option <- Schema.options(call),
          {value, _form, switch} = sample(option.type),
          switch != nil do
        assert {:ok, [{name, read}]} = CommandLine.read(call, [{option.name, switch}])
        assert {name, read} == {option.name, value}
        assert Keyword.has_key?(Command.switches(), name)
        assert Command.docs_of_switches() =~ "`--#{Command.name(name)}"
      end

      for task <- Schema.calls() -- Schema.functions(),
          {switch, _type} <- CommandLine.switches(task) do
        assert CommandLine.docs([task]) =~ "`--#{CommandLine.name(switch)}"
      end

      assert Mix.Task.moduledoc(Mix.Tasks.HotPatch.Build) =~ CommandLine.docs([:build])
      assert Mix.Task.moduledoc(Mix.Tasks.HotPatch.Sign) =~ CommandLine.docs([:sign])
      assert Mix.Task.moduledoc(Mix.Tasks.HotPatch.Keygen) =~ CommandLine.docs([:keygen])
      assert Mix.Task.moduledoc(Mix.Tasks.HotPatch.Appup) =~ CommandLine.docs([:appup])
      assert Mix.Task.moduledoc(Mix.Tasks.HotPatch.Rehearse) =~ CommandLine.docs([:prove])
      assert Mix.Task.moduledoc(Mix.Tasks.HotPatch.Relup) =~ CommandLine.docs([:relup])
      assert Mix.Task.moduledoc(Mix.Tasks.HotPatch.Remote) =~ Command.docs_of_switches()
    end

    test "is a field of the page, or said by the page itself; the JSON interface takes the same" do
      for call <- Schema.functions(), option <- Schema.options(call) do
        {value, form, _switch} = sample(option.type)
        read = Params.options(call, %{Atom.to_string(option.name) => form})

        if option.in_person do
          assert {:error, text} = read
          assert text =~ "is not known here"
        else
          assert {call, read} == {call, {:ok, [{option.name, value}]}}
          html = call |> Fields.one(option.name, %{nodes: [node()]}) |> text()
          assert html =~ ~s(name="#{option.name}")
        end
      end
    end

    test "of a form can have every value" do
      for call <- Schema.functions(),
          %{type: {:one_of, values}} = option <- Options.fields_of_form(call) do
        html = call |> Fields.one(option.name) |> text()

        for value <- values,
            do: assert(value == option.default or html =~ ~s(<option value="#{value}"))
      end
    end

    test "stands in the form, but for those that the form has elsewhere" do
      for call <- [:apply, :rollback] do
        html = call |> Fields.others(:reason |> List.wrap(), %{nodes: [node()]}) |> text()

        for %{name: name} <- Options.fields_of_form(call),
            do: assert(html =~ ~s(name="#{name}") == (name != :reason))
      end
    end
  end

  defp text(html), do: html |> HTML.escape() |> IO.iodata_to_binary()

  describe "what goes on" do
    test "to the nodes is a field of the payload, in which nothing is nil that an apply has a default for" do
      fields = Options.payload(:apply, %{})
      keys = %HotPatch.NodeAgent.Payload{patch: "x", release: nil, entries: []} |> Map.keys()
      for {field, value} <- fields, do: assert(field in keys and value != nil)

      given = Map.new(Schema.options(:apply), &{&1.name, elem(sample(&1.type), 0)})

      for %{payload: field} = option when field != nil <- Schema.options(:apply),
          do: assert({field, given[option.name]} in Options.payload(:apply, given))
    end

    test "to an operation that follows is what the entries say" do
      told = Map.new(Options.payload(:apply, %{}))

      for kind <- [:undo, :catch_up] do
        expected =
          for option <- Schema.options(:apply), kind in option.inherited, do: option.payload

        assert Keyword.keys(Options.inherited(kind, :apply, told)) == expected
        assert expected != []
      end

      # A record that does not have it says nothing of it.
      assert Options.inherited(:catch_up, :rollback, %{}) == []
    end

    test "from a manifest are the options that a build writes there" do
      manifest = struct(HotPatch.Manifest)
      content = Map.new(Options.declared(), &{"#{&1.name}", json(&1)})

      for option <- Options.declared() do
        assert Map.fetch!(manifest, option.name) == option.default
        assert Options.declared(content)[option.name] == elem(sample(option.type), 0)
      end
    end

    test "in an operation that nobody has asked for is watched by nobody" do
      alone = Options.alone()
      assert alone.watch == false
      assert Map.delete(alone, :watch) == Map.delete(Options.defaults(:apply), :watch)
    end
  end

  defp json(%{type: {:one_of, _}} = option), do: option.type |> sample() |> elem(2)
  defp json(option), do: option.type |> sample() |> elem(0)

  test "an option that is missing or misspelled is named, with what there is" do
    assert {:error, error} = Options.validate(:build, from: "a", out: "b")
    assert error.message =~ "build: option :to is missing"

    assert {:error, error} = Options.validate(:drift, timout: 1)
    assert error.message =~ "did you mean :timeout?; it takes :nodes, :timeout"
  end

  test "a check of a rollback takes what a rollback takes" do
    {:ok, options} = Options.validate(:check, operation: :rollback, transition: :compatible)
    assert {:error, error} = Options.foresees(:check, :rollback, options)
    assert error.message =~ "check: option :transition of a rollback must be :suspend or :none"
    assert Options.foresees(:check, :rollback, %{options | transition: :none}) == :ok
  end

  test "limits of a watch" do
    defaults = WatchLimits.defaults()

    for {limit, value} <- defaults,
        limit != :health,
        do: assert(WatchLimits.check([{limit, value}]) == :ok)

    assert {:error, text} = WatchLimits.check(gone: 1)
    assert text =~ "gone: 1"

    for sign <- WatchLimits.signs() do
      assert WatchLimits.docs() =~ "`:#{sign}`"
      assert is_map_key(defaults, sign) or sign == :gone
    end
  end

  test "text of a setting makes no atom, and a wrong one is not repeated" do
    name = "key_#{System.unique_integer([:positive])}"
    assert {:ok, options} = Options.validate(:check, config: ["app.#{name}=#{name}_value"])

    assert [{"app", ^name, {:text, _}}] =
             HotPatch.Cluster.ManifestDefaults.config(options.config, nil)

    assert_raise ArgumentError, fn -> String.to_existing_atom(name) end

    assert {:error, error} = Options.validate(:apply, config: ["secret"])
    refute error.message =~ "secret"
  end
end
