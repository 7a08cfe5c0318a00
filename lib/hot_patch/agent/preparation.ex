defmodule HotPatch.Agent.Preparation do
  @moduledoc false
  # Everything of an apply that can fail without harm: the judgement, the files staged
  # beside their targets, the new code and the code to go back to, ready to be made
  # current.

  alias HotPatch.Agent.Examination
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Verdict
  alias HotPatch.Status
  alias HotPatch.Store
  alias HotPatch.Swap

  @type t :: %__MODULE__{
          examination: Examination.t(),
          operation: HotPatch.Agent.operation(),
          staged: Store.Files.staged(),
          job: Swap.Job.t() | nil
        }
  @enforce_keys [:examination, :operation, :staged]
  defstruct [:examination, :operation, :staged, :job]

  @doc "Prepares, or says by its verdicts why this node cannot."
  @spec run(Examination.t(), HotPatch.Agent.operation()) :: {:ok, t()} | {:no, [Verdict.t()]}
  def run(%Examination{verdicts: verdicts} = examination, operation) do
    if Enum.any?(verdicts, &refuses?/1) do
      {:no, verdicts}
    else
      job = job(examination, operation)

      case stage(verdicts, operation) do
        {:ok, staged} ->
          {:ok,
           %__MODULE__{examination: examination, operation: operation, staged: staged, job: job}}

        {:error, failure} ->
          {:no, blame(verdicts, failure)}
      end
    end
  end

  @doc "Takes back what preparing has left on disk."
  @spec discard(t()) :: :ok
  def discard(%__MODULE__{staged: staged}), do: Store.Files.unstage(staged)

  @doc "The modules that a swap replaces or adds."
  @spec changes(Examination.t()) :: [Swap.Change.t()]
  def changes(examination) do
    for {module, %Verdict{change: kind, entry: entry}} <- Examination.changes(examination) do
      %Swap.Change{
        module: module,
        kind: kind,
        exports: entry.beam.exports,
        old_vsn: old_vsn(kind, module)
      }
    end
  end

  # A condition that will pass by itself: refusing now is better than a restart later.
  defp refuses?(verdict), do: Status.refuses?(verdict.status) or verdict.transient?

  defp stage(verdicts, operation) do
    changes =
      for %Verdict{target: target, entry: entry} <- verdicts,
          target != nil,
          not already_there?(target, entry),
          do: {target, entry.bytes}

    # Nodes of one host may share a release folder: each stages under a name of its own.
    tag = "hot_patch-#{:erlang.phash2({node(), operation.ref})}"
    Store.Files.stage(changes, tag)
  end

  defp already_there?(target, entry) do
    case File.read(target) do
      {:ok, bytes} -> bytes == entry.bytes
      {:error, _} -> false
    end
  end

  # The file itself; where the data directory cannot be written, each of them.
  defp blame(verdicts, {path, posix}) do
    at_fault =
      if Enum.any?(verdicts, &(&1.target == path)),
        do: &(&1.target == path),
        else: &(&1.target != nil)

    reason = "cannot write #{path}: #{:file.format_error(posix)}"

    Enum.map(verdicts, fn verdict ->
      if at_fault.(verdict), do: Verdict.change_status(verdict, :error, reason), else: verdict
    end)
  end

  defp job(examination, operation) do
    case changes(examination) do
      [] ->
        nil

      changes ->
        %Swap.Job{
          changes: changes,
          prepared: examination.prepared,
          previous: previous(examination),
          pause_timeout: operation.pause_timeout
        }
    end
  end

  defp old_vsn(:add, _module), do: nil

  defp old_vsn(:replace, module) do
    case Running.facts(module) do
      nil -> nil
      facts -> Running.old_vsn(facts)
    end
  end

  # The code that runs now, from its files, if they still are what runs.
  defp previous(examination) do
    replaced =
      for {module, %{change: :replace} = v} <- Examination.changes(examination),
          do: {module, v.target}

    with {:ok, modules} <- old_files(replaced),
         {:ok, prepared} <- :code.prepare_loading(modules) do
      prepared
    else
      _ -> nil
    end
  end

  defp old_files(replaced) do
    Enum.reduce_while(replaced, {:ok, []}, fn {module, target}, {:ok, files} ->
      with {:ok, bytes} <- File.read(target),
           %{md5: md5} <- Running.facts(module),
           ^md5 <- :code.module_md5(bytes) do
        {:cont, {:ok, [{module, String.to_charlist(target), bytes} | files]}}
      else
        _ -> {:halt, :not_at_hand}
      end
    end)
  end
end
