defmodule HotPatch.Swap.Replay.Funs do
  @moduledoc false
  # The funs that come with states and messages. They are of the code that runs, of which nothing is known to stay
  # inside: so those of modules that have a shadow are made anew as the shadow's own, from which nothing
  # leads out. A shadow has the funs of its module at the same places. For the new code a fun of the patch's modules becomes
  # its counterpart there, as a change makes it (HotPatch.Swap.FunRenewal); one that has none stays as it is,
  # and is not run.

  alias HotPatch.Support.TermWalk
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Replay.Sandbox

  @typedoc """
  By modules: the digest of the code that runs, shadow and digest of that, and by the funs of the code that runs those of
  the shadow; `:same` where their places are.
  """
  @type table :: %{
          module() => %{
            md5: binary(),
            shadow: {module(), binary()},
            funs: :same | %{FunRenewal.id() => {non_neg_integer(), non_neg_integer()}}
          }
        }

  @doc "The tables of both sides; the shadows are loaded."
  @spec tables(%{Sandbox.side() => Sandbox.family()}, [Change.t()]) :: %{
          Sandbox.side() => table()
        }
  def tables(families, changes) do
    changes = Map.new(changes, &{&1.module, &1})
    Map.new(families, fn {side, family} -> {side, table(side, family, changes)} end)
  end

  defp table(side, family, changes) do
    for {module, shadow} <- family,
        :erlang.module_loaded(module) and :erlang.module_loaded(shadow),
        into: %{} do
      funs =
        if side == :new and is_map_key(changes, module), do: pairs(changes[module]), else: :same

      {module, %{md5: md5(module), shadow: {shadow, md5(shadow)}, funs: funs}}
    end
  end

  defp pairs(%Change{funs: %{funs: funs}}),
    do: Map.new(funs, fn {id, {_md5, uniq, index}} -> {id, {uniq, index}} end)

  defp pairs(%Change{funs: nil}), do: %{}

  defp md5(module), do: :erlang.get_module_info(module, :md5)

  @doc "A term as code inside is to have it: with one pid in the place of another, and with funs of shadows."
  @spec lent(term(), table(), {pid(), pid()}) :: term()
  def lent(term, table, {real, own} = pids) do
    if leads_out?(term, table),
      do: build(term, table, pids),
      else: Sandbox.swapped(term, real, own)
  end

  defp leads_out?(term, table), do: TermWalk.any?(term, &fun_leads_out?(&1, table))

  defp fun_leads_out?(fun, table) when is_function(fun) do
    case FunRenewal.local(fun) do
      nil -> false
      {module, _uniq, _index} -> is_map_key(table, module) or fun |> env() |> leads_out?(table)
    end
  end

  defp fun_leads_out?(_no_fun, _table), do: false

  defp build(term, table, pids), do: TermWalk.map(term, &build_leaf(&1, table, pids))

  defp build_leaf(fun, table, pids) when is_function(fun) do
    with {module, _uniq, _index} = id <- FunRenewal.local(fun),
         {:ok, shadow, place} <- place(table[module], id, fun),
         {:arity, arity} = :erlang.fun_info(fun, :arity),
         {:ok, lent} <-
           FunRenewal.made({shadow, arity}, place, fun |> env() |> build(table, pids)) do
      lent
    else
      _stays -> fun
    end
  end

  defp build_leaf(pid, _table, {pid, own}), do: own
  defp build_leaf(other, _table, _pids), do: other

  # Only of the very code that runs is it known what stands at a place.
  defp place(%{md5: md5, shadow: {shadow, shadow_md5}, funs: funs}, {_, uniq, index} = id, fun) do
    with {:new_uniq, ^md5} <- :erlang.fun_info(fun, :new_uniq),
         {uniq, index} <- if(funs == :same, do: {uniq, index}, else: funs[id]) do
      {:ok, shadow, {shadow_md5, uniq, index}}
    else
      _unknown -> :unknown
    end
  end

  defp place(nil, _id, _fun), do: :unknown

  defp env(fun) do
    {:env, env} = :erlang.fun_info(fun, :env)
    env
  end

  @doc """
  A term to be compared with one of the other side: in the place of a fun of a shadow stands which one it is to the
  new code, and the values that it was made with.
  """
  @spec compared(term(), Sandbox.side(), %{Sandbox.side() => table()}) :: term()
  def compared(term, side, tables) do
    names = Map.new(tables[side], fn {module, %{shadow: {shadow, _md5}}} -> {shadow, module} end)
    compare(term, {names, if(side == :old, do: tables.new, else: %{})})
  end

  defp compare(term, how), do: TermWalk.map(term, &compare_leaf(&1, how))

  defp compare_leaf(fun, {names, new} = how) when is_function(fun) do
    with {shadow, uniq, index} <- FunRenewal.local(fun),
         %{^shadow => module} <- names do
      place =
        case new do
          %{^module => %{funs: %{} = funs}} -> Map.get(funs, {module, uniq, index}, :gone)
          _same_places -> {uniq, index}
        end

      {:fun, module, place, fun |> env() |> compare(how)}
    else
      _of_none -> fun
    end
  end

  defp compare_leaf(other, _how), do: other
end
