defmodule HotPatch.NodeAgent.Retirement do
  @moduledoc false
  # Writes down what has become of the patches of a node when its release has changed, or was installed
  # again, and puts the files of those that ended back to what they were.
  #
  # Runs where nobody else writes the state: at the start, and in the agent while nothing goes on.

  alias HotPatch.NodeAgent.Upgrade.Releases
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Leftovers

  require HotPatch.Support.Log, as: Log

  @doc """
  Brings the state under the running release. Gives the files that went back, or why some could not:
  they are tried again the next time.
  """
  @spec run() :: {:ok, [Leftovers.t()]} | {:error, Store.Transaction.failure()}
  def run do
    case Applied.read() do
      nil ->
        {:ok, []}

      recorded ->
        {how, state} = Applied.succeed(recorded)
        :ok = settle(how, recorded, state)
        put_back(state)
    end
  end

  defp settle(:same, _recorded, _state), do: :ok
  defp settle(:carried, recorded, state), do: carried(recorded, state)

  # An upgrade that was decided before the start is none that this node has missed.
  defp settle(:returned, recorded, state) do
    in_force = for record <- state.stack, do: record.id
    ids = for record <- recorded.stack, record.id not in in_force, do: record.id

    why =
      "#{Release.text(recorded.release)} was not made permanent, and the node has started #{Release.text(state.release)}"

    Log.warning("HotPatch: #{Enum.join(ids, ", ")} ended: #{why}")
    :ok = Store.Decisions.tidy(%{state | ops: recorded.ops})
    note_failure(Applied.put(state))
    entry = %{by: "HotPatch", reason: why}
    for id <- ids, do: note_failure(Store.Journal.add(:retire, Map.put(entry, :patch, id)))
    Releases.returned()
  end

  # What was decided under a release that has ended is none that this node has missed, should the
  # same release be started again.
  defp settle(:ended, recorded, state) do
    ended(recorded, state)
    Store.Decisions.forget(recorded.release)
  end

  defp ended(%{stack: []}, _state), do: :ok

  defp ended(recorded, state) do
    note_end(
      recorded.stack,
      state,
      "the release is #{Release.text(state.release)} now, they were for #{Release.text(recorded.release)}"
    )
  end

  # Known under another name, the patches stay what they were.
  defp carried(recorded, state) do
    {before, now} = {recorded.release, state.release}

    if state.stack != [] do
      Log.notice(
        "HotPatch: this system was #{Release.text(before)} and is #{Release.text(now)} now, with the same code: " <>
          "its patches stay in force"
      )
    end

    note_failure(Applied.put(state))
    note_failure(Store.Archives.rebind(before, now))
    note_failure(Store.Decisions.rebind(before, now))
  end

  @doc "Ends all patches of a state whose release is the same; `why` says what has ended them."
  @spec end_all(Applied.state(), String.t()) :: :ok
  def end_all(state, why),
    do: note_end(state.stack, Applied.retired(state, DateTime.utc_now()), why)

  defp note_end(records, state, why) do
    ids = Enum.map(records, & &1.id)
    Log.warning("HotPatch: #{Enum.join(ids, ", ")} ended: #{why}")
    note_failure(Applied.put(state))
    entry = %{by: "HotPatch", reason: why}
    for id <- ids, do: note_failure(Store.Journal.add(:retire, Map.put(entry, :patch, id)))
    :ok
  end

  defp put_back(state) do
    with {:ok, _state, files} <- Store.PutBack.run(state) do
      if files != [], do: tell(files)
      {:ok, files}
    end
  end

  defp tell(files) do
    names = Enum.map_join(Enum.take(files, 3), ", ", & &1.real)

    Log.notice(
      "HotPatch: #{length(files)} files of patches that have ended are as they were before: #{names}"
    )

    Store.Recovery.tidy()
  end

  defp note_failure(:ok), do: :ok

  defp note_failure({:error, reason}) do
    Log.error("HotPatch: the end of patches could not be written down: #{inspect(reason)}")
  end
end
