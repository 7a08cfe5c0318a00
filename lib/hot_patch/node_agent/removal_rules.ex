defmodule HotPatch.NodeAgent.RemovalRules do
  @moduledoc false
  # Judges the files that a patch takes away: those that its manifest names as removed. What only
  # moves is judged with the file that comes, see HotPatch.NodeAgent.RelocationRules.

  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.BaseVersion
  alias HotPatch.NodeAgent.BootScript
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Location
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.PreviousCode
  alias HotPatch.NodeAgent.RollbackRules
  alias HotPatch.NodeAgent.Verdict

  @doc "A verdict for each of them."
  @spec verdicts(Payload.t()) :: [Verdict.t()]
  def verdicts(payload) do
    case Map.get(payload, :manifest) do
      %Manifest{} = manifest ->
        moved = Manifest.moved(manifest)

        for removed <- manifest.removed,
            not (removed.module != nil and is_map_key(moved, removed.module.name)),
            do: judge(removed, entry(removed), payload)

      nil ->
        []
    end
  end

  @doc "The entry of a file that goes."
  @spec entry(Manifest.removed()) :: HotPatch.Composition.Entry.t()
  def entry(%{path: path, module: module}) do
    RollbackRules.entry(%{path: path, module: module && module.name, alone?: false}, nil)
  end

  defp judge(%{module: nil} = removed, entry, _payload) do
    case Location.of_file(removed.path) do
      {:ok, _have, target} -> judge_file(entry, target)
      {:absent, reason} -> Verdict.carried(entry, "no Erlang module: #{reason}")
      {status, reason} -> Verdict.new(entry, status, reason)
    end
  end

  defp judge(%{module: module} = removed, entry, payload) do
    case Location.of_module(removed.path, module.name) do
      {:ok, :new, _target} -> Verdict.new(entry, :not_changed, "it is gone already")
      {:ok, have, target} -> judge_module(entry, module, {have, target}, payload)
      {:absent, reason} -> Verdict.new(entry, :not_loaded, reason)
      {status, reason} -> Verdict.new(entry, status, reason)
    end
  end

  defp judge_file(entry, target) do
    if File.exists?(target) and Location.resource_file(target) != nil,
      do: Verdict.new(entry, :error, Location.resource_file(target)),
      else: remove_file(entry, target)
  end

  defp remove_file(entry, target) do
    if File.exists?(target),
      do: Verdict.carried(entry, "no Erlang module: #{target} is removed", target),
      else: Verdict.carried(entry, "no Erlang module: #{target} is gone already")
  end

  defp judge_module(entry, module, {have, target}, payload) do
    ran = ran(module.name, have, target, payload)

    with :ok <- BaseVersion.removable(module.name, target, have, module.replaces),
         :ok <- RollbackRules.unused(:delete, %{module: module.name}, payload),
         :ok <- PreviousCode.restorable(ran, target, payload) do
      %{gone(entry, have, target) | ran: ran}
    else
      {:transient, reason} ->
        %{Verdict.new(entry, :not_updated, reason, target) | transient?: true}

      {status, reason} ->
        Verdict.new(entry, status, reason)
    end
  end

  defp ran(name, :loaded, target, payload) do
    {:ok, module} = LoadedCode.module(name)
    PreviousCode.find(module, target, false, payload.patch)
  end

  defp ran(_name, _not_loaded, _target, _payload), do: :file

  defp gone(entry, have, target) do
    keeps = kept(entry.beam.module, target)
    disk = if keeps, do: {:bytes, keeps}, else: :entry
    verdict = %Verdict{entry: entry, status: :not_loaded, target: target, disk: disk}

    case have do
      :loaded ->
        %{verdict | status: :ok, reason: stays(keeps), change: :delete, direction: :down}

      :on_disk ->
        what = if keeps, do: "and is not loaded by the next start", else: "its file is removed"
        %{verdict | reason: "it does not run here; #{what}"}
    end
  end

  # Without its file the node would not start.
  defp kept(name, target) do
    with true <- BootScript.needs?(name), {:ok, bytes} <- File.read(target) do
      bytes
    else
      _the_file_can_go -> nil
    end
  end

  defp stays(nil), do: nil

  defp stays(_bytes) do
    "it is taken out of memory, now and at every start; its file stays until the next version, " <>
      "because the release's boot script wants it"
  end
end
