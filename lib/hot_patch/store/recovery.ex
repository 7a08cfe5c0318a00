defmodule HotPatch.Store.Recovery do
  @moduledoc false
  # What a start finds that the last run of this node has not ended, and what it does about
  # it: a set of files that was decided is finished, one that was not is removed.

  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Applied.Format
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.EarlyFiles
  alias HotPatch.Store.Journal
  alias HotPatch.Store.Transaction
  alias HotPatch.Support.FaultPoint

  @typedoc "What a decided intent carries: the state to be written, as it is kept, and the journal's entry."
  @type note :: %{state: map(), what: atom(), entry: map()}

  @doc "What is to be noted when a set of files is in place: the state, and what goes into the journal."
  @spec note(Applied.state(), atom(), map()) :: note()
  def note(state, what, entry), do: %{state: Format.encode(state), what: what, entry: entry}

  @doc """
  Ends every set of files that was begun; gives those that still cannot be. Where it cannot be told which
  were begun, that is one: whoever goes on would take half of a set for what was there.
  """
  @spec run() :: [{Transaction.intent() | %{note: nil}, Transaction.failure()}]
  def run do
    case Transaction.unreadable() do
      nil -> end_all()
      failure -> [{%{note: nil}, failure}]
    end
  end

  defp end_all do
    Enum.flat_map(Transaction.pending(), fn
      %{state: :decided} = intent ->
        case finish(intent, %{recovered?: true}) do
          :ok -> []
          {:error, failure} -> [{intent, failure}]
        end

      intent ->
        case undo(intent) do
          :ok -> []
          {:error, failure} -> [{intent, failure}]
        end
    end)
  end

  @doc "What was decided and could not be written to the end, a line each; only to be asked where nothing is going on."
  @spec unfinished() :: [String.t()]
  def unfinished do
    for %{state: :decided, note: %{what: what, entry: entry}} <- Transaction.pending() do
      "what #{what} of #{entry[:patch]} has to write in #{Store.directory()} is not all written: make room there or make it " <>
        "writable; the next operation, comparison with other nodes or start of HotPatch finishes it"
    end
  end

  @doc """
  Ends a set that was not decided: the system's files are as they were. If one cannot go back, the
  intent stays, for whoever tries next.
  """
  @spec undo(Transaction.intent()) :: :ok | {:error, Transaction.failure()}
  def undo(intent) do
    with :ok <- EarlyFiles.take_back(intent), do: Transaction.unstage(intent)
  end

  @doc """
  Puts the files of a decided set in place and notes it: state first, then the journal, and
  then nothing is left to do.
  """
  @spec finish(Transaction.intent(), map()) :: :ok | {:error, Transaction.failure()}
  def finish(%{state: :decided, note: note} = intent, more \\ %{}) do
    with :ok <- Transaction.replace(intent),
         :ok <- FaultPoint.point(:files_replaced),
         state = note.state |> Format.decode() |> Applied.marked(intent.files),
         :ok <- named(Applied.put(state), "applied.record"),
         :ok <- FaultPoint.point(:state_written),
         :ok <- named(write_entry(note, more), "journal.log") do
      FaultPoint.point(:journal_written)
      Transaction.done(intent)
      FaultPoint.point(:intent_removed)
      :ok
    end
  end

  # Only what is recovered may be in the journal already; to look for it is to read it all.
  defp write_entry(note, more) when more == %{}, do: Journal.add(note.what, note.entry)
  defp write_entry(note, more), do: Journal.add_once(note.what, Map.merge(note.entry, more))

  @doc "Removes what no record needs any more."
  @spec tidy() :: :ok
  def tidy do
    needed = Applied.digests(Applied.state()) ++ Enum.flat_map(Transaction.pending(), &digests/1)
    _ = Blobs.keep_only(Store.blobs(), MapSet.new(needed))
    :ok
  end

  defp digests(intent) do
    own = for file <- intent.files, digest <- [file.old, file.new], digest != nil, do: digest

    if intent.note,
      do: own ++ Applied.digests(Format.decode(intent.note.state)),
      else: own
  end

  defp named(:ok, _name), do: :ok
  defp named({:error, reason}, name), do: {:error, {Path.join(Store.directory(), name), reason}}
end
