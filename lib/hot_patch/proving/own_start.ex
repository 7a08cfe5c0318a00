defmodule HotPatch.Proving.OwnStart do
  @moduledoc false
  # The load where none is given: the applications of the release are there, and stay.

  @behaviour HotPatch.Proving.Load

  @within 10_000

  @impl true
  def start(nodes), do: Map.new(nodes, &{&1, running(&1)})

  @impl true
  def check(nodes, before) do
    case for node <- nodes, gone = before[node] -- running(node), gone != [], do: {node, gone} do
      [] ->
        :ok

      lost ->
        texts = for {node, gone} <- lost, do: "#{Enum.join(gone, ", ")} on #{node}"
        {:error, "applications have stopped: #{Enum.join(texts, "; ")}"}
    end
  end

  @impl true
  def stop(nodes, before), do: check(nodes, before)

  defp running(node) do
    for {name, _, _} <- :erpc.call(node, :application, :which_applications, [], @within), do: name
  end
end
