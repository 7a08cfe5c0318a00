defmodule HotPatch.Cluster.Shadows do
  @moduledoc false
  # The shadows of a patch: copies under other names of the modules that convert state, and of all
  # that these lead to within the patch, so that states are converted wholly by the new code before
  # any of it is current.
  #
  # A module that converts state and leads to one that can have no copy has none itself: it would
  # call the version before. It converts the states by itself, after the load.

  alias HotPatch.Archive
  alias HotPatch.Composition
  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.DynamicCalls

  @supervisors ["supervisor", "Elixir.Supervisor", "Elixir.DynamicSupervisor"]

  # Protocols that are called by Enum, Inspect and the like on behalf of others.
  @called_by_others Enum.map(
                      [Collectable, Enumerable, Inspect, List.Chars, String.Chars],
                      &Atom.to_string/1
                    )

  @typedoc "Has shadows made of modules, of which each may be refused."
  @type maker :: ([binary()] -> {:ok, [{:ok, map()} | {:error, String.t()}]} | {:error, term()})

  @doc "Those of a patch. A module that can have none is left out."
  @spec of(Composition.t()) :: {:ok, [Payload.shadow()]} | {:error, HotPatch.Error.t()}
  def of(%Composition{id: id} = composition) do
    entries = for %Entry{beam: beam} = entry when beam != nil <- composition.files, do: entry
    make(entries, &Archive.copies(&1, DynamicCalls.naming(), id))
  end

  @doc "Makes them; `maker` is asked for more than once where some can have none."
  @spec make([Entry.t()], maker()) :: {:ok, [Payload.shadow()]} | {:error, term()}
  def make(entries, maker) do
    patch = Map.new(entries, &{&1.beam.module, &1.beam})

    without =
      for entry <- entries, not possible?(entry), into: MapSet.new(), do: entry.beam.module

    roots = for {name, beam} <- patch, converts?(beam), do: name
    rounds(entries, %{patch: patch, without: without, by_name: MapSet.new()}, roots, maker)
  end

  # Each round knows of more modules that have none, or that lead anywhere.
  defp rounds(entries, known, roots, maker) do
    reached = for root <- roots, into: %{}, do: {root, reach([root], known, MapSet.new())}

    chosen =
      for {_root, names} <- reached, whole?(names, known), name <- names, uniq: true, do: name

    chosen = Enum.filter(entries, &(&1.beam.module in chosen))

    with [_ | _] <- chosen, {:ok, answers} <- maker.(Enum.map(chosen, & &1.bytes)) do
      answers = Enum.zip(chosen, answers)
      more = %{known | without: failed(answers, known), by_name: by_name(answers, known)}

      if more == known,
        do: {:ok, shadows(answers, known)},
        else: rounds(entries, more, roots, maker)
    else
      [] -> {:ok, []}
      error -> error
    end
  end

  defp failed(answers, known) do
    for {entry, {:error, _why}} <- answers, into: known.without, do: entry.beam.module
  end

  defp by_name(answers, known) do
    for {entry, {:ok, %{by_name: true}}} <- answers, into: known.by_name, do: entry.beam.module
  end

  defp shadows(answers, known) do
    made = for {entry, {:ok, shadow}} <- answers, do: {entry.beam.module, shadow}
    lambdas = for {name, %{lambdas: true}} <- made, into: MapSet.new(), do: name

    for {name, shadow} <- made do
      # What it calls may give it funs.
      reached = reach([name], known, MapSet.new())

      %{
        module: name,
        name: shadow.name,
        bytes: shadow.bytes,
        lambdas?: makes_funs?(shadow) and not MapSet.disjoint?(reached, lambdas),
        effect: shadow.effect
      }
    end
  end

  # By all that its callback leads to, where that is known.
  defp makes_funs?(%{effect: nil, makes_funs: makes_funs?}), do: makes_funs?
  defp makes_funs?(_shadow), do: true

  # Code that runs when it is loaded is not loaded just to be tried.
  defp possible?(%Entry{beam: beam}), do: not beam.on_load and not beam.load_nif

  # All that a module leads to has a copy, and no protocol leads it elsewhere.
  defp whole?(names, known), do: MapSet.disjoint?(names, known.without) and not led?(names, known)

  # A protocol that is not in the patch calls the implementation that is current. An implementation is
  # named as its protocol and what it is for.
  defp led?(names, %{patch: patch}) do
    called = for name <- names, {module, _, _} <- patch[name].imports, uniq: true, do: module
    protocols = @called_by_others ++ Enum.reject(called, &is_map_key(patch, &1))

    Enum.any?(patch, fn {name, beam} ->
      {"__impl__", 1} in beam.exports and Enum.any?(protocols, &implements?(name, beam, &1))
    end)
  end

  # Its attributes, an encoded term of which no atom is made, say of which: with its length before it.
  defp implements?(name, beam, protocol) do
    String.starts_with?(name, protocol <> ".") and
      :binary.match(beam.attributes, <<byte_size(protocol), protocol::binary>>) != :nomatch
  end

  # From a callback along the calls within the patch. One that calls by names known only when it
  # runs may lead to all of it.
  defp reach([], _known, names), do: names

  defp reach([name | rest], known, names) do
    cond do
      MapSet.member?(names, name) or not is_map_key(known.patch, name) ->
        reach(rest, known, names)

      MapSet.member?(known.by_name, name) ->
        reach(Map.keys(known.patch) ++ rest, %{known | by_name: MapSet.new()}, names)

      true ->
        called = for {module, _, _} <- known.patch[name].imports, uniq: true, do: module
        reach(called ++ rest, known, MapSet.put(names, name))
    end
  end

  defp converts?(beam) do
    Change.converter?(beam.exports) or
      Enum.any?(beam.behaviours, &(&1 in @supervisors))
  end
end
