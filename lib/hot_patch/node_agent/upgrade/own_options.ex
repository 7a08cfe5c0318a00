defmodule HotPatch.NodeAgent.Upgrade.OwnOptions do
  @moduledoc false
  # Options of HotPatch itself that come with a new release. All but two count as soon as they are set. Where a node keeps
  # its data, and what patches are bound to, a node reads when it starts: the start of a release that has these
  # otherwise would find nothing of what takes it back, of a trial that goes on, or of what is in force.

  alias HotPatch.Host.Config.Option
  alias HotPatch.NodeAgent.Upgrade.Evaluation
  alias HotPatch.Store
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  @doc "Whether a release that is configured so can be gone to from here; or what is in the way, and what to do."
  @spec check(Evaluation.configuration(), version :: String.t()) :: :ok | {:error, String.t()}
  def check(configuration, version) do
    own = Map.get(configuration, "hot_patch", %{})

    with :ok <- data_dir(value(own, "data_dir"), version),
         do: release(value(own, "release"), version)
  end

  # What stands on the VM's command line counts, whatever a configuration says, and comes with the next start as well.
  defp value(own, option) do
    cond do
      option in on_command_line() -> :as_now
      etf = own[option] -> {:ok, :erlang.binary_to_term(etf, [:safe])}
      true -> {:ok, nil}
    end
  rescue
    # With an atom that nobody here knows: it is no value of these options.
    ArgumentError -> {:ok, :strange}
  end

  defp on_command_line do
    case :init.get_argument(:hot_patch) do
      {:ok, lists} ->
        for list <- lists,
            [name | _value] <- Enum.chunk_every(list, 2),
            do: FileName.to_binary(name)

      :error ->
        []
    end
  end

  defp data_dir(:as_now, _version), do: :ok

  defp data_dir({:ok, value}, version) do
    new = :data_dir |> counts(value) |> Store.directory()
    now = Store.directory()

    if Folder.resolve(new) == Folder.resolve(now) do
      :ok
    else
      {:error,
       "the configuration of #{version} has HotPatch keep its data in #{new}, and this node keeps it in #{now} (config :hot_patch, " <>
         "data_dir:): a start of #{version} would find neither what takes it back nor what is in force. Leave data_dir as it is with this " <>
         "upgrade; to move it, stop the node, move that folder, and start it with the other value"}
    end
  end

  defp release(:as_now, _version), do: :ok

  defp release({:ok, value}, version) do
    case counts(:release, value) do
      nil ->
        :ok

      {name, vsn} ->
        {:error,
         "the configuration of #{version} says what this node's release is (config :hot_patch, release: {\"#{name}\", \"#{vsn}\"}), " <>
           "whatever it runs: a start of #{version} would be bound to that, and patches and the way back to another; remove it there"}
    end
  end

  # As a start reads it, where a wrong value is as if it were not there.
  defp counts(option, value) do
    case Option.read(option, value) do
      {:ok, value} -> value
      {:wrong, default, _text} -> default
    end
  end
end
