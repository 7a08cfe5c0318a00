defmodule HotPatch.Agent.Examination do
  @moduledoc false
  # Judges every file of a patch against this node. Reads, changes nothing: the same code
  # serves a check and the first half of an apply.

  alias HotPatch.Agent.Location
  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Verdict
  alias HotPatch.Composition.Entry
  alias HotPatch.Release
  alias HotPatch.Status
  alias HotPatch.Swap
  alias HotPatch.Swap.Describe

  @typedoc "`prepared` is the loader's own result for all modules to load, in one."
  @type t :: %__MODULE__{verdicts: [Verdict.t()], prepared: term()}
  @enforce_keys [:verdicts]
  defstruct [:verdicts, :prepared]

  @doc "Judges a patch on this node."
  @spec run(Payload.t()) :: t()
  def run(%Payload{} = payload) do
    case bound_here(payload.release) do
      :ok ->
        payload.entries
        |> Enum.map(&judge/1)
        |> hindered(payload.purge)
        |> refuse_twins()
        |> prepare()

      {:error, reason} ->
        %__MODULE__{verdicts: refuse_all(payload.entries, reason)}
    end
  end

  @doc """
  The modules that are to be loaded, as atoms with their verdicts; none of a patch that is
  refused, whose names must not become atoms.
  """
  @spec changes(t()) :: [{module(), Verdict.t()}]
  def changes(%__MODULE__{verdicts: verdicts}) do
    if refused?(verdicts) do
      []
    else
      for %Verdict{change: change} = verdict <- verdicts, change != nil do
        {Running.accepted_module(Verdict.module(verdict)), verdict}
      end
    end
  end

  # Nodes of another kind have a release of their own; one of the same name must be of
  # the very version.
  defp bound_here(%Release{name: name, version: version}) do
    case Release.current() do
      %Release{name: ^name, version: other} when other != version ->
        {:error,
         "the patch is bound to #{name} #{version}, but this node runs #{name} #{other}: " <>
           "make one for that version"}

      _ ->
        :ok
    end
  end

  defp refuse_all(entries, reason), do: Enum.map(entries, &Verdict.new(&1, :error, reason))

  defp judge(%Entry{kind: :damaged} = entry), do: Verdict.new(entry, :error, entry.reason)

  defp judge(%Entry{kind: :other} = entry) do
    case Location.of_file(entry.path) do
      {:ok, _have, target} ->
        Verdict.new(entry, :not_beam, "no Erlang module: it goes to #{target}", target)

      {:absent, reason} ->
        Verdict.new(entry, :not_beam, "no Erlang module, and goes nowhere: #{reason}")

      {:wrong_path, _reason} ->
        Verdict.new(
          entry,
          :not_beam,
          "no Erlang module, and goes nowhere: the path begins with no application's folder"
        )

      {:error, reason} ->
        Verdict.new(entry, :error, reason)
    end
  end

  defp judge(%Entry{kind: :beam, beam: beam} = entry) do
    case Location.of_module(entry.path, beam.module) do
      {:ok, have, target} -> judge_module(entry, have, target)
      {:absent, reason} -> Verdict.new(entry, :not_loaded, reason)
      {status, reason} -> Verdict.new(entry, status, reason)
    end
  end

  defp judge_module(%Entry{beam: beam} = entry, have, target) do
    with :ok <- runnable(beam),
         {:load, change} <- wanted(beam, have, target),
         :ok <- swappable(beam) do
      %Verdict{entry: entry, status: :ok, target: target, change: change, new?: change == :add}
    else
      {status, reason} ->
        %{Verdict.new(entry, status, reason, target) | new?: have == :new}
    end
  end

  defp runnable(%{needs_otp: nil}), do: :ok

  defp runnable(%{needs_otp: needed}) do
    case Integer.parse(System.otp_release()) do
      {otp, ""} when otp < needed ->
        {:error, "needs OTP #{needed}, but this node runs OTP #{otp}: compile it on #{otp}"}

      _ ->
        :ok
    end
  end

  # What there is to load: the node runs it and differs, or the running application is to
  # get a new module.
  defp wanted(beam, :loaded, _target) do
    {:ok, module} = Running.module(beam.module)

    case Running.facts(module) do
      nil ->
        {:not_loaded, "was unloaded a moment ago"}

      facts ->
        if Running.same?(facts, beam.md5, beam.vsn),
          do: {:not_changed, nil},
          else: {:load, :replace}
    end
  end

  # Not loaded, whether its file is there already or not: with the others of a running
  # application it becomes current in the same step. Left to its first use, it could be
  # loaded from the old file in between; in embedded mode it would never be.
  defp wanted(_beam, _on_disk_or_new, target) do
    folder = target |> Path.split() |> Enum.at(-3) |> String.split("-") |> hd()

    with {:ok, application, _folder} <- Running.application_folder(folder),
         nil <- Application.spec(application, :vsn) do
      {:not_loaded, "the application #{application} is not loaded on this node"}
    else
      _ -> {:load, :add}
    end
  end

  defp swappable(beam) do
    cond do
      beam.on_load ->
        {:not_updated,
         "runs code when it is loaded (on_load), so it cannot become current in one step with " <>
           "the others: disk is replaced, restart the node to run it"}

      beam.load_nif ->
        {:not_updated,
         "loads a NIF library, which may refuse to be replaced: disk is replaced, restart the " <>
           "node to run it"}

      true ->
        :ok
    end
  end

  # All modules together: to look at every process takes a while.
  defp hindered(verdicts, :force), do: verdicts

  defp hindered(verdicts, :soft) do
    holders = Swap.holders(for %{change: :replace} = verdict <- verdicts, do: running(verdict))

    Enum.map(verdicts, fn verdict ->
      with %{change: :replace} <- verdict,
           {:ok, pids} <- Map.fetch(holders, running(verdict)) do
        reason = "old code of an earlier change #{Describe.in_use(pids)}"
        %{Verdict.change_status(verdict, :not_updated, reason) | transient?: true}
      else
        _ -> verdict
      end
    end)
  end

  defp running(verdict) do
    {:ok, module} = Running.module(Verdict.module(verdict))
    module
  end

  # Of two files for one module, or one place, only one can be meant.
  defp refuse_twins(verdicts) do
    counts = verdicts |> Enum.flat_map(&claims/1) |> Enum.frequencies()

    Enum.map(verdicts, fn verdict ->
      case Enum.find(claims(verdict), &(counts[&1] > 1)) do
        nil ->
          verdict

        {what, name} = claim ->
          reason = "the archive has #{counts[claim]} files for the #{what} #{name}: keep one"
          Verdict.change_status(verdict, :error, reason)
      end
    end)
  end

  defp claims(verdict) do
    for {what, name} <- [module: Verdict.module(verdict), place: verdict.target],
        name != nil,
        do: {what, name}
  end

  # The loader's own validation of everything that would be loaded. It makes the modules'
  # atoms, so nothing comes here that any rule has refused.
  defp prepare(verdicts) do
    modules =
      for {module, %Verdict{entry: entry, target: target}} <-
            changes(%__MODULE__{verdicts: verdicts}) do
        {module, String.to_charlist(target), entry.bytes}
      end

    case :code.prepare_loading(modules) do
      {:ok, prepared} ->
        %__MODULE__{verdicts: hold_back(verdicts), prepared: prepared}

      {:error, reasons} ->
        reasons = Map.new(reasons, fn {module, reason} -> {Atom.to_string(module), reason} end)
        %__MODULE__{verdicts: verdicts |> Enum.map(&loader_refused(&1, reasons)) |> hold_back()}
    end
  end

  defp refused?(verdicts), do: Enum.any?(verdicts, &Status.refuses?(&1.status))

  defp loader_refused(verdict, reasons) do
    case Map.fetch(reasons, Verdict.module(verdict)) do
      {:ok, :on_load_not_allowed} ->
        Verdict.change_status(
          verdict,
          :not_updated,
          "runs code when it is loaded (on_load): disk is replaced, restart the node to run it"
        )

      {:ok, reason} ->
        Verdict.change_status(
          verdict,
          :error,
          "the VM's loader refuses it: #{loader_text(reason)}"
        )

      :error ->
        verdict
    end
  end

  defp loader_text(:badfile), do: "badfile, it is damaged or made for another OTP"
  defp loader_text(:sticky_directory), do: "its directory is sticky, as those of OTP are"
  defp loader_text(reason), do: inspect(reason)

  # All modules of a patch become current in one step or none does: beside a module that
  # memory cannot take, the others wait for the restart too.
  defp hold_back(verdicts) do
    case Enum.find(verdicts, &(&1.status == :not_updated)) do
      nil ->
        verdicts

      blocker ->
        Enum.map(verdicts, fn
          %Verdict{change: nil} = verdict ->
            verdict

          verdict ->
            Verdict.change_status(
              verdict,
              :not_updated,
              "held back with #{Verdict.module(blocker)}: all modules of a patch become current " <>
                "in one step"
            )
        end)
    end
  end
end
