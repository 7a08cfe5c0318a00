defmodule HotPatch.NodeAgent.FunMaps do
  @moduledoc false
  # Which fun of the code that runs is which of the code that comes, for the modules that a change
  # replaces: the native core compares both files. Where that cannot be done nothing is known, and
  # said: then their funs stay those of the former code.

  alias HotPatch.Bridge
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Swap
  alias HotPatch.Swap.FunRenewal

  @at_once 100

  @doc "The changes with what is known of their funs, and what is not known, in words."
  @spec attach([Swap.Change.t()], [{module(), Verdict.t()}]) ::
          {[Swap.Change.t()], [String.t()]}
  def attach(changes, verdicts) do
    verdicts = Map.new(verdicts)
    pairs = for change <- changes, pair = pair(change, verdicts[change.module]), do: pair
    {known, unknown} = of(pairs)
    {Enum.map(changes, &put(&1, known)), unknown}
  end

  @doc "The same of modules with their files as they are and as they will be."
  @spec of([{module(), binary(), binary()}]) ::
          {%{module() => FunRenewal.of_module() | nil | {:unknown, String.t()}}, [String.t()]}
  def of(pairs) do
    # Of code that makes no funs nobody holds any.
    pairs = Enum.filter(pairs, fn {_module, old, _new} -> makes_funs?(old) end)

    case compare(pairs) do
      {:ok, answers} ->
        known = pairs |> Enum.zip(answers) |> Map.new(&known/1)
        {known, unknown(known)}

      {:error, why} ->
        {%{},
         [
           "funs that the modules have made and that processes hold stay those of the former code, because " <>
             "they could not be compared: #{why}"
         ]}
    end
  end

  # The code that runs is in its file, or was found elsewhere.
  defp pair(%{kind: :replace, module: module}, %Verdict{entry: %{bytes: new}} = verdict)
       when is_binary(new) do
    with <<_::binary>> = old <- running(module, verdict.ran), do: {module, old, new}
  end

  defp pair(_change, _verdict), do: nil

  defp running(_module, {:other, bytes}), do: bytes
  defp running(module, _ran), do: Swap.former_code(module)

  # By the file's table of funs; one that is compressed may have one.
  defp makes_funs?(<<"FOR1", _size::32, "BEAM", chunks::binary>>), do: in_chunks?(chunks)
  defp makes_funs?(_compressed), do: true

  defp in_chunks?(<<"FunT", _size::32, count::32, _rest::binary>>), do: count > 0

  defp in_chunks?(<<_id::32, size::32, _chunk::binary-size(size), rest::binary>>) do
    padding = min(rem(4 - rem(size, 4), 4), byte_size(rest))
    in_chunks?(binary_part(rest, padding, byte_size(rest) - padding))
  end

  defp in_chunks?(_end), do: false

  # The program that compares has as much memory as an archive needs.
  defp compare(pairs) do
    pairs
    |> Enum.chunk_every(@at_once)
    |> Enum.reduce_while({:ok, []}, fn some, {:ok, done} ->
      case compare_some(some) do
        {:ok, answers} -> {:cont, {:ok, done ++ answers}}
        error -> {:halt, error}
      end
    end)
  end

  defp compare_some(pairs) do
    blobs = Enum.flat_map(pairs, fn {_module, old, new} -> [old, new] end)

    case Bridge.request("funs", blobs, [], "the funs of #{length(pairs)} modules") do
      {:ok, answers} when is_list(answers) -> {:ok, answers}
      {:error, error} -> {:error, Exception.message(error)}
    end
  end

  defp known({{module, _old, _new}, {:error, why}}), do: {module, {:unknown, why}}
  defp known({{module, _old, _new}, {:ok, [], _new_funs, _pairs}}), do: {module, nil}

  defp known({{module, _old, new}, {:ok, old_funs, new_funs, pairs}}) do
    md5 = :code.module_md5(new)
    of_old = Map.new(old_funs, fn {index, uniq, _arity, _free} -> {index, uniq} end)
    of_new = Map.new(new_funs, fn {index, uniq, _arity, _free} -> {index, uniq} end)

    funs =
      for {old, new} <- pairs,
          into: %{},
          do: {{module, of_old[old], old}, {md5, of_new[new], new}}

    # Those of a version without any have the uniq of its digest.
    uniqs = Enum.uniq([FunRenewal.uniq(md5) | Map.values(of_new)])
    {module, %{new: uniqs, funs: funs}}
  end

  defp put(change, known) do
    case known[change.module] do
      %{} = funs -> %{change | funs: funs}
      _ -> change
    end
  end

  defp unknown(known) do
    for {module, {:unknown, why}} <- known,
        do: "#{inspect(module)}: which of its funs is which is not known: it #{why}"
  end
end
