defmodule HotPatch.Swap.FunRenewal do
  @moduledoc false
  # Makes the funs in a term anew as those of another version of their modules.
  #
  # A fun that `fn` or a capture has made belongs to the version of the module that made it, and is
  # dead when that is purged. Its external format (NEW_FUN_EXT) says which it is: the module, its
  # digest, an index, and the values that it was made with. Written with the digest and the index
  # of the counterpart in another version it reads back as a fun of that version, equal to one
  # that it would make itself. That may be done before the version is current: such a fun comes to
  # life with the load. External funs (`&Mod.fun/1`) belong to no version.
  #
  # Which fun is which the native core says (native/beam, functions/funs.rs), and only where
  # that is sure. What has no counterpart stays as it is, and is told.
  #
  # This runs inside of processes that stand still. A term without such funs, which is nearly
  # every term, is only walked along; nothing of it is built anew. Parts that a term has more
  # than once are walked as often, so there is a limit.

  @typedoc "A fun: its module, and what tells it from others of that and of other versions."
  @type id :: {module(), uniq :: non_neg_integer(), index :: non_neg_integer()}

  @typedoc """
  Of a module that changes the uniqs of the version that comes, and by the fun of the version that
  goes its counterpart: the digest of the new code, uniq and index. `{:shared, _}` is the same
  for many processes at once.
  """
  @type table :: %{
          modules: %{module() => [non_neg_integer()]},
          funs: %{
            id() => {md5 :: binary(), uniq :: non_neg_integer(), index :: non_neg_integer()}
          }
        }
  @type shared :: table() | {:shared, :ets.tid()}

  @typedoc "What stays as it is: a fun without counterpart, or a term that is too large to be walked."
  @type left :: id() | :too_large | :keys_become_equal

  # Steps, of which a million takes some 20 ms.
  @most_steps 10_000_000
  # Bytes of what one fun was made with.
  @most_bytes 64_000_000
  # What is told of what stays.
  @most_left 10
  # Funs up to which a table is sent along with what is to be done.
  @small 32

  @aside :"$hot_patch_new_dictionary"

  @typedoc "The funs of a module that changes, as `table/1` takes them; nil where it has none."
  @type of_module :: %{
          new: [non_neg_integer()],
          funs: %{
            id() => {md5 :: binary(), uniq :: non_neg_integer(), index :: non_neg_integer()}
          }
        }

  @doc "The table of changes; nil if none of the modules that are replaced has funs."
  @spec table([HotPatch.Swap.Change.t()]) :: table() | nil
  def table(changes) do
    known = for %{kind: :replace, funs: %{}} = change <- changes, do: change

    if known != [] do
      %{
        modules: Map.new(known, &{&1.module, &1.funs.new}),
        funs: known |> Enum.map(& &1.funs.funs) |> Enum.reduce(%{}, &Map.merge/2)
      }
    end
  end

  @doc "The uniq of all funs of a version of a module, by the module's digest."
  @spec uniq(md5 :: binary()) :: non_neg_integer()
  def uniq(<<uniq::27, _rest::101>>), do: uniq

  @doc "A table that many processes can use; it lives as long as the process that calls this."
  @spec share(table() | nil) :: shared() | nil
  def share(nil), do: nil
  def share(%{funs: funs} = table) when map_size(funs) <= @small, do: table

  def share(%{modules: modules, funs: funs}) do
    shared = :ets.new(__MODULE__, [:set, :protected, read_concurrency: true])
    :ets.insert(shared, Map.to_list(modules))
    :ets.insert(shared, Map.to_list(funs))
    {:shared, shared}
  end

  @doc "Whether a term has a fun of the modules of a table that is not of the version that comes."
  @spec holds?(term(), shared()) :: boolean() | :too_large
  def holds?(term, table) do
    _left = find(term, table, @most_steps)
    false
  catch
    :found -> true
    :too_large -> :too_large
  end

  @doc "Which of modules have made funs in a term, but for those of versions with these uniqs."
  @spec makers(term(), %{module() => [non_neg_integer()]}) :: [module()]
  def makers(term, wanted) do
    # One after the other only where there is any.
    if holds?(term, %{modules: wanted, funs: %{}}) == true do
      for {module, uniqs} <- wanted,
          holds?(term, %{modules: %{module => uniqs}, funs: %{}}) == true,
          do: module
    else
      []
    end
  end

  @doc "The term with its funs made anew, or `:same`; and what stays as it is."
  @spec renew(term(), shared()) :: {:same | {:new, term()}, [left()]}
  def renew(term, table) do
    case holds?(term, table) do
      false ->
        {:same, []}

      :too_large ->
        {:same, [:too_large]}

      true ->
        {new, {left, _steps}} = build(term, table, {[], @most_steps})
        {if(same?(new, term), do: :same, else: {:new, new}), left}
    end
  catch
    :too_large -> {:same, [:too_large]}
  end

  @doc "The same, where only the term is wanted."
  @spec renewed(term, shared() | nil) :: term when term: term()
  def renewed(term, nil), do: term

  def renewed(term, table) do
    case renew(term, table) do
      {{:new, new}, _left} -> new
      {:same, _left} -> term
    end
  catch
    # The table is gone with its owner, or there is no memory: the process is not to die of that.
    _kind, _reason -> term
  end

  @typedoc "An entry of a dictionary that was written, or that is gone."
  @type written :: {:put, key :: term(), value :: term()} | {:delete, key :: term()}

  @doc """
  Does something, with the dictionary of the calling process as it was afterwards; gives the result, and what was
  written.
  """
  @spec apart((() -> result)) :: {result, [written()]} when result: term()
  def apart(fun) do
    before = Process.get()
    result = fun.()
    now = Process.get()
    {result, if(now === before, do: [], else: written(Map.new(before), Map.new(now)))}
  end

  defp written(before, now) do
    put =
      for {key, value} <- now,
          not ours?(key),
          not (is_map_key(before, key) and before[key] === value),
          do: {:put, key, value}

    deleted = for {key, _} <- before, not ours?(key), not is_map_key(now, key), do: {:delete, key}

    written = put ++ deleted
    Enum.each(written, &restore(elem(&1, 1), before))
    written
  end

  defp restore(key, before) do
    case before do
      %{^key => value} -> Process.put(key, value)
      _new -> Process.delete(key)
    end
  end

  @doc """
  Makes the funs in the calling process's dictionary anew, and puts them aside, with what is to be written
  besides: the dictionary itself stays.
  """
  @spec put_dictionary_aside(shared() | nil, [written()]) :: :ok
  def put_dictionary_aside(table, written \\ [])
  def put_dictionary_aside(nil, []), do: :ok

  def put_dictionary_aside(table, written) do
    entries =
      for {key, value} <- if(table, do: Process.get(), else: []),
          not ours?(key),
          not List.keymember?(written, key, 1),
          {new_key, new_value} = {renewed(key, table), renewed(value, table)},
          not (same?(key, new_key) and same?(value, new_value)),
          do: {key, new_key, new_value}

    entries = entries ++ Enum.map(written, &renewed_entry(&1, table))
    if entries != [], do: Process.put(@aside, entries)
    :ok
  end

  defp renewed_entry({:put, key, value}, table),
    do: {key, renewed(key, table), renewed(value, table)}

  defp renewed_entry({:delete, _key} = deleted, _table), do: deleted

  @doc "What was put aside becomes the dictionary."
  @spec take_dictionary() :: :ok
  def take_dictionary do
    for entry <- List.wrap(Process.delete(@aside)) do
      case entry do
        {:delete, key} ->
          Process.delete(key)

        {key, new_key, value} ->
          if key !== new_key, do: Process.delete(key)
          Process.put(new_key, value)
      end
    end

    :ok
  end

  @doc "What was put aside is forgotten."
  @spec drop_dictionary() :: :ok
  def drop_dictionary do
    _ = Process.delete(@aside)
    :ok
  end

  @doc "State and dictionary at once, after the load."
  @spec now(state, shared()) :: state when state: term()
  def now(state, table) do
    :ok = put_dictionary_aside(table)
    :ok = take_dictionary()
    renewed(state, table)
  end

  defp ours?(key), do: is_atom(key) and String.starts_with?(Atom.to_string(key), "$hot_patch")

  # Gives the steps that are left.
  defp find(_term, _table, left) when left <= 0, do: throw(:too_large)

  defp find([head | tail], table, left), do: find(tail, table, find(head, table, left - 1))

  defp find(tuple, table, left) when is_tuple(tuple),
    do: find_in(tuple, tuple_size(tuple), table, left - 1)

  defp find(map, table, left) when is_map(map),
    do: map |> :maps.iterator() |> :maps.next() |> find_next(table, left - 1)

  defp find(fun, table, left) when is_function(fun) do
    case local(fun) do
      nil ->
        left - 1

      id ->
        if outdated?(id, table), do: throw(:found)
        {:env, env} = :erlang.fun_info(fun, :env)
        find(env, table, left - 1)
    end
  end

  defp find(_other, _table, left), do: left - 1

  defp find_in(_tuple, 0, _table, left), do: left

  defp find_in(tuple, place, table, left),
    do: find_in(tuple, place - 1, table, find(:erlang.element(place, tuple), table, left))

  defp find_next(:none, _table, left), do: left

  defp find_next({key, value, next}, table, left) do
    left = find(value, table, find(key, table, left))
    next |> :maps.next() |> find_next(table, left)
  end

  # What has no such fun in it is given back itself, not a copy.
  defp build(_term, _table, {_left, steps}) when steps <= 0, do: throw(:too_large)

  defp build(term, table, {left, steps}), do: build_one(term, table, {left, steps - 1})

  defp build_one([head | tail] = list, table, left) do
    {new_head, left} = build(head, table, left)
    {new_tail, left} = build(tail, table, left)

    if same?(head, new_head) and same?(tail, new_tail),
      do: {list, left},
      else: {[new_head | new_tail], left}
  end

  defp build_one(tuple, table, left) when is_tuple(tuple) do
    elements = Tuple.to_list(tuple)
    {new, left} = build(elements, table, left)
    {if(same?(new, elements), do: tuple, else: List.to_tuple(new)), left}
  end

  defp build_one(map, table, left) when is_map(map) do
    {new, left} =
      Enum.reduce(:maps.to_list(map), {map, left}, fn {key, value}, {new, left} ->
        {new_key, left} = build(key, table, left)
        {new_value, left} = build(value, table, left)

        cond do
          not same?(key, new_key) -> {replace(new, key, new_key, new_value), left}
          not same?(value, new_value) -> {:maps.put(key, new_value, new), left}
          true -> {new, left}
        end
      end)

    if map_size(new) == map_size(map),
      do: {new, left},
      else: {map, note(left, :keys_become_equal)}
  end

  defp build_one(fun, table, left) when is_function(fun) do
    case local(fun) do
      nil -> {fun, left}
      id -> build_fun(fun, id, table, left)
    end
  end

  defp build_one(other, _table, left), do: {other, left}

  defp replace(map, key, new_key, value),
    do: :maps.put(new_key, value, :maps.remove(key, map))

  defp build_fun(fun, id, table, left) do
    {:env, env} = :erlang.fun_info(fun, :env)
    {new_env, left} = build(env, table, left)
    outdated? = outdated?(id, table)
    counterpart = if outdated?, do: counterpart(id, table)

    cond do
      counterpart != nil -> write(fun, counterpart, new_env, left)
      outdated? and same?(env, new_env) -> {fun, note(left, id)}
      outdated? -> write(fun, itself(fun, id), new_env, note(left, id))
      same?(env, new_env) -> {fun, left}
      true -> write(fun, itself(fun, id), new_env, left)
    end
  end

  defp itself(fun, {_module, uniq, _index}) do
    {:new_uniq, md5} = :erlang.fun_info(fun, :new_uniq)
    {:new_index, index} = :erlang.fun_info(fun, :new_index)
    {md5, uniq, index}
  end

  defp write(fun, {md5, uniq, index}, env, left) do
    {:module, module} = :erlang.fun_info(fun, :module)
    {:arity, arity} = :erlang.fun_info(fun, :arity)

    case made({module, arity}, {md5, uniq, index}, env) do
      {:ok, new} -> {new, left}
      :too_large -> {fun, note(left, :too_large)}
    end
  end

  @doc "A fun of a module that is loaded with this digest, by its place there, with the values that it is made with."
  @spec made({module(), arity()}, {binary(), non_neg_integer(), non_neg_integer()}, [term()]) ::
          {:ok, fun()} | :too_large
  def made({module, arity}, {md5, uniq, index}, env) do
    if :erlang.external_size(env) > @most_bytes do
      :too_large
    else
      parts = Enum.map([module, index, uniq, self() | env], &external/1)
      body = [arity, md5, <<index::32, length(env)::32>> | parts]
      size = IO.iodata_length(body) + 4
      {:ok, :erlang.binary_to_term(IO.iodata_to_binary([<<131, 112, size::32>> | body]))}
    end
  end

  defp external(term) do
    <<131, bytes::binary>> = :erlang.term_to_binary(term)
    bytes
  end

  defp note({left, steps}, what) do
    more = if length(left) < @most_left and what not in left, do: [what | left], else: left
    {more, steps}
  end

  @doc "Which fun it is; nil of an external one."
  @spec local(function()) :: id() | nil
  def local(fun) do
    with {:type, :local} <- :erlang.fun_info(fun, :type) do
      {:module, module} = :erlang.fun_info(fun, :module)
      {:uniq, uniq} = :erlang.fun_info(fun, :uniq)
      {:index, index} = :erlang.fun_info(fun, :index)
      {module, uniq, index}
    else
      {:type, :external} -> nil
    end
  end

  defp outdated?({module, uniq, _index}, %{modules: modules}) do
    case modules do
      %{^module => uniqs} -> uniq not in uniqs
      _ -> false
    end
  end

  defp outdated?({module, uniq, _index}, {:shared, shared}) do
    case :ets.lookup(shared, module) do
      [{_module, uniqs}] -> uniq not in uniqs
      [] -> false
    end
  end

  defp counterpart(id, %{funs: funs}), do: funs[id]

  defp counterpart(id, {:shared, shared}) do
    case :ets.lookup(shared, id) do
      [{_id, counterpart}] -> counterpart
      [] -> nil
    end
  end

  defp same?(one, other), do: :erts_debug.same(one, other)
end
