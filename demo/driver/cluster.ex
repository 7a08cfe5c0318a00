defmodule Demo.Cluster do
  @moduledoc false
  # The nodes of the exchange, seen from the driver, a hidden node beside them.

  @nodes [:"exchange1@127.0.0.1", :"exchange2@127.0.0.1", :"exchange3@127.0.0.1"]

  @spec nodes() :: [node()]
  def nodes, do: @nodes

  @doc "Waits until every node carries calls and sees the others."
  @spec await() :: :ok
  def await do
    for node <- @nodes do
      wait_until("#{node} runs the exchange", fn -> Node.connect(node) and exchange?(node) end)
    end

    [first | others] = @nodes
    for other <- others, do: true = call(first, Node, :connect, [other])

    for node <- @nodes do
      others = @nodes -- [node]
      wait_until("#{node} sees the others", fn -> others -- call(node, Node, :list, []) == [] end)
    end

    :ok
  end

  @doc "Calls a function on a node as its operator would."
  @spec call(node(), module(), atom(), [term()]) :: term()
  def call(node, module, function, arguments) do
    :erpc.call(node, module, function, arguments, 90_000)
  end

  @doc "Calls a function on all nodes."
  @spec multicall(module(), atom(), [term()]) :: [{node(), term()}]
  def multicall(module, function, arguments) do
    for node <- @nodes, do: {node, call(node, module, function, arguments)}
  end

  @doc "Restarts a node as `bin/exchange restart` does, and waits until it is there again."
  @spec restart(node()) :: :ok
  def restart(node) do
    true = Node.monitor(node, true)
    :ok = call(node, System, :restart, [])

    receive do
      {:nodedown, ^node} -> await()
    end
  end

  @doc "The MD5 of a module as a node runs it, `nil` if it is not loaded there."
  @spec loaded_md5(node(), module()) :: binary() | nil
  def loaded_md5(node, module) do
    if call(node, :erlang, :module_loaded, [module]), do: call(node, module, :module_info, [:md5])
  end

  @doc "Polls a condition; raises if it does not come true in half a minute."
  @spec wait_until(String.t(), (() -> boolean())) :: :ok
  def wait_until(what, condition, left \\ 600)
  def wait_until(what, _condition, 0), do: raise("waited in vain until #{what}")

  def wait_until(what, condition, left) do
    if condition.() do
      :ok
    else
      receive after: (50 -> :ok)
      wait_until(what, condition, left - 1)
    end
  end

  defp exchange?(node) do
    started = call(node, Application, :started_applications, [])
    List.keymember?(started, :exchange, 0) and List.keymember?(started, :hot_patch, 0)
  end
end
