defmodule HotPatch.Agent.Acceptance do
  @moduledoc false
  # The one place where what came from outside becomes atoms and terms. A patch gets here when it
  # is about to be applied, after every verdict of HotPatch.Agent.Examination: what is judged there
  # is text, what is handed on from here are modules and terms. Atoms are never given back, so the
  # table must have room for all of them, and then some for everybody else.

  alias HotPatch.Agent.Environment
  alias HotPatch.Agent.Examination
  alias HotPatch.Agent.Loader
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Verdict
  alias HotPatch.Status

  @typedoc """
  An accepted patch: its modules with their verdicts, what the loader has prepared of them, and what
  changes in the environments of applications.
  """
  @type t :: %__MODULE__{
          changes: [{module(), Verdict.t()}],
          prepared: Loader.prepared(),
          config: [Environment.change()]
        }
  @enforce_keys [:changes, :prepared, :config]
  defstruct @enforce_keys

  @doc "Accepts a patch that this node can take; else gives its verdicts, with the reason."
  @spec accept(Examination.t()) :: {:ok, t()} | {:no, [Verdict.t()]}
  def accept(%Examination{verdicts: verdicts} = examination) do
    with false <- Enum.any?(verdicts, &refuses?/1),
         {:ok, config} <- Environment.accept(examination.config),
         changes = Enum.map(Examination.changes(examination), &{module(&1), &1}),
         {:ok, prepared} <- Loader.prepare(changes) do
      {:ok, %__MODULE__{changes: changes, prepared: prepared, config: config}}
    else
      true -> {:no, verdicts}
      {:error, text} when is_binary(text) -> {:no, Enum.map(verdicts, &refuse(&1, text))}
      {:error, reasons} -> {:no, Loader.blame(verdicts, reasons)}
    end
  end

  # A condition that will pass by itself: refusing now is better than a restart later.
  defp refuses?(verdict), do: Status.refuses?(verdict.status) or verdict.transient?

  defp refuse(verdict, text), do: Verdict.change_status(verdict, :error, text)

  defp module(verdict), do: Running.accepted_module(Verdict.module(verdict))
end
