defmodule HotPatch.Cluster.Attach.RemoteCall do
  @moduledoc false
  # Questions to a node that may have neither HotPatch nor Elixir: only OTP is called there.

  alias HotPatch.Error
  alias HotPatch.NodeAgent

  @within 15_000

  @doc "Asks, and makes an error of a node that does not answer."
  @spec answer(node(), atom(), (() -> result)) :: result | {:error, Error.t()} when result: term()
  def answer(node, what, fun) do
    fun.()
  catch
    :throw, {:gone, ^node, text} ->
      {:error, Error.new(:unreachable, "#{what} #{node}: #{text}", %{nodes: [node]})}
  end

  @doc "Calls a function there."
  @spec call(node(), module(), atom(), [term()]) :: term()
  def call(node, module, function, args),
    do: call_within(node, {module, function, args}, @within)

  @doc "The same for what may take longer, or has to be there sooner."
  @spec call_within(node(), {module(), atom(), [term()]}, timeout()) :: term()
  def call_within(node, {module, function, args}, timeout) do
    :erpc.call(node, module, function, args, timeout)
  rescue
    error in ErlangError ->
      case error.original do
        {:erpc, :timeout} ->
          throw({:gone, node, "it did not answer in time and may still be at it; look again"})

        {:erpc, :noconnection} ->
          throw({:gone, node, "it is not reachable"})

        {:erpc, reason} ->
          throw({:gone, node, "it cannot be asked (#{inspect(reason)})"})

        reason ->
          throw({:gone, node, "failed: #{inspect(reason, limit: 20)}"})
      end
  catch
    :exit, reason -> throw({:gone, node, "failed: #{inspect(reason, limit: 20)}"})
  end

  @doc """
  What the node has of HotPatch: a running one, one of its own that is not started, one that
  was attached and has died, or nothing.
  """
  @spec has(node()) ::
          {:running, {String.t(), pos_integer() | nil}} | {:own, String.t()} | :died | :nothing
  def has(node) do
    running =
      for {app, _, vsn} <- call(node, :application, :which_applications, []), do: {app, vsn}

    case {running[:hot_patch], call(node, :application, :get_key, [:hot_patch, :vsn])} do
      {vsn, _} when vsn != nil -> {:running, {to_string(vsn), protocol(node)}}
      {nil, {:ok, vsn}} -> if attached(node), do: :died, else: {:own, to_string(vsn)}
      {nil, :undefined} -> on_disk(node)
    end
  end

  defp protocol(node), do: call(node, NodeAgent, :protocol, [])

  defp on_disk(node) do
    case call(node, :code, :where_is_file, [~c"hot_patch.app"]) do
      :non_existing -> :nothing
      _file -> {:own, "(on its disk)"}
    end
  end

  @doc "How a node was attached, if it was."
  @spec attached(node()) :: HotPatch.Host.Attachment.t() | nil
  def attached(node) do
    case call(node, :application, :get_env, [:hot_patch, :attached]) do
      {:ok, attached} -> attached
      :undefined -> nil
    end
  end

  @doc "The version of Elixir there, if it has one."
  @spec elixir(node()) :: String.t() | nil
  def elixir(node) do
    case call(node, :code, :ensure_loaded, [System]) do
      {:module, System} -> call(node, System, :version, [])
      {:error, _nowhere} -> nil
    end
  end

  @doc "What runs there, in words."
  @spec versions(node()) :: String.t()
  def versions(node) do
    "Erlang/OTP #{otp(node)} and " <>
      case elixir(node) do
        nil -> "no Elixir"
        version -> "Elixir #{version}"
      end
  end

  @doc "The version of its OTP."
  @spec otp(node()) :: pos_integer()
  def otp(node), do: List.to_integer(call(node, :erlang, :system_info, [:otp_release]))

  @doc "Whether somebody attaches or detaches it just now."
  @spec busy?(node()) :: boolean()
  def busy?(node), do: call(node, :erlang, :whereis, [:hot_patch_attach]) != :undefined

  @doc "Those functions that the node does not have."
  @spec missing(node(), [mfa()]) :: [mfa()]
  def missing(node, functions) do
    {modules, names, arities} = unzip(functions)
    # Where all is loaded at the start this loads nothing.
    _ = call(node, :lists, :map, [&:code.ensure_loaded/1, Enum.uniq(modules)])

    exported =
      call(node, :lists, :zipwith3, [&:erlang.function_exported/3, modules, names, arities])

    for {mfa, false} <- Enum.zip(functions, exported), do: mfa
  end

  defp unzip(functions) do
    {for({m, _, _} <- functions, do: m), for({_, f, _} <- functions, do: f),
     for({_, _, a} <- functions, do: a)}
  end

  @doc "The digest of the code of a module there; nil if it is not loaded."
  @spec md5(node(), module()) :: binary() | nil
  def md5(node, module) do
    if call(node, :erlang, :module_loaded, [module]),
      do: call(node, :erlang, :get_module_info, [module, :md5])
  end

  @doc "Loads one module there."
  @spec load(node(), module(), charlist(), binary()) :: {:module, module()} | {:error, term()}
  def load(node, module, file, bytes), do: call(node, :code, :load_binary, [module, file, bytes])
end
