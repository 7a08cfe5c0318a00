defmodule HotPatch.NodeAgent.Upgrade.WayBack do
  @moduledoc false
  # The way back from an upgrade on a node that it has taken to another release. The files of both releases lie beside
  # each other and stay: only memory goes back, to the code that the folders of the former release have.

  alias HotPatch.Host.NextBoot
  alias HotPatch.NodeAgent.LoadRules
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.RollbackRules
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.ReleaseFiles
  alias HotPatch.Store.Transaction

  @doc "What a node keeps of an upgrade that it carries out: its course, and what tells how each module goes back."
  @spec keep(Course.t(), [{Verdict.t(), Transaction.file()}], %{String.t() => term()}) ::
          Applied.upgrade()
  def keep(course, files, callback_modes) do
    %{
      course: Course.to_map(course),
      files: for({%{disk?: true}, file} <- files, do: Map.take(file, [:target, :new])),
      modules:
        for {verdict, _file} <- files, change = change(verdict) do
          module(%{verdict | change: change}, callback_modes)
        end
    }
  end

  # One of an application that goes is taken out with that.
  defp change(%{change: nil, status: :ok, entry: %{bytes: nil}}), do: :delete
  defp change(%{change: change}), do: change

  defp module(%Verdict{entry: entry, change: change} = verdict, callback_modes) do
    name = Verdict.module(verdict)

    %{
      path: entry.path,
      module: name,
      target: verdict.target,
      change: change,
      former: verdict.former,
      # What runs is the file's, or is kept.
      old: old(verdict),
      md5: if(change != :delete, do: :code.module_md5(entry.bytes)),
      alone?: match?(%{on_load: true}, entry.beam),
      convert?: verdict.convert?,
      callback_mode: callback_modes[name]
    }
  end

  defp old(%Verdict{ran: {:other, bytes}}), do: :crypto.hash(:sha256, bytes)
  defp old(%Verdict{former: nil}), do: nil
  defp old(%Verdict{former: former}), do: Transaction.digest(former)

  @doc "The verdicts on all modules, and on what says which release a start boots. The course is that of the way back."
  @spec verdicts(Applied.upgrade(), Course.t(), Payload.t()) :: [Verdict.t()]
  def verdicts(upgrade, course, payload) do
    case for(module <- upgrade.modules, do: module |> judge(payload) |> with_application(course)) do
      [] -> [release(course) | start_data(course)]
      modules -> modules ++ start_data(course)
    end
  end

  # What an application that goes has goes with it, when nobody needs it any more.
  defp with_application(%{change: :delete} = verdict, course), do: later(verdict, course)
  defp with_application(%{transient?: true} = verdict, course), do: later(verdict, course)
  defp with_application(verdict, _course), do: verdict

  defp later(verdict, course) do
    if Course.leaves?(course, verdict.entry.path),
      do: %{
        verdict
        | status: :ok,
          change: nil,
          transient?: false,
          reason: "it goes when its application has stopped"
      },
      else: verdict
  end

  # Where the releases differ in no module.
  defp release(%{to: {_name, former}}) do
    file = %{path: "releases/#{former}", module: nil, alone?: false}
    Verdict.new(RollbackRules.entry(file, nil), :ok, "no module goes back, and the rest does")
  end

  # Where the release that goes is permanent, the one that comes back is so again.
  defp start_data(%{root: root, from: {_name, version}, to: {_same, former}} = course) do
    if ReleaseFiles.permanent(root) == version do
      data = {NextBoot.start_data(root), "#{course.erts} #{former}"}

      scripts =
        for {script, %{^former => own}} <- NextBoot.scripts(root),
            {:ok, bytes} <- [File.read(own)],
            do: {script, bytes}

      for {path, bytes} <- [data | scripts] do
        file = %{path: Path.relative_to(path, root), module: nil, alone?: false}
        reason = "no Erlang module: a restart boots #{former} again"
        file |> RollbackRules.entry(bytes) |> Verdict.carried(reason, path)
      end
    else
      []
    end
  end

  # What was not there before goes, what went comes back.
  defp judge(%{change: :add} = module, payload),
    do: module |> Map.put(:target, module.target) |> back(nil, payload)

  defp judge(module, payload) do
    case former(module) do
      {:ok, bytes} -> back(%{module | target: module.former}, bytes, payload)
      {:error, reason} -> Verdict.new(RollbackRules.entry(module, nil), :error, reason)
    end
  end

  defp former(%{former: path, old: digest} = module) do
    with {:ok, bytes} <- File.read(path),
         ^digest <- :crypto.hash(:sha256, bytes) do
      {:ok, bytes}
    else
      _gone_or_another -> kept(module)
    end
  end

  # Where another version ran than the file has.
  defp kept(%{former: path, old: digest, module: name}) do
    with digest when digest != nil <- digest,
         {:ok, bytes} <- Blobs.fetch(Store.blobs(), digest) do
      {:ok, bytes}
    else
      _unknown ->
        {:error,
         "#{path} is not what #{name} was before the upgrade: put the right file back, or install the former release again"}
    end
  end

  defp back(module, bytes, payload) do
    entry = RollbackRules.entry(module, bytes)

    with {:change, change} <- wanted(module, entry.beam),
         :ok <- RollbackRules.unused(change, module, payload),
         :ok <- LoadRules.check(entry.beam, payload) do
      %Verdict{
        entry: entry,
        status: :ok,
        target: module.target,
        disk?: false,
        change: change,
        direction: if(change == :add, do: :up, else: :down),
        alone?: module.alone?,
        convert?: module.convert?,
        callback_mode: module.callback_mode
      }
    else
      {:transient, reason} -> %{new(entry, :not_updated, reason, module) | transient?: true}
      {status, reason} -> new(entry, status, reason, module)
    end
  end

  defp new(entry, status, reason, module),
    do: %{Verdict.new(entry, status, reason, module.target) | disk?: false}

  defp wanted(module, beam) do
    with {:ok, name} <- LoadedCode.module(module.module),
         %{} = facts <- LoadedCode.facts(name) do
      cond do
        beam.md5 != nil and LoadedCode.same?(facts, beam.md5, beam.vsn) -> {:not_changed, nil}
        facts.md5 != module.md5 -> {:error, foreign(module)}
        beam.md5 == nil -> {:change, :delete}
        true -> {:change, :replace}
      end
    else
      _not_loaded when module.change == :add -> {:not_loaded, "it does not run here"}
      _not_loaded -> {:change, :add}
    end
  end

  defp foreign(module) do
    "#{module.module} runs in a version that neither is what the upgrade brought nor what was there " <>
      "before it: somebody has loaded it by hand, see HotPatch.drift/0"
  end
end
