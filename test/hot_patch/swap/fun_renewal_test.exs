defmodule HotPatch.Swap.FunRenewalTest do
  use ExUnit.Case, async: false

  import Bitwise
  import HotPatch.Test.Servers

  alias HotPatch.NodeAgent.FunMaps
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Test.Builds

  @module :hot_patch_test_maker
  @other :hot_patch_test_wrapper

  # The second version has one more before all others, and another body in each.
  @v1 """
  -module(hot_patch_test_maker).
  -export([one/1, none/0, nested/1, gone/2]).
  one(X) -> fun(Y) -> {v1, X, Y} end.
  none() -> fun() -> v1 end.
  nested(X) -> fun() -> fun(Y) -> {v1, X, Y} end end.
  gone(X, Y) -> Z = {X, Y}, fun() -> {v1, Z} end.
  """
  @v2 """
  -module(hot_patch_test_maker).
  -export([first/1, one/1, none/0, nested/1, gone/2]).
  first(X) -> fun(Y) -> {first, X, Y} end.
  one(X) -> fun(Y) -> {v2, X, Y} end.
  none() -> fun() -> v2 end.
  nested(X) -> fun() -> fun(Y) -> {v2, X, Y} end end.
  gone(X, Y) -> Z = {Y, X}, W = [Z], fun() -> {v2, Z, W} end.
  """
  @wrapper """
  -module(hot_patch_test_wrapper).
  -export([wrap/1]).
  wrap(F) -> fun() -> {wrapped, F} end.
  """

  setup_all do
    [v1, v2, wrapper] = Enum.map([@v1, @v2, @wrapper], &Builds.erlang/1)
    {%{@module => there}, []} = FunMaps.of([{@module, v1, v2}])
    {%{@module => back}, []} = FunMaps.of([{@module, v2, v1}])
    %{v1: v1, v2: v2, wrapper: wrapper, there: table(there), back: table(back)}
  end

  setup context do
    load(@module, context.v1)
    load(@other, context.wrapper)
    on_exit(fn -> Enum.each([@module, @other], &unload/1) end)
  end

  defp table(funs), do: %{modules: %{@module => funs.new}, funs: funs.funs}

  defp call(function, arguments \\ []), do: apply(@module, function, arguments)

  # Renewed before the load, as it is done; alive when what was before is purged.
  defp renew(term, context) do
    result = FunRenewal.renew(term, context.there)
    load(@module, context.v2)
    true = :code.soft_purge(@module)
    result
  end

  test "a fun becomes one of the next version, equal to its own, with the values of before",
       context do
    funs = {call(:one, [%{a: 1}]), call(:none), call(:nested, [:x])}
    assert {{:new, {one, none, nested}}, []} = renew(funs, context)
    assert one.(2) == {:v2, %{a: 1}, 2}
    assert none.() == :v2
    assert nested.().(3) == {:v2, :x, 3}
    assert {one, none, nested} === {call(:one, [%{a: 1}]), call(:none), call(:nested, [:x])}
  end

  test "and back", context do
    assert {{:new, there}, []} = renew([call(:one, [7])], context)
    assert {{:new, [back]}, []} = FunRenewal.renew(there, context.back)
    load(@module, context.v1)
    true = :code.soft_purge(@module)
    assert back.(8) == {:v1, 7, 8}
    assert back === call(:one, [7])
  end

  test "wherever it stands", context do
    fun = call(:one, [1])
    inner = call(:nested, [2]).()
    wrapped = apply(@other, :wrap, [%{deep: [fun]}])

    term = %{
      fun => {:as_key, fun},
      :list => [fun, 1, [fun | fun]],
      :improper => [1, 2 | fun],
      :tuple => {{{fun}}},
      :inner => inner,
      :wrapped => wrapped,
      :in_own => call(:one, [fun]),
      :external => Function.capture(@module, :none, 0),
      :struct => %URI{host: fun},
      :large => Map.new(1..100, &{&1, {&1, fun}})
    }

    assert {{:new, new}, []} = renew(term, context)
    now = call(:one, [1])
    assert new[now] == {:as_key, now}
    assert new.list == [now, 1, [now | now]]
    assert new.improper == [1, 2 | now]
    assert new.tuple == {{{now}}}
    assert new.inner.(3) == {:v2, 2, 3}
    assert new.wrapped.() == {:wrapped, %{deep: [now]}}
    assert {:v2, given, 5} = new.in_own.(5)
    assert given === now
    assert new.external.().() == :v2
    assert new.struct == %URI{host: now}
    assert new.large[77] == {77, now}
    assert map_size(new) == map_size(term)
  end

  test "one without counterpart stays, and is told; the others do not", context do
    gone = call(:gone, [1, 2])
    assert {{:new, new}, [left]} = FunRenewal.renew({gone, call(:none)}, context.there)
    assert elem(new, 0) === gone
    assert {@module, _uniq, _index} = left
    assert left == FunRenewal.local(gone)
    # Around it and in it there may be others.
    assert {{:new, around}, [^left]} =
             FunRenewal.renew(call(:gone, [call(:none), 2]), context.there)

    load(@module, context.v2)
    assert {:v1, {none, 2}} = around.()
    assert none.() == :v2
  end

  test "of a term without such funs nothing is built anew", context do
    term = %{a: [1, {2, fn -> context end}], b: &String.length/1, c: apply(@other, :wrap, [1])}
    assert {:same, []} = FunRenewal.renew(term, context.there)
    part = Enum.to_list(1..1000)
    assert {{:new, [new, _fun]}, []} = FunRenewal.renew([part, call(:none)], context.there)
    assert :erts_debug.same(new, part)
  end

  test "a term that is without end for whoever walks it is left alone, and told", context do
    huge = Enum.reduce(1..64, 0, fn _, part -> {part, part} end)

    for term <- [{call(:none), huge}, [call(:none) | huge], %{huge: huge}, call(:one, [huge])],
        do: assert({:same, [:too_large]} = FunRenewal.renew(term, context.there))
  end

  test "keys that would become equal keep their map", context do
    both = %{call(:one, [1]) => :old}
    new = FunRenewal.renewed(call(:one, [1]), context.there)
    map = Map.put(both, new, :new)
    assert {:same, [:keys_become_equal]} = FunRenewal.renew(map, context.there)
  end

  test "what was made with much, or with what is no plain term, is made with the same", context do
    binary = :crypto.strong_rand_bytes(100_000)
    table = :ets.new(:t, [])
    ref = :atomics.new(1, [])
    values = {binary, table, ref, self(), make_ref(), 1 <<< 80, 1.5, <<5::3>>}
    assert {{:new, fun}, []} = renew(call(:one, [values]), context)
    assert {:v2, ^values, 0} = fun.(0)
    :atomics.put(ref, 1, 5)
    {:v2, given, 0} = fun.(0)
    assert :atomics.get(elem(given, 2), 1) == 5
  end

  test "a shared table does the same", context do
    many = Map.new(1..100, &{{:nobody, 1, &1}, {<<0::128>>, 1, 1}})
    table = %{context.there | funs: Map.merge(many, context.there.funs)}
    shared = FunRenewal.share(table)
    assert {:shared, _ets} = shared
    fun = call(:one, [1])
    assert FunRenewal.renew(fun, shared) == FunRenewal.renew(fun, table)
    assert FunRenewal.renew([1], shared) == {:same, []}
  end

  test "the dictionary is put aside, and taken or dropped", context do
    fun = call(:one, [1])
    Process.put(:held, [fun])
    Process.put(fun, :key)
    :ok = FunRenewal.put_dictionary_aside(context.there)
    assert Process.get(:held) == [fun]
    :ok = FunRenewal.drop_dictionary()
    :ok = FunRenewal.take_dictionary()
    assert Process.get(:held) == [fun]
    :ok = FunRenewal.put_dictionary_aside(context.there)
    :ok = FunRenewal.take_dictionary()
    load(@module, context.v2)
    now = call(:one, [1])
    assert Process.get(:held) == [now]
    assert Process.get(now) == :key
    assert Process.get(fun) == nil
  end
end
