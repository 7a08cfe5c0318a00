defmodule HotPatch.NodeAgent.Upgrade.Restart do
  @moduledoc false
  # The part of this node in an upgrade by restarts, one node after the other: its files are put beside what runs, what
  # the next start boots is switched, and the VM ends. That start is a trial (HotPatch.Store.Trial): it is this node
  # itself that finds, in the new release, that it serves, so that nothing depends on whoever leads being there still.

  alias HotPatch.Hook
  alias HotPatch.Host.Comeback
  alias HotPatch.Host.Config
  alias HotPatch.Host.ReleaseSource
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.DiskCheck
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Upgrade.Releases
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.NodeAgent.Vitals.HealthCheck
  alias HotPatch.Release
  alias HotPatch.Status
  alias HotPatch.Store.FileChange
  alias HotPatch.Store.Journal
  alias HotPatch.Store.ReleaseFiles
  alias HotPatch.Store.Rolled
  alias HotPatch.Store.Transaction
  alias HotPatch.Store.Trial
  alias HotPatch.Support.FileName

  require HotPatch.Support.Log, as: Log

  # Milliseconds: between two looks whether it serves, and after an answer that is on its way.
  @every 200
  @answered 200

  @typedoc """
  Where to, and by which operation: `op`, `patch`, `by`, `reason`, `from`. `seconds` is how long the new release may take
  to serve. Where no runtime system is named it is that of the release as it lies here. `seq` is the number of the restart.
  `rolled` is what is to be kept when it serves, where nobody waits for that.
  """
  @type order :: %{
          required(:to) => {erts :: String.t() | nil, String.t()},
          required(:seconds) => pos_integer(),
          required(:facts) => map(),
          required(:seq) => pos_integer(),
          optional(:rolled) => Rolled.t()
        }

  @doc "Puts the files of the new release beside what runs. What is there already is left."
  @spec unpack(Payload.t()) :: :ok | {:no, [Verdict.t()]}
  def unpack(payload) do
    %Check{verdicts: verdicts} = Check.run(payload)

    with false <- Enum.any?(verdicts, &Status.refuses?(&1.status)),
         changes = for(%{target: target} = one when target != nil <- verdicts, do: file(one)),
         tag = "hot_patch-unpack-#{:erlang.phash2({node(), payload.patch})}",
         {:ok, staged} <- Transaction.stage(changes, tag),
         :ok <- Transaction.replace(staged) do
      Transaction.done(staged)
    else
      true -> {:no, verdicts}
      {:error, failure} -> {:no, DiskCheck.blame(verdicts, failure)}
    end
  end

  defp file(%Verdict{entry: entry, target: target}),
    do: %FileChange{target: target, bytes: entry.bytes, executable?: entry.executable}

  @doc "Lets go of what there is to do, has the next start boot the other release, and ends the VM."
  @spec leave(order()) :: :ok | {:error, String.t()}
  def leave(order) do
    with {:ok, way} <- Comeback.how(),
         {:ok, to} <- release(order.to) do
      Hook.run(:before_restart, %{patch: order.facts.patch, modules: [], files: []})
      trial = trial(%{order | to: to}, way)

      with :ok <- written(Trial.begin(trial)),
           :ok <- note(order, trial),
           :ok <- heart(trial, Trial.command(:begin)) do
        _ = spawn(fn -> leave_soon(trial) end)
        :ok
      end
    end
  end

  defp release({nil, version}) do
    root = Release.root()
    %Release{name: name} = Release.current()

    case ReleaseFiles.entry(root, {name, version}, :unpacked) do
      nil -> {:error, "there is no release #{name} #{version} in #{root}; nothing was done"}
      entry -> {:ok, {to_string(elem(entry, 3)), version}}
    end
  end

  defp release(to), do: {:ok, to}

  defp trial(order, way) do
    root = Release.root()

    %{
      root: root,
      from: {erts(), Release.current().version},
      to: order.to,
      command: with({:heart, command} <- way, do: command, else: (_exits -> nil)),
      starts: 0,
      seconds: order.seconds,
      facts: order.facts,
      seq: order.seq,
      rolled: order[:rolled]
    }
  end

  defp erts, do: List.to_string(:erlang.system_info(:version))

  defp written(:ok), do: :ok

  defp written({:error, {path, posix}}),
    do: {:error, "cannot write #{path}: #{:file.format_error(posix)}; nothing was done"}

  defp note(order, trial) do
    {_erts, version} = trial.to
    entry = Map.put(order.facts, :release, %{Release.current() | version: version})
    Log.warning("HotPatch: restart into #{version} by #{entry.by}", patch: entry.patch)
    _ = Journal.add(:restart, entry)
    :ok
  end

  defp heart(%{command: nil}, _command), do: :ok

  defp heart(_trial, command) do
    case :heart.set_cmd(FileName.to_charlist(command)) do
      :ok ->
        :ok

      {:error, _bad} ->
        _ = Trial.back(:record)
        {:error, "heart does not take its command: #{command}; nothing was done"}
    end
  end

  defp leave_soon(trial) do
    receive do
    after
      @answered -> finish(trial)
    end
  end

  # Heart starts it again only after a reboot: with a stop it ends first.
  @spec finish(Trial.t()) :: :ok
  defp finish(%{command: nil}) do
    case Comeback.how() do
      {:ok, {:exit, status, _by}} -> :init.stop(status)
      _not_known -> :init.stop(0)
    end
  end

  defp finish(_trial), do: :init.reboot()

  @doc """
  Looks, at a start, whether this is one of a trial: `:again` where the trial has failed and the VM is about to end, so
  that nothing more may be done.
  """
  @spec start() :: :ok | :again
  def start do
    case Trial.read(:record) do
      nil ->
        # It may have ended before it was kept.
        keep(Trial.read(:done), Release.current())
        tell_over(Trial.read(:over))

      trial ->
        start(trial, booted())
    end
  end

  # That this node has come there, by the last that went well; and that all have, where it is all.
  defp keep(%{to: {_erts, version}, seq: seq} = trial, %Release{version: version} = release) do
    _ = Rolled.arrived(release, seq)
    _ = Rolled.add(List.wrap(trial[:rolled]))
    :ok
  end

  defp keep(_none_or_elsewhere, _release), do: :ok

  defp booted, do: with({_name, version} <- ReleaseSource.booted(), do: version)

  # Whatever it has died of: a second start would die of it, too.
  defp start(%{to: {_erts, version}, starts: starts} = trial, version) when starts > 0 do
    Log.error("HotPatch: #{version} has not come to serve: the release of before is started")
    back(trial)
  end

  defp start(%{to: {_erts, version}} = trial, version) do
    trial = Trial.started(trial)
    _ = trial.command && :heart.set_cmd(FileName.to_charlist(Trial.command(:back)))
    _ = spawn(fn -> serve(trial, now() + trial.seconds * 1_000) end)
    :ok
  end

  # Who starts it has a version of its own in mind.
  defp start(trial, _another) do
    _ = Trial.back(:record)
    tell_over(trial)
  end

  defp back(trial) do
    _ = Trial.back(:record)
    _ = trial.command && :heart.set_cmd(FileName.to_charlist(Trial.command(:back)))
    finish(trial)
    :again
  end

  defp tell_over(nil), do: :ok
  defp tell_over(%{facts: %{told: true}}), do: :ok

  defp tell_over(%{to: {_erts, version}} = trial) do
    own_command(trial)
    Releases.started(elem(trial.from, 1), version, trial.root)

    text =
      "#{version} did not come to serve, and the next start boots #{elem(trial.from, 1)} as before"

    entry = Map.merge(trial.facts, %{kind: :restart, status: :error, error: text})
    Log.error("HotPatch: #{text}", patch: entry.patch)
    _ = Journal.add_once(:failed, entry)
    Trial.told(trial)
  end

  # The VM has begun to start what follows; it serves when all of that has started and the host finds itself well.
  defp serve(trial, deadline) do
    cond do
      serves?() ->
        served(trial)

      now() >= deadline ->
        Log.error("HotPatch: #{elem(trial.to, 1)} does not serve after #{trial.seconds} s")
        back(trial)

      true ->
        receive do
        after
          @every -> serve(trial, deadline)
        end
    end
  end

  defp serves? do
    match?({:started, _}, :init.get_status()) and
      Enum.all?(HealthCheck.ask(Config.current().health), &(&1.value == 0))
  end

  defp served(trial) do
    own_command(trial)
    Releases.started(elem(trial.to, 1), elem(trial.from, 1), trial.root)

    # Whoever looks from outside may have come to another end a moment ago: then the VM is about to end.
    with :ok <- Trial.done() do
      release = Release.current()
      Log.notice("HotPatch: this node serves as #{Release.text(release)}")
      _ = Journal.add(:restart, Map.merge(trial.facts, %{release: release, status: :ok}))
      keep(trial, release)
    end

    :ok
  end

  # Heart has that of the trial in its environment, and shows whoever asks later.
  defp own_command(%{command: nil}), do: :ok

  defp own_command(%{command: command}) do
    _ = Process.whereis(:heart) && :heart.set_cmd(FileName.to_charlist(command))
    System.put_env("HEART_COMMAND", command)
  end

  @doc """
  How the trial of a release stands here: it goes on, is done, was taken back and the release of before has started, or
  there was none.
  """
  @spec state(String.t()) :: :trying | :served | :taken_back | :none
  def state(version) do
    Enum.find_value(
      [record: :trying, over: back(), done: :served],
      :none,
      fn {which, state} -> if match?(%{to: {_, ^version}}, Trial.read(which)), do: state end
    )
  end

  defp back, do: if(match?({:started, _}, :init.get_status()), do: :taken_back, else: :trying)

  @doc "Has this node go back to the release that it was before, by one more restart."
  @spec take_back(String.t()) :: :ok | {:error, String.t()}
  def take_back(version) do
    Enum.find_value([:record, :done], {:error, "it has not come to #{version} so"}, fn which ->
      with %{to: {_, ^version}} = trial <- Trial.read(which),
           {:ok, _trial} <- Trial.back(which) do
        _ = trial.command && :heart.set_cmd(FileName.to_charlist(Trial.command(:back)))
        _ = spawn(fn -> leave_soon(trial) end)
        :ok
      else
        {:error, {path, posix}} -> {:error, "cannot write #{path}: #{:file.format_error(posix)}"}
        _another -> nil
      end
    end)
  end

  defp now, do: System.monotonic_time(:millisecond)
end
