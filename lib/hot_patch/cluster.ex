defmodule HotPatch.Cluster do
  @moduledoc false
  # The only place that knows other nodes: who there is, and asking agents in parallel.

  alias HotPatch.Agent
  alias HotPatch.Error
  alias HotPatch.NodeInfo

  @type answer :: {:ok, term()} | {:error, String.t()}

  # How long a node may take to say who it is.
  @hello_within 5_000

  @doc """
  The nodes an operation works on. Nodes that were named must answer and run HotPatch;
  without names it is this node and all visible ones, and those without HotPatch are told
  apart.
  """
  @spec members([node()] | nil) ::
          {:ok, [NodeInfo.t()], unmanaged :: [node()]} | {:error, Error.t()}
  def members(named) do
    infos = infos(named || everyone())
    {managed, others} = Enum.split_with(infos, & &1.managed?)
    {silent, without} = Enum.split_with(others, &(&1.problem_kind == :unreachable))

    cond do
      silent != [] -> {:error, not_ready(:unreachable, silent)}
      named != nil and without != [] -> {:error, not_ready(:unmanaged, without)}
      managed == [] -> {:error, not_ready(:unmanaged, without)}
      true -> {:ok, managed, Enum.map(without, & &1.node)}
    end
  end

  @doc """
  Nodes that an operation works on where none are named: this one, all visible ones, and the
  hidden ones that were attached from here.
  """
  @spec everyone() :: [node()]
  def everyone do
    attached = Application.get_env(:hot_patch, :attached_nodes, [])
    hidden = Enum.filter(Node.list(:hidden), &(&1 in attached))
    [node() | Node.list()] ++ hidden
  end

  @doc "A node was attached from here."
  @spec remember(node()) :: :ok
  def remember(node), do: attached(&Enum.uniq([node | &1]))

  @doc "A node is attached no longer."
  @spec forget(node()) :: :ok
  def forget(node), do: attached(&List.delete(&1, node))

  defp attached(change) do
    nodes = change.(Application.get_env(:hot_patch, :attached_nodes, []))
    Application.put_env(:hot_patch, :attached_nodes, nodes)
  end

  @doc "All other visible nodes."
  @spec peers() :: [node()]
  def peers, do: Node.list()

  @doc "What is to be known about nodes; those that do not answer are listed with the problem."
  @spec infos([node()]) :: [NodeInfo.t()]
  def infos(nodes) do
    nodes = nodes |> Enum.uniq() |> Enum.sort()
    protocol = Agent.protocol()

    for {node, answer} <- raw_call(nodes, :info, [], @hello_within) do
      case answer do
        {:ok, %NodeInfo{protocol: ^protocol} = info} -> info
        {:ok, _other} -> unmanaged(node, :unmanaged, "runs another version of HotPatch")
        {:error, {kind, text}} -> unmanaged(node, kind, text)
      end
    end
  end

  @doc "Asks the agents of several nodes the same, in parallel."
  @spec call([node()], atom(), [term()], timeout()) :: [{node(), answer()}]
  def call(nodes, function, args, timeout) do
    for {node, answer} <- raw_call(nodes, function, args, timeout) do
      case answer do
        {:ok, value} -> {node, {:ok, value}}
        {:error, {_kind, text}} -> {node, {:error, text}}
      end
    end
  end

  defp raw_call(nodes, function, args, timeout) do
    answers = :erpc.multicall(nodes, Agent, function, args, timeout)
    for {node, answer} <- Enum.zip(nodes, answers), do: {node, plain(answer)}
  end

  defp plain({:ok, value}), do: {:ok, value}
  defp plain({:error, {:erpc, :noconnection}}), do: unreachable("is not reachable")
  defp plain({:error, {:erpc, :timeout}}), do: unreachable("did not answer in time")
  defp plain({:error, {:erpc, reason}}), do: unreachable("cannot be asked (#{inspect(reason)})")

  defp plain({:error, {:exception, :undef, [{Agent, _, _, _} | _]}}) do
    {:error, {:unmanaged, "does not run HotPatch (HotPatch.attach/1 brings it there)"}}
  end

  defp plain({:exit, {:exception, {:noproc, _call}}}) do
    {:error, {:unmanaged, "has HotPatch, but it is not started: start the application hot_patch"}}
  end

  defp plain({:error, {:exception, reason, stack}}) do
    {:error, {:unreachable, "failed: " <> Exception.format(:error, reason, stack)}}
  end

  defp plain({class, reason}), do: unreachable("failed: #{class} #{inspect(reason, limit: 20)}")

  defp unreachable(text), do: {:error, {:unreachable, text}}

  defp unmanaged(node, kind, text) do
    %NodeInfo{node: node, managed?: false, problem: text, problem_kind: kind}
  end

  defp not_ready(reason, infos) do
    problems = Enum.map_join(infos, "; ", &"#{&1.node} #{&1.problem}")

    Error.new(
      reason,
      "nothing was done: #{problems}; bring the node back, or name the others with nodes: [...]",
      %{nodes: Enum.map(infos, & &1.node)}
    )
  end
end
