defmodule HotPatch.NodeAgent.LoaderTrial do
  @moduledoc false
  # What the modules of a patch do to a loader, learned in a VM of its own (HotPatch.LoaderVM)
  # before the loader of this node sees any of them. The coordinator sends what it has found; a
  # node whose loader is another one finds out for itself.

  alias HotPatch.Composition.Entry
  alias HotPatch.LoaderVM
  alias HotPatch.NodeAgent.LoaderCheck
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Verdict

  @typedoc "What a node has found, and with which loader."
  @type found :: %{
          identity: LoaderVM.identity(),
          modules: LoaderVM.finding(),
          copies: LoaderVM.finding()
        }

  @doc "Tries the modules of an archive, and the copies that convert states."
  @spec run([Entry.t()], [Payload.shadow()]) :: found()
  def run(entries, copies) do
    %{
      identity: LoaderVM.identity(),
      modules: entries |> modules() |> LoaderVM.try_modules(),
      copies: LoaderVM.try_modules(for copy <- copies, do: {copy.name, copy.bytes})
    }
  end

  @doc "What other nodes may rely on: nothing, where no trial could be made."
  @spec conclusive(found()) :: found() | nil
  def conclusive(%{modules: {:untried, _why}}), do: nil
  def conclusive(%{copies: {:untried, _why}}), do: nil
  def conclusive(found), do: found

  # Those that need a newer OTP are refused here by another rule, and are no fault of the archive:
  # other nodes may have it.
  defp modules(entries) do
    {otp, ""} = Integer.parse(System.otp_release())

    for %Entry{beam: %{module: name, needs_otp: needed}, bytes: bytes} <- entries,
        bytes != nil and (needed == nil or needed <= otp),
        do: {name, bytes}
  end

  @doc "The verdicts, with those modules refused that this node's loader must not see."
  @spec judge([Verdict.t()], Payload.t()) :: [Verdict.t()]
  def judge(verdicts, payload) do
    if Enum.any?(verdicts, &comes?/1) do
      %{modules: modules, copies: copies} = found(payload)
      verdicts |> apply_finding(modules, %{}) |> apply_finding(copies, names(payload.shadows))
    else
      verdicts
    end
  end

  # What comes back was loaded here before.
  defp comes?(verdict), do: verdict.direction == :up and verdict.change in [:replace, :add]

  # That another node does without is its own affair: here it is nothing to rely on.
  defp found(payload) do
    identity = LoaderVM.identity()

    case payload.loader do
      %{identity: ^identity, modules: modules, copies: copies} = found
      when modules != :off and copies != :off ->
        found

      _another_loader_or_none ->
        run(payload.entries, payload.shadows)
    end
  end

  defp names(copies), do: Map.new(copies, &{&1.name, &1.module})

  defp apply_finding(verdicts, sound, _names) when sound in [:accepted, :off], do: verdicts

  defp apply_finding(verdicts, {:refused, reasons}, names) do
    reasons = Map.new(reasons, fn {name, reason} -> {Map.get(names, name, name), reason} end)

    refuse(verdicts, &is_map_key(reasons, &1), fn name ->
      LoaderCheck.refused(reasons[name])
    end)
  end

  defp apply_finding(verdicts, {:ended, name, how}, names) do
    culprit = Map.get(names, name, name)

    refuse(verdicts, &(culprit in [nil, &1]), fn _name ->
      "it would end the node: the VM in which its loading was tried #{how}. The file is damaged, " <>
        "or made to do harm: build it again"
    end)
  end

  defp apply_finding(verdicts, {:untried, why}, _names) do
    refuse(verdicts, fn _name -> true end, fn _name -> untried(why) end)
  end

  @doc "Why a module is not taken that could not be tried, and what to do."
  @spec untried(String.t()) :: String.t()
  def untried(why) do
    "its loading cannot be tried, and a damaged module ends the node that loads it: no VM could " <>
      "be started for that on #{node()} (#{why}). See to that, or set config :hot_patch, " <>
      "loader_vm: :off to take modules as they are"
  end

  defp refuse(verdicts, concerned?, reason) do
    Enum.map(verdicts, fn verdict ->
      name = Verdict.module(verdict)

      if comes?(verdict) and concerned?.(name),
        do: Verdict.change_status(verdict, :error, reason.(name)),
        else: verdict
    end)
  end
end
