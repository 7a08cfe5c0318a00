defmodule HotPatch.Test.Operator do
  @moduledoc false
  # What an operator does on a node, for tests with a cluster.

  import HotPatch.Test.Archives
  import HotPatch.Test.Until

  alias HotPatch.Test.Cluster

  @numbers [{"1234567", "7654321"}, {"withheld", "0301234"}, {"1234567", "0044123"}]

  @doc "Calls HotPatch on a node."
  @spec hot_patch(node(), atom(), [term()]) :: term()
  def hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  @doc "Uploads files as an archive."
  @spec upload!(node(), [{Path.t(), binary()}], String.t()) :: HotPatch.Patch.t()
  def upload!(node, files, name \\ "fix") do
    {:ok, patch} = hot_patch(node, :upload, [zip(files), [name: name]])
    patch
  end

  @doc "Whether the plan of a node has a risk that says this, or all of these."
  @spec risk?(HotPatch.Plan.NodePlan.t(), String.t() | Regex.t() | [String.t()]) :: boolean()
  def risk?(%{risks: risks}, said) do
    Enum.any?(risks, fn risk ->
      line = to_string(risk)
      said |> List.wrap() |> Enum.all?(&(line =~ &1))
    end)
  end

  @doc "Starts calls on a node's exchange."
  @spec start_calls(node(), pos_integer()) :: [pid()]
  def start_calls(node, count) do
    Cluster.call(node, Exchange, :start_calls, [Enum.take(Stream.cycle(@numbers), count)])
  end

  @doc """
  Waits until nobody runs old code on any of the nodes: a loop of its own, like the exchange's meter, leaves
  it with its next round, and until then the next change of its module is refused.
  """
  @spec left_old_code([node()]) :: :ok
  def left_old_code([node | _] = nodes) do
    until(
      fn -> match?({:ok, %{items: []}}, hot_patch(node, :stragglers, [[nodes: nodes]])) end,
      "nobody runs old code"
    )

    :ok
  end

  @doc "Takes a key out of the state of a process."
  @spec spoil(node(), pid(), term()) :: :ok
  def spoil(node, pid, key) do
    Cluster.call(node, :sys, :replace_state, [pid, &Map.delete(&1, key)])
    :ok
  end

  @doc "Has the state of a process in a form that no code knows, until it is mended."
  @spec distort(node(), pid()) :: :ok
  def distort(node, pid) do
    Cluster.call(node, :sys, :replace_state, [pid, &{:distorted, &1}])
    :ok
  end

  @doc "Gives a process the state back that it had."
  @spec mend(node(), pid()) :: :ok
  def mend(node, pid) do
    Cluster.call(node, :sys, :replace_state, [pid, &elem(&1, 1)])
    :ok
  end

  @doc "The digest of a module's running code; nil if it is not loaded."
  @spec running(node(), module()) :: binary() | nil
  def running(node, module) do
    if Cluster.call(node, :erlang, :module_loaded, [module]),
      do: Cluster.call(node, :erlang, :get_module_info, [module, :md5])
  end

  @doc "The code of the exchange as a node runs it, by module."
  @spec exchange_code(node()) :: %{module() => binary()}
  def exchange_code(node) do
    for {module, _file} <- Cluster.call(node, :code, :all_loaded, []),
        Atom.to_string(module) =~ ~r/\A(Elixir\.Exchange|hot_patch_test)/,
        into: %{},
        do: {module, running(node, module)}
  end
end
