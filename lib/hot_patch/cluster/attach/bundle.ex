defmodule HotPatch.Cluster.Attach.Bundle do
  @moduledoc false
  # What a node gets that is attached: HotPatch's modules, and Elixir's where it has none.
  #
  # Of Elixir it is the whole application and what Logger needs. What HotPatch's modules call,
  # and what that calls in turn, is two thirds of it, the compiler included; and protocols
  # and behaviours reach the rest by names that no table of a module shows.

  alias HotPatch.Cluster.Attach.Bootstrap

  @typedoc "As the loader wants it. An empty name says that there is no file."
  @type code :: {module(), charlist(), binary()}

  # Build steps, of no use where nothing is built.
  @build "Elixir.Mix."

  @doc "HotPatch's modules; those that run code when they are loaded apart."
  @spec own() :: {:ok, [code()], alone :: [code()]} | {:error, String.t()}
  def own do
    names =
      for module <- Application.spec(:hot_patch, :modules),
          module != Bootstrap and not String.starts_with?(Atom.to_string(module), @build),
          do: module

    with {:ok, modules} <- read(names) do
      on_load = on_load(modules)
      {alone, together} = Enum.split_with(modules, &(elem(&1, 0) in on_load))
      {:ok, together, alone}
    end
  end

  # The loader says which.
  defp on_load(modules) do
    case :code.prepare_loading(modules) do
      {:ok, _prepared} -> []
      {:error, reasons} -> for {module, :on_load_not_allowed} <- reasons, do: module
    end
  end

  @doc "The module that comes first."
  @spec foothold() :: {:ok, code()} | {:error, String.t()}
  def foothold, do: with({:ok, [code]} <- read([Bootstrap]), do: {:ok, code})

  @doc "Elixir's modules."
  @spec elixir() :: {:ok, [code()]} | {:error, String.t()}
  def elixir do
    with {:ok, elixir} <- read(Application.spec(:elixir, :modules)),
         {:ok, logger} <- logger([Logger], []),
         do: {:ok, elixir ++ logger}
  end

  defp logger([], found), do: {:ok, found}

  defp logger([module | rest], found) do
    if List.keymember?(found, module, 0) do
      logger(rest, found)
    else
      with {:ok, [code]} <- read([module]) do
        called = for {called, _, _} <- imports(code), called in logger_modules(), do: called
        logger(called ++ rest, [code | found])
      end
    end
  end

  defp logger_modules, do: Application.spec(:logger, :modules)

  @doc """
  The functions of OTP and Elixir that modules call and do not bring along: a node must have
  them. What a host may have or not, as `:telemetry`, is not asked for.
  """
  @spec needs([code()], [code()]) :: [mfa()]
  def needs(modules, carried) do
    applications = [:kernel, :stdlib, :crypto, :elixir, :logger]
    known = for app <- applications, module <- Application.spec(app, :modules), do: module
    carried = MapSet.new(carried, fn {module, _file, _bytes} -> module end)

    asked =
      known |> Enum.concat(:erlang.pre_loaded()) |> MapSet.new() |> MapSet.difference(carried)

    for(code <- modules, {module, _, _} = mfa <- imports(code), module in asked, do: mfa)
    |> Enum.uniq()
  end

  defp imports({_module, _file, bytes}) do
    {:ok, {_module, [imports: imports]}} = :beam_lib.chunks(bytes, [:imports])
    imports
  end

  # From this node's files, and only if they are what it runs: half of one version and half
  # of another would be loaded there otherwise.
  defp read(modules) do
    Enum.reduce_while(modules, {:ok, []}, fn module, {:ok, read} ->
      with {^module, bytes, _file} <- :code.get_object_code(module),
           true <- runs?(module, bytes),
           {:ok, {^module, bytes}} <- :beam_lib.strip(bytes, [~c"Attr"]) do
        {:cont, {:ok, [{module, [], bytes} | read]}}
      else
        false ->
          {:halt, {:error, "the file of #{inspect(module)} is not what this node runs"}}

        _no_file ->
          {:halt, {:error, "this node has no file of #{inspect(module)}"}}
      end
    end)
  end

  defp runs?(module, bytes) do
    not :erlang.module_loaded(module) or
      :erlang.get_module_info(module, :md5) == :code.module_md5(bytes)
  end
end
