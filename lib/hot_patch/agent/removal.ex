defmodule HotPatch.Agent.Removal do
  @moduledoc false
  # Judges the files that a patch takes away: those that its manifest names as removed.

  alias HotPatch.Agent.Base
  alias HotPatch.Agent.Location
  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.PreviousCode
  alias HotPatch.Agent.Reversal
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Verdict
  alias HotPatch.Manifest

  @doc "A verdict for each of them."
  @spec verdicts(Payload.t()) :: [Verdict.t()]
  def verdicts(payload) do
    case Map.get(payload, :manifest) do
      %Manifest{removed: removed} -> Enum.map(removed, &judge(&1, entry(&1), payload))
      nil -> []
    end
  end

  defp entry(%{path: path, module: module}) do
    Reversal.entry(%{path: path, module: module && module.name, alone?: false}, nil)
  end

  defp judge(%{module: nil} = removed, entry, _payload) do
    case Location.of_file(removed.path) do
      {:ok, _have, target} -> judge_file(entry, target)
      {:absent, reason} -> Verdict.new(entry, :not_beam, "no Erlang module: #{reason}")
      {status, reason} -> Verdict.new(entry, status, reason)
    end
  end

  defp judge(%{module: module} = removed, entry, payload) do
    case Location.of_module(removed.path, module.name) do
      {:ok, :new, _target} -> Verdict.new(entry, :not_changed, "it is gone already")
      {:ok, have, target} -> judge_module(entry, module, have, target, payload)
      {:absent, reason} -> Verdict.new(entry, :not_loaded, reason)
      {status, reason} -> Verdict.new(entry, status, reason)
    end
  end

  defp judge_file(entry, target) do
    if File.exists?(target),
      do: Verdict.new(entry, :not_beam, "no Erlang module: #{target} is removed", target),
      else: Verdict.new(entry, :not_beam, "no Erlang module: #{target} is gone already")
  end

  defp judge_module(entry, module, have, target, payload) do
    ran = ran(module.name, have, target, payload)

    with :ok <- Base.removable(module.name, target, have, module.replaces),
         :ok <- unbooted(),
         :ok <- Reversal.unused(:delete, %{module: module.name}, payload),
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
    {:ok, module} = Running.module(name)
    PreviousCode.find(module, target, false, payload.patch)
  end

  defp ran(_name, _not_loaded, _target, _payload), do: :file

  # The boot script of a release names the module: without its file the node would not start.
  defp unbooted do
    if Running.embedded?(),
      do: {:not_changed, "it stays until the next version: this release's boot script loads it"},
      else: :ok
  end

  defp gone(entry, :loaded, target) do
    %Verdict{entry: entry, status: :ok, target: target, change: :delete, direction: :down}
  end

  defp gone(entry, :on_disk, target) do
    Verdict.new(entry, :not_loaded, "it does not run here; its file is removed", target)
  end
end
