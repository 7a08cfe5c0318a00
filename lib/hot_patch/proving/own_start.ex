defmodule HotPatch.Proving.OwnStart do
  @moduledoc false
  # The load where none is given: the applications of the release are there, and stay. One that an upgrade takes away is
  # unloaded as well; one that has ended by itself stays loaded.

  @behaviour HotPatch.Proving.Load

  @within 10_000

  @impl true
  def start(nodes), do: Map.new(nodes, &{&1, running(&1)})

  @impl true
  def check(nodes, before) do
    case for node <- nodes, gone = ended(node, before[node]), gone != [], do: {node, gone} do
      [] ->
        :ok

      lost ->
        texts = for {node, gone} <- lost, do: "#{Enum.join(gone, ", ")} on #{node}"
        {:error, "applications have stopped: #{Enum.join(texts, "; ")}"}
    end
  end

  @impl true
  def stop(nodes, before), do: check(nodes, before)

  defp ended(node, before) do
    gone = before -- running(node)
    gone -- gone -- names(node, :loaded_applications)
  end

  defp running(node), do: names(node, :which_applications)

  defp names(node, function) do
    for {name, _, _} <- :erpc.call(node, :application, function, [], @within), do: name
  end
end
