defmodule HotPatch.Swap.DynamicCallsTest do
  # A code_change that leads to another module of the same swap by a name that is known only when
  # it runs.
  use ExUnit.Case, async: false

  alias HotPatch.Swap.DynamicCalls
  alias HotPatch.Test.Servers

  @server HotPatch.ByNameTest.Server
  @state HotPatch.ByNameTest.State

  # Version 1 has the field `a`, version 2 the field `b` besides.
  defp state(vsn) do
    fields = if vsn == 1, do: "[a: 0]", else: "[a: 0, b: :new]"

    compile("""
    defmodule #{inspect(@state)} do
      @enforce_keys [:a]
      defstruct #{fields}
      def new(a), do: %__MODULE__{a: a}
      def migrate(state, _extra), do: Map.put(Map.from_struct(state), :by, #{vsn})
      #{if vsn == 2, do: "def added, do: :added"}
    end
    """)
  end

  defp server(vsn, convert) do
    compile("""
    defmodule #{inspect(@server)} do
      use GenServer
      @vsn #{vsn}
      def init(module), do: {:ok, apply(module, :new, [7])}
      def handle_call(:state, _from, state), do: {:reply, state, state}
      def code_change(_vsn, state, extra) do
        _ = extra
        module = if is_map(state), do: Map.get(state, :__struct__)
        _ = module
        {:ok, #{convert}}
      end
    end
    """)
  end

  defp compile(text) do
    Code.put_compiler_option(:ignore_module_conflict, true)
    [{module, bytes}] = Code.compile_string(text)
    Servers.unload(module)
    bytes
  after
    Code.put_compiler_option(:ignore_module_conflict, false)
  end

  defp load(module, bytes), do: {:module, ^module} = :code.load_binary(module, ~c"by_name", bytes)

  defp converted(convert) do
    [old_state, new_state] = [state(1), state(2)]
    [old, new] = [server(1, convert), server(2, convert)]
    load(@state, old_state)
    load(@server, old)
    {:ok, pid} = GenServer.start(@server, @state)
    job = Servers.job([{@server, old, new}, {@state, old_state, new_state}])
    outcome = Servers.run(job)
    state = GenServer.call(pid, :state)
    Servers.kill([pid])
    for module <- [@server, @state], do: Servers.unload(module)
    assert {:ok, %{suspended: 1}} = outcome
    state
  end

  test "a struct has the fields of the new version" do
    new = %{__struct__: @state, a: 7, b: :new}

    for convert <- [
          "struct(#{inspect(@state)}, Map.from_struct(state))",
          "struct(module, Map.from_struct(state))",
          "struct(module, a: 7)",
          "struct!(#{inspect(@state)}, a: 7)",
          "struct!(module, a: 7)",
          "%{struct(module) | a: 7}",
          "module.new(7)",
          "apply(module, :new, [7])",
          "apply(module, hd([:new]), [7 | tl([7])])",
          "module |> Function.capture(:new, 1) |> then(& &1.(7))"
        ] do
      assert converted(convert) == new, convert
    end
  end

  test "functions and fields of the new version are there" do
    assert %{by: 2} = converted("module.migrate(state, extra)")
    assert %{by: 2, a: 7} = converted("apply(module, :migrate, [state, extra])")
    added = "Map.put(state, :x, function_exported?(module, :added, 0) and module.added())"
    assert %{x: :added} = converted(added)
    assert %{a: 0, b: :new} = converted("Map.from_struct(module)")
    assert %{x: true} = converted("Map.put(state, :x, Code.ensure_loaded?(module))")
  end

  test "a module that has no shadow is the one that runs" do
    assert converted("Map.put(state, :x, apply(hd([:lists]), :seq, [1, 3]))").x == [1, 2, 3]
    assert converted("%{state | a: struct(hd([URI]), path: \"/\")}").a == %URI{path: "/"}
    assert DynamicCalls.call(1, 3, :lists, :seq) == [1, 2, 3]
    assert DynamicCalls.call(Enum, :module_info) |> Keyword.get(:module) == Enum
    assert DynamicCalls.struct(%URI{}, path: "/") == %URI{path: "/"}
    assert DynamicCalls.from_struct(%URI{}) == Map.from_struct(%URI{})
    assert DynamicCalls.make_fun(:lists, :seq, 2).(1, 2) == [1, 2]
    refute DynamicCalls.function_exported(:no_such_module_here, :f, 0)
    long = String.duplicate("x", 255) |> String.to_atom()
    refute DynamicCalls.ensure_loaded?(long)
  end

  test "what is no module is told as it would be without a shadow" do
    for {shadowed, plain} <- [
          {fn -> DynamicCalls.call(1, hd(["no atom"]), :f) end,
           fn -> apply(hd(["no atom"]), :f, [1]) end},
          {fn -> DynamicCalls.call(:no_such_module_here, :f) end,
           fn -> apply(:no_such_module_here, :f, []) end},
          {fn -> DynamicCalls.struct!(URI, no_such_field: 1) end,
           fn -> struct!(URI, no_such_field: 1) end}
        ] do
      assert raised(shadowed) == raised(plain)
    end
  end

  defp raised(fun) do
    fun.()
    flunk("nothing was raised")
  rescue
    error in [ArgumentError, UndefinedFunctionError, KeyError] -> error.__struct__
  end

  test "a fun that another shadow made is not kept" do
    maker = fn vsn ->
      compile("""
      defmodule #{inspect(@state)} do
        @vsn #{vsn}
        def new(a), do: a
        def fun(a), do: fn b -> {#{vsn}, a, b} end
      end
      """)
    end

    [old_state, new_state] = [maker.(1), maker.(2)]
    convert = "Stream.map([1], #{inspect(@state)}.fun(state))"
    [old, new] = [server(1, convert), server(2, convert)]
    load(@state, old_state)
    load(@server, old)
    {:ok, pid} = GenServer.start(@server, @state)
    job = Servers.job([{@server, old, new}, {@state, old_state, new_state}])
    # Whether a shadow can make funs is known of all that it calls.
    job = %{job | shadows: Enum.map(job.shadows, &%{&1 | lambdas?: true})}
    assert {:ok, _done} = Servers.run(job)
    assert Enum.to_list(GenServer.call(pid, :state)) == [{2, 7, 1}]
    Servers.kill([pid])
    for module <- [@server, @state], do: Servers.unload(module)
  end
end
