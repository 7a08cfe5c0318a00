defmodule HotPatch.NodeAgent.Acceptance do
  @moduledoc false
  # The one place where what came from outside becomes atoms and terms. A patch gets here when it
  # is about to be applied, after every verdict of HotPatch.NodeAgent.Check: what is judged there
  # is text, what is handed on from here are modules and terms. Atoms are never given back, so the
  # table must have room for all of them, and then some for everybody else.

  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.Environment
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.LoaderCheck
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Verdict

  @typedoc """
  An accepted patch: its modules with their verdicts, what the loader has prepared of them, and what
  changes in the environments of applications.
  """
  @type t :: %__MODULE__{
          changes: [{module(), Verdict.t()}],
          prepared: LoaderCheck.prepared(),
          config: [Environment.change()]
        }
  @enforce_keys [:changes, :prepared, :config]
  defstruct @enforce_keys

  @doc "Accepts a patch that this node can take; else gives its verdicts, with the reason."
  @spec accept(Check.t(), Payload.t()) :: {:ok, t()} | {:no, [Verdict.t()]}
  def accept(%Check{verdicts: verdicts} = examination, payload) do
    with false <- Enum.any?(verdicts, &Verdict.refuses?/1),
         :ok <- room(atoms(payload), left()),
         {:ok, config} <- Environment.accept(examination.config),
         changes = Enum.map(Check.changes(examination), &{module(&1), &1}),
         {:ok, prepared} <- LoaderCheck.prepare(changes) do
      {:ok, %__MODULE__{changes: changes, prepared: prepared, config: config}}
    else
      true -> {:no, verdicts}
      {:error, text} when is_binary(text) -> {:no, Enum.map(verdicts, &refuse(&1, text))}
      {:error, reasons} -> {:no, LoaderCheck.blame(verdicts, reasons)}
    end
  end

  # Atoms are never given back. Whatever a patch needs, most of what is left stays for others.
  @share 4

  @doc """
  Whether a table with room for `left` more atoms can take those of a patch.

      iex> HotPatch.NodeAgent.Acceptance.room(1_000, 900_000)
      :ok
  """
  @spec room(non_neg_integer(), non_neg_integer()) :: :ok | {:error, String.t()}
  def room(needed, left) when needed <= div(left, @share), do: :ok

  def room(needed, left) do
    {:error,
     "it brings up to #{needed} atoms, and this VM has room for #{left}, of which one patch may take a quarter: " <>
       "atoms are never given back. Start the node with a larger table (+t), or make a smaller patch"}
  end

  defp left, do: :erlang.system_info(:atom_limit) - :erlang.system_info(:atom_count)

  # Those of the modules were counted by the reader. Each has a copy with a name of its own; what is
  # text has an atom for every second byte at the most.
  defp atoms(%{load: nil}), do: 0

  defp atoms(%{load: load} = payload) do
    texts = for {_app, key, {:text, value}} <- payload.config, do: [key, value]
    terms = for one <- payload.instructions.up ++ payload.instructions.down, do: one.text
    load.atoms + 2 * length(payload.shadows) + div(IO.iodata_length([texts, terms]), 2)
  end

  defp refuse(verdict, text), do: Verdict.change_status(verdict, :error, text)

  defp module(verdict), do: LoadedCode.accepted_module(Verdict.module(verdict))
end
