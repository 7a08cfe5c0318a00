defmodule HotPatch.Swap.Discovery.StateKeepers do
  @moduledoc false
  # Servers of a library that work for a changed module by a behaviour of the library's own, and keep what that
  # module has made within their state: NimblePool the states of workers, a DBConnection that of a
  # protocol, cowboy those of websockets, a GenStage that of a stage. The module is in no loop of OTP's. What they keep
  # stays as it is, under the new code; where that has a code_change, which then nobody calls, that is a danger.
  #
  # A pool whose workers are processes (poolboy) keeps nothing of theirs: those are found by themselves.

  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Plan.Risk
  alias HotPatch.Support.Table
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.NameHolders
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Target

  @doc "What a plan says of them."
  @spec risks([Change.t()], [Target.t()]) :: [Risk.t()]
  def risks(changes, targets) do
    converting = for change <- changes, Change.converts?(change), do: change.module

    behaviours =
      for %{kind: :replace, module: module} <- changes,
          of <- behaviours(module),
          library?(of),
          do: {module, of}

    known = MapSet.new(targets, & &1.pid)

    for {{module, behaviour, server, sure?}, pids} <- keepers(behaviours, known) do
      danger = if module in converting, do: "danger: ", else: ""
      count = Table.count(length(pids), "process", "processes")
      Risk.of(danger <> message(count, module, behaviour, {server, sure?}), module, pids)
    end
  end

  defp message(count, module, behaviour, {server, sure?}) do
    by = "#{inspect(module)} by the behaviour #{inspect(behaviour)}"

    keeps =
      if sure?,
        do:
          "#{count} of #{inspect(server)}: at work for #{by}, and what that has made as a state is part of the library's",
        else:
          "#{count} of #{inspect(server)}: with the name in what they keep, so that they may be at work for #{by}"

    hands_on =
      if function_exported?(server, :code_change, 3),
        do:
          "; where the library hands code_change on, name the way to the module with config :hot_patch, " <>
            "wrappers: [{#{inspect(server)}, [:path, :to_it]}]",
        else: ""

    "#{keeps}: nobody converts it. Where its form changes, have them started again#{hands_on}"
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
      for {module, behaviour} <- behaviours,
          do: {module, behaviour, application(behaviour), NameHolders.pattern(module)}

    found =
      for {pid, server, text} <- NameHolders.servers(),
          not MapSet.member?(known, pid),
          {module, behaviour, application, pattern} <- looks,
          server != module,
          sure? = at_work(pid, server, {module, behaviour}, application),
          sure? != :no,
          NameHolders.named?(text.(), pattern),
          do: {{module, behaviour, server, sure? == :sure}, pid}

    Enum.group_by(found, &elem(&1, 0), &elem(&1, 1))
  end

  # A behaviour that is a loop itself (cowboy's websockets) is on the stack of whoever is in it: another process of
  # the library may have the name in its table of routes. And of a module that is a server itself it has the name to
  # start such (poolboy, ranch).
  defp at_work(pid, server, {module, behaviour}, application) do
    cond do
      server == behaviour or Stacktrace.any?(pid, %{behaviour => []}) -> :sure
      application == nil or application(server) != application -> :no
      function_exported?(behaviour, :system_continue, 3) or Classification.behaves?(module) -> :no
      true -> :perhaps
    end
  end
end
