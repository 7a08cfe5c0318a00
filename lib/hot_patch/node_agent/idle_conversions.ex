defmodule HotPatch.NodeAgent.IdleConversions do
  @moduledoc false
  # Modules whose code_change a patch brings or changes, and for which no process was found: then
  # it is called nowhere. Mostly none is running; but a process that hides its callback module
  # would go on with its former state under the new code, so it is said.

  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.Plan.Risk
  alias HotPatch.Support.Table
  alias HotPatch.Swap
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.NameHolders
  alias HotPatch.Swap.Hosted

  # What is known of those that work for Phoenix.
  @phoenix [:view, :channel, :component]

  # So many kinds of servers that may hide a module are named.
  @named 3

  @doc "A warning for each of them, as `risks/3`."
  @spec warnings([Change.t()], [Swap.Target.t()], Instructions.t()) :: [String.t()]
  def warnings(changes, targets, instructions),
    do: for(%{message: message} <- risks(changes, targets, instructions), do: message)

  @doc """
  A risk for each of them. Whether a code_change that was there before is another now is known
  where the patch was built from two builds; else it counts where the module is no callback module
  of OTP's behaviours, whose processes would have been found.
  """
  @spec risks([Change.t()], [Swap.Target.t()], Instructions.t()) :: [Risk.t()]
  def risks(changes, targets, instructions) do
    found =
      for %{modules: modules} <- targets, {module, _} <- modules, into: MapSet.new(), do: module

    idle =
      for %{kind: :replace} = change <- changes,
          change.module not in found,
          Change.converts?(change),
          kind = kind(change, instructions),
          kind != :as_before,
          do: {change.module, kind}

    keepers = for({module, kind} <- idle, kind not in @phoenix, do: module) |> NameHolders.of()
    for {module, kind} <- idle, do: risk(inspect(module), kind, Map.get(keepers, module, []))
  end

  @doc "The risk for a module of which an analysis says that its code_change is another now."
  @spec touched(String.t()) :: Risk.t()
  def touched(module), do: risk(module, :brought, [])

  # Views and channels are found for sure, whatever they export.
  defp kind(change, instructions) do
    known = Hosted.kind(change.module)

    cond do
      known == :component -> :component
      known == nil and not behaves?(change.module) -> :hidden
      brings?(change) or Instructions.converts?(change, instructions) -> known || :brought
      true -> :as_before
    end
  end

  defp behaves?(module) do
    Classification.behaves?(module) or
      Classification.exports?(module, handle_event: 2, system_continue: 3)
  end

  defp brings?(%{direction: :down}), do: false

  defp brings?(%{module: module}),
    do: not Classification.exports?(module, code_change: 3, code_change: 4, system_code_change: 4)

  defp risk(module, kind, keepers) do
    nothing_lost =
      if keepers == [] and kind not in @phoenix,
        do: "; if none is running, nothing is lost",
        else: ""

    %Risk{
      kind: :idle_conversion,
      about: module,
      message:
        "#{module}: its code_change is called for no process, because none was found that works for " <>
          "the module; #{likely(kind, keepers)}#{nothing_lost}"
    }
  end

  defp likely(:view, _keepers), do: "a LiveView, and nobody is connected to it here"
  defp likely(:channel, _keepers), do: "a channel, and nobody has joined it here"

  defp likely(:component, _keepers) do
    "a LiveComponent: its state is kept by the process of the view that shows it, and LiveView hands no " <>
      "code_change on to it; see that its update and its callbacks take the state that components have"
  end

  defp likely(:hidden, []) do
    "it is no callback module of OTP's behaviours: if processes of a library keep it in their state, " <>
      "name the way from the state to it with config :hot_patch, wrappers: [{Library.Server, [:path, :to_it]}]"
  end

  defp likely(_kind, [{first, _count} | _] = keepers) do
    servers =
      Enum.map_join(Enum.take(keepers, @named), ", ", fn {server, count} ->
        "#{Table.count(count, "process", "processes")} of #{inspect(server)}"
      end)

    "danger: its name is in the state of #{servers}: if they work for it, name the way from the state to it with " <>
      "config :hot_patch, wrappers: [{#{inspect(first)}, [:path, :to_it]}]"
  end

  defp likely(:brought, []) do
    "processes are found by the module that they began in, or that their behaviour works for: of one that " <>
      "another process keeps inside, name the way with config :hot_patch, wrappers: [{Its.Server, [:path, :to_it]}]"
  end
end
