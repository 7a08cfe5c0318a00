defmodule HotPatch.NodeAgent.ReplayCode do
  @moduledoc false
  # The code with which messages are played: the patch's modules as they run and as they will be, each with the modules
  # of the system that these call, all as copies from which nothing leads out (see HotPatch.Swap.Replay.Gate).
  #
  # A module that is in neither is left to the gate, which runs what it knows. OTP, Elixir and HotPatch are.

  alias HotPatch.Bridge
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Mentions
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Swap
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.Replay.Table

  # So many modules besides the patch's, and so many bytes of both together.
  @most_modules 300
  @most_bytes 30_000_000

  # What encodes messages to browsers.
  @by_configuration [Phoenix.Socket.V2.JSONSerializer, Phoenix.Socket.V1.JSONSerializer]

  @typedoc "The copies of both sides, and what is to be known of those that could not be made."
  @type t :: %{old: [Swap.Shadow.t()], new: [Swap.Shadow.t()], warnings: [String.t()]}

  @doc "Makes it for an accepted patch, and for LiveViews that it does not change, but which show what it does."
  @spec make([{module(), Verdict.t()}], [module()]) :: {:ok, t()} | {:error, String.t()}
  def make(changes, views) do
    old = for {module, verdict} <- changes, bytes = runs(module, verdict), do: {module, bytes}

    new =
      for {module, %Verdict{change: change, alone?: false, entry: %{bytes: bytes}}} <- changes,
          change != :delete and is_binary(bytes),
          do: {module, bytes}

    others = others(old ++ new, Enum.map(changes, &elem(&1, 0)), views)

    with {:ok, old, refused} <- copies(old ++ others, :old),
         {:ok, new, also_refused} <- copies(new ++ others, :new) do
      named = views ++ for {module, _verdict} <- changes, do: module

      warnings =
        for {module, why} <- Enum.uniq(refused ++ also_refused),
            module in named,
            do: "#{inspect(module)} is not played, because no copy can be made of it: #{why}"

      {:ok, %{old: old, new: new, warnings: Enum.uniq(warnings)}}
    end
  end

  defp runs(_module, %Verdict{change: :add}), do: nil
  defp runs(_module, %Verdict{ran: {:other, bytes}}), do: bytes
  defp runs(module, _verdict), do: Swap.former_code(module)

  # Along what they name, the nearest first. Whatever a module names it may call, by that name: components are named in
  # templates, and implementations in their protocol.
  defp others(from, without, views) do
    patterns = possible() |> Enum.map(&Atom.to_string/1) |> Mentions.patterns()

    names =
      Enum.flat_map(from, fn {module, bytes} -> served(module) ++ named(bytes, patterns) end)

    size = from |> Enum.map(&byte_size(elem(&1, 1))) |> Enum.sum()
    {names, seen} = unseen(views ++ Enum.flat_map(views, &served/1) ++ names, MapSet.new(without))
    reach(names, {seen, patterns}, [], {@most_modules, @most_bytes - size})
  end

  defp reach([], _seen, found, _left), do: found

  defp reach([name | rest], {seen, patterns}, found, {modules, bytes} = left) do
    with code when is_binary(code) <- Swap.former_code(name),
         true <- modules > 0 and bytes > byte_size(code) do
      {more, seen} = unseen(named(code, patterns) ++ implementations(name), seen)
      left = {modules - 1, bytes - byte_size(code)}
      reach(rest ++ more, {seen, patterns}, [{name, code} | found], left)
    else
      _not_copied -> reach(rest, {seen, patterns}, found, left)
    end
  end

  defp unseen(names, seen) do
    names = names |> Enum.uniq() |> Enum.reject(&MapSet.member?(seen, &1))
    {names, names |> MapSet.new() |> MapSet.union(seen)}
  end

  # What nobody has loaded yet is not called, as far as is known.
  defp possible do
    owned = owned()

    for {module, _file} <- :code.all_loaded(),
        not Table.knows?(module) and not system?(module, owned),
        do: module
  end

  # Whether they are the system's. Asked for one module, the VM looks through all applications.
  defp owned do
    for {application, _text, _vsn} <- :application.loaded_applications(),
        {:ok, modules} <- [:application.get_key(application, :modules)],
        system? <- [SystemLibrary.application?(Atom.to_string(application))],
        module <- modules,
        into: %{},
        do: {module, system?}
  end

  # What belongs to no application that is loaded may be OTP's all the same.
  defp system?(module, owned),
    do: Map.get_lazy(owned, module, fn -> :code.is_sticky(module) or preloaded?(module) end)

  defp preloaded?(module), do: :code.is_loaded(module) == {:file, :preloaded}

  # In whose loop its processes are, and what that calls by a name which only the configuration knows.
  defp served(module) do
    case Hosted.server(module) do
      nil -> []
      server -> [server | @by_configuration] ++ json_library()
    end
  end

  defp json_library do
    case Application.get_env(:phoenix, :json_library, Jason) do
      library when is_atom(library) -> [library]
      _unknown -> []
    end
  end

  # What Elixir's protocols call of a struct, which nobody names.
  defp implementations(module) do
    for protocol <- [Enumerable, String.Chars],
        {:ok, name} <- [LoadedCode.module("#{protocol}.#{inspect(module)}")],
        do: name
  end

  # Of those that are loaded.
  defp named(bytes, patterns),
    do: for(name <- Mentions.which(bytes, patterns), do: String.to_existing_atom(name))

  # A copy that cannot be made must not be called by the others either: they are made anew without it.
  defp copies(modules, side, refused \\ []) do
    {possible, others} =
      Enum.split_with(modules, fn {_module, bytes} -> not by_itself?(bytes) end)

    refused =
      for({module, _bytes} <- others, do: {module, "it runs code when it is loaded"}) ++ refused

    case Bridge.request(
           "closed_shadow",
           Enum.map(possible, &elem(&1, 1)),
           Swap.Replay.naming(side),
           "the code to be played"
         ) do
      {:ok, answers} -> made(Enum.zip(possible, answers), side, refused)
      {:error, error} -> {:error, Exception.message(error)}
    end
  end

  defp made(answers, side, refused) do
    case for {{module, _bytes}, {:error, why}} <- answers, do: {module, why} do
      [] ->
        {:ok, for({{module, _bytes}, {:ok, copy}} <- answers, do: shadow(module, copy)), refused}

      more ->
        left = for {one, {:ok, _copy}} <- answers, do: one
        copies(left, side, more ++ refused)
    end
  end

  defp shadow(module, %{name: name, bytes: bytes}),
    do: %{module: module, name: LoadedCode.accepted_module(name), bytes: bytes, lambdas?: false}

  defp by_itself?(bytes) do
    case :beam_lib.chunks(bytes, [:attributes, :imports]) do
      {:ok, {_module, [attributes: attributes, imports: imports]}} ->
        Keyword.has_key?(attributes, :on_load) or {:erlang, :load_nif, 2} in imports

      _unreadable ->
        true
    end
  end
end
