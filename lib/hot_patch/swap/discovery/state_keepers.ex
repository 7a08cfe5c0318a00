defmodule HotPatch.Swap.Discovery.StateKeepers do
  @moduledoc false
  # Servers of a library that work for a changed module by a behaviour of the library's own, and keep what that
  # module has made within their state: NimblePool the states of workers, a DBConnection that of a
  # protocol. The module is in no loop of OTP's, and mostly has no code_change, as nobody would call it. What they keep
  # stays as it is, under the new code. Where a module does bring a code_change, and nobody is found for it, that is a
  # danger, which is told elsewhere (HotPatch.NodeAgent.IdleConversions).
  #
  # A pool whose workers are processes (poolboy) keeps nothing of theirs: those are found by themselves.

  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Plan.Risk
  alias HotPatch.Support.Table
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.NameHolders
  alias HotPatch.Swap.Target

  @doc "What a plan says of them."
  @spec risks([Change.t()], [Target.t()]) :: [Risk.t()]
  def risks(changes, targets) do
    behaviours =
      for %{kind: :replace, module: module} = change <- changes,
          not Change.converts?(change),
          of <- behaviours(module),
          library?(of),
          do: {module, of}

    known = MapSet.new(targets, & &1.pid)

    for {{module, behaviour}, {server, pids}} <- keepers(behaviours, known) do
      Risk.of(
        "#{Table.count(length(pids), "process", "processes")} of #{inspect(server)} " <>
          "#{if length(pids) == 1, do: "works", else: "work"} for #{inspect(module)} by the behaviour " <>
          "#{inspect(behaviour)} and may keep states that it has made within their own: nobody converts these. Where " <>
          "their form changes, have them started again; where the library hands code_change on, name the way to the " <>
          "module with config :hot_patch, wrappers: [{#{inspect(server)}, [:path, :to_it]}]",
        module,
        pids
      )
    end
  end

  defp behaviours(module) do
    if :erlang.module_loaded(module),
      do:
        for(
          {key, of} <- module.module_info(:attributes),
          key in [:behaviour, :behavior],
          one <- of,
          do: one
        ),
      else: []
  end

  # OTP's are found in other ways, and so is what is known of Phoenix.
  defp library?(behaviour) do
    case application(behaviour) do
      nil -> :erlang.module_loaded(behaviour)
      name -> not SystemLibrary.application?(name) and not String.starts_with?(name, "phoenix")
    end
  end

  defp application(module) do
    case :application.get_application(module) do
      {:ok, name} -> Atom.to_string(name)
      :undefined -> nil
    end
  end

  defp keepers([], _known), do: []

  defp keepers(behaviours, known) do
    looks =
      for {module, behaviour} = key <- behaviours,
          do: {key, application(behaviour), NameHolders.pattern(module)}

    found =
      for {pid, server, text} <- NameHolders.servers(),
          not MapSet.member?(known, pid),
          {{module, behaviour} = key, application, pattern} <- looks,
          server != module,
          server == behaviour or (application != nil and application(server) == application),
          NameHolders.named?(text.(), pattern),
          do: {{key, server}, pid}

    for {{key, server}, pids} <- Enum.group_by(found, &elem(&1, 0), &elem(&1, 1)),
        do: {key, {server, pids}}
  end
end
