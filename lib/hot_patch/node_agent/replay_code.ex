defmodule HotPatch.NodeAgent.ReplayCode do
  @moduledoc false
  # The code with which messages are played: the patch's modules as they run and as they will be, each with the modules
  # of the system that these call, all as copies from which nothing leads out (see HotPatch.Swap.Replay.Gate).
  #
  # A module that is in neither is left to the gate, which runs what it knows. OTP, Elixir and HotPatch are.

  alias HotPatch.Bridge
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.NodeAgent.LoadedCode
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

  @doc "Makes it for an accepted patch."
  @spec make([{module(), Verdict.t()}]) :: {:ok, t()} | {:error, String.t()}
  def make(changes) do
    old = for {module, verdict} <- changes, bytes = runs(module, verdict), do: {module, bytes}

    new =
      for {module, %Verdict{change: change, alone?: false, entry: %{bytes: bytes}}} <- changes,
          change != :delete and is_binary(bytes),
          do: {module, bytes}

    others = others(old ++ new, Enum.map(changes, &elem(&1, 0)))

    with {:ok, old, refused} <- copies(old ++ others, :old),
         {:ok, new, also_refused} <- copies(new ++ others, :new) do
      named = for {module, _verdict} <- changes, do: module

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

  # Along the calls from module to module, the nearest first.
  defp others(from, without) do
    names = Enum.flat_map(from, fn {module, bytes} -> served(module) ++ called(bytes) end)
    size = from |> Enum.map(&byte_size(elem(&1, 1))) |> Enum.sum()
    {names, seen} = unseen(names, MapSet.new(without))
    reach(names, seen, [], {@most_modules, @most_bytes - size})
  end

  defp reach([], _seen, found, _left), do: found

  defp reach([name | rest], seen, found, {modules, bytes} = left) do
    with code when is_binary(code) <- code(name),
         true <- modules > 0 and bytes > byte_size(code) do
      {more, seen} = code |> called() |> unseen(seen)
      reach(rest ++ more, seen, [{name, code} | found], {modules - 1, bytes - byte_size(code)})
    else
      _not_copied -> reach(rest, seen, found, left)
    end
  end

  defp unseen(names, seen) do
    names = names |> Enum.uniq() |> Enum.reject(&MapSet.member?(seen, &1))
    {names, names |> MapSet.new() |> MapSet.union(seen)}
  end

  # What nobody has loaded yet is not called, as far as is known.
  defp code(module) do
    if :erlang.module_loaded(module) and not Table.knows?(module) and not system?(module),
      do: Swap.former_code(module)
  end

  defp system?(module) do
    case :application.get_application(module) do
      {:ok, application} -> SystemLibrary.application?(Atom.to_string(application))
      # What belongs to no application that is loaded may be OTP's all the same.
      :undefined -> :code.is_sticky(module) or preloaded?(module)
    end
  end

  defp preloaded?(module), do: :code.is_loaded(module) == {:file, :preloaded}

  # In whose loop its processes are, and what that calls by a name which only the endpoint knows.
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

  # Whatever is named may be called, by its name.
  defp called(bytes) do
    case :beam_lib.chunks(bytes, [:imports, :atoms]) do
      {:ok, {module, [imports: imports, atoms: atoms]}} ->
        imports = Enum.map(imports, &elem(&1, 0))
        atoms = Enum.map(atoms, &elem(&1, 1))

        Enum.uniq(
          imports ++ implementations(module) ++ Enum.filter(atoms, &:erlang.module_loaded/1)
        )

      _unreadable ->
        []
    end
  end

  # A protocol makes their names.
  defp implementations(module) do
    with true <- function_exported?(module, :__protocol__, 1),
         {:consolidated, types} <- module.__protocol__(:impls) do
      for type <- types, name <- [Module.concat(module, type)], do: name
    else
      _no_protocol -> []
    end
  end

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
