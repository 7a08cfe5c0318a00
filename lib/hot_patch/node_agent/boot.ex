defmodule HotPatch.NodeAgent.Boot do
  @moduledoc false
  # What a start has to set right before the applications that depend on HotPatch start.
  # The VM's boot script has loaded their modules by then, but none of their processes runs.
  #
  #   * a restart into another release is looked after: a second start in it goes back
  #   * a set of files that was decided is finished, one that was not is removed
  #   * patches of another version of the release, or of one that was installed anew, end, and their
  #     files go back to what they were
  #   * on a fresh disk the patches' files are put in place again
  #   * what the patches in force have set in the environments of applications is set again
  #   * what the boot script has loaded from files that were half done, or could not load
  #     because it does not know them, is loaded now
  #   * applications that the patches in force have added or removed are, when all has started

  alias HotPatch.Host.Attachment
  alias HotPatch.NodeAgent.Environment
  alias HotPatch.NodeAgent.InstructionRunner.Restore
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Retirement
  alias HotPatch.NodeAgent.Upgrade
  alias HotPatch.NodeAgent.Upgrade.Releases
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.FileChange
  alias HotPatch.Store.FileMark
  alias HotPatch.Store.InstallMark
  alias HotPatch.Store.SharedHost
  alias HotPatch.Support.Cause
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Hex

  require HotPatch.Support.Log, as: Log

  @doc "Sets disk and memory right. Never fails: what cannot be done is logged and noted."
  @spec run() :: :ok
  def run do
    :ok = Store.Privacy.check()
    note_failure(:journal, Store.Journal.open())
    written = Applied.read()
    if Upgrade.Restart.start() == :again, do: never()
    begun = Store.Transaction.pending()
    early = Enum.filter(begun, &Store.EarlyFiles.begun?/1)
    for {intent, failure} <- Store.Recovery.run(), do: not_finished(intent, failure)
    Releases.mend(Release.root())
    Releases.align(Release.root())
    if Releases.other?(begun), do: start_other()
    sweep(begun)
    back = retire()
    forget_memory(written, Applied.state())
    disk(Applied.state())
    back = back ++ retire()
    Environment.restore(Applied.state().stack)
    # On a node that was attached everything runs already: what its memory is stays.
    if Attachment.here() == nil do
      memory(Applied.state(), begun, back)
      again(early)
      Restore.later(Applied.state().stack)
    end

    Store.Recovery.tidy()
  catch
    # Whatever is wrong with the store, the host system shall start.
    kind, reason ->
      note_failure(:store, {:error, Cause.of(kind, reason, __STACKTRACE__)})
  end

  # The way back from a permanent release was decided, and cut off before the file said so by which this start has
  # chosen. Nothing of the system runs yet: it starts once more, as what was decided.
  @spec start_other() :: no_return()
  defp start_other do
    Log.warning("HotPatch: a rollback to another release was decided: the node starts that")
    :ok = :init.restart()
    never()
  end

  # The VM is about to end.
  @spec never() :: no_return()
  defp never do
    receive do
      :never -> exit(:restarting)
    end
  end

  # What writes that were cut short have left.
  defp sweep(begun) do
    Store.remove_all_temporaries(Store.directory())
    for %{files: files} <- begun, file <- files, do: Store.remove_temporaries(file.target)
    :ok
  end

  defp not_finished(intent, {path, reason}) do
    what = if intent.note, do: intent.note.entry.patch, else: "an operation that was not decided"

    Log.error(
      "HotPatch: the files of #{what} are not all in place: #{path}: #{inspect(reason)}; " <>
        "the next start tries again"
    )
  end

  # Gives the files that went back to what they were before patches that have ended.
  defp retire do
    case Retirement.run() do
      {:ok, files} ->
        files

      {:error, {path, reason}} ->
        note_failure(:ended, {:error, "#{path}: #{inspect(reason)}; it is tried again"})
        []
    end
  end

  # What was in memory only was so until this start. Other nodes may still have it, and then this
  # one has missed it.
  defp forget_memory(%{release: release} = written, %{release: release} = now) do
    case Applied.booted(written, Applied.boot()) do
      {_state, []} ->
        :ok

      {_booted, gone} ->
        # A decision of this node is none that it has missed.
        :ok = Store.Decisions.tidy(written)
        note_failure(:state, Applied.put(now))
        why = "it was applied in memory only, and the node has started anew"
        for record <- gone, do: note_end(record.id, why)
        :ok
    end
  end

  # There was none, or its patches have ended altogether.
  defp forget_memory(_written, _now), do: :ok

  defp note_end(id, why) do
    Log.notice("HotPatch: #{id} is gone: #{why}")
    entry = %{patch: id, by: "HotPatch", reason: why}
    note_failure(:journal, Store.Journal.add(:retire, entry))
  end

  defp disk(%{stack: []}), do: :ok

  defp disk(state) do
    files = state.stack |> Applied.on_disk() |> Applied.net()

    case Enum.filter(files, &(Store.Transaction.digest(&1.target) != &1.new)) do
      [] -> :ok
      wrong -> not_as_left(wrong, files, state)
    end
  end

  # The same folder with other files: somebody has installed the release again, or another
  # node of this host, which shares the folder, has gone on meanwhile, maybe to another release. Another folder: a disk
  # that knows nothing of patches, with what was there before them or with something else.
  defp not_as_left(wrong, files, state) do
    mark = InstallMark.marked(hd(files).target)

    cond do
      mark != state.install and Enum.all?(wrong, &(Store.Transaction.digest(&1.target) == &1.old)) ->
        put_again(wrong, state, "on a fresh disk")

      # With other files than those that the patches were made for.
      mark != state.install ->
        Retirement.end_all(state, "the release was installed again, with other files")

      (ops = SharedHost.rollbacks(state)) != [] ->
        follow(ops, state)

      # That node runs on in the other release, and this one comes to it again, or both start anew as this one: what a start
      # boots has its files.
      SharedHost.left?(wrong, state.release) ->
        put_again(wrong, state, "which another node of this host has left by an upgrade")

      SharedHost.busy_with?(wrong) ->
        Log.notice("HotPatch: another node of this host is about to change the patched files")

      # What the patches have added nobody overwrites, nor removes: it goes with them.
      installed_again?(files) ->
        Retirement.end_all(state, "the release was installed again over their files")

      true ->
        names = Enum.map_join(Enum.take(wrong, 3), ", ", & &1.target)

        Log.error(
          "HotPatch: #{length(wrong)} patched files are not what was put there: #{names}; see HotPatch.drift()"
        )

        note_failure(
          :journal,
          Store.Journal.add(:drift, %{by: "HotPatch", reason: "changed on disk: #{names}"})
        )
    end
  end

  # What the release has of its own is its own again.
  defp installed_again?(files) do
    shipped = for %{old: old, new: new} = file <- files, old not in [nil, new], do: file
    shipped != [] and Enum.all?(shipped, &(Store.Transaction.digest(&1.target) == &1.old))
  end

  # The files are what the other node has left: here it only remains to be noted.
  defp follow(ops, state) do
    note_failure(:state, Applied.put(Enum.reduce(ops, state, &Applied.rolled_back(&2, &1))))

    for op <- ops do
      entry = %{op: op.id, kind: :rollback, patch: op.patch, by: op.by, release: state.release}
      entry = Map.merge(entry, %{seq: op.seq, reason: "done by another node of this host"})
      note_failure(:journal, Store.Journal.add_once(:rollback, entry))
    end

    # Once more: not all of it may have been that.
    disk(Applied.state())
  end

  defp put_again(files, state, where) do
    changes =
      for file <- files,
          {:ok, bytes} <- [bytes(file)],
          do: %FileChange{target: file.target, bytes: bytes, rights: file.rights}

    tag = "hot_patch-boot-#{:erlang.phash2(node())}"
    ids = Enum.map_join(state.stack, ", ", & &1.id)

    with true <- length(changes) == length(files),
         {:ok, intent} <- Store.Transaction.stage(changes, tag),
         note = note(%{state | install: InstallMark.mark(intent.files)}, ids, where),
         {:ok, intent} <- Store.Transaction.decide(intent, note),
         :ok <- Store.Recovery.finish(intent) do
      Log.warning("HotPatch: put the files of #{ids} in place again, #{where}")
    else
      false ->
        note_failure(:disk, {:error, "what #{ids} have brought is no longer kept"})

      {:error, {path, reason}} ->
        note_failure(:disk, {:error, "#{path}: #{inspect(reason)}"})
    end
  end

  defp bytes(%{new: nil}), do: {:ok, nil}
  defp bytes(%{new: digest}), do: Store.Blobs.fetch(Store.blobs(), digest)

  defp note(state, ids, where) do
    op = Hex.random()
    entry = %{op: op, patch: ids, by: "HotPatch", reason: where, release: state.release}
    Store.Recovery.note(state, :put_again, entry)
  end

  # Only what is on disk by now: nothing may run that a restart would not bring. And only what this
  # node would load from there: other versions have modules of the same names.
  defp memory(state, begun, back) do
    files = state |> touched(begun, back) |> Enum.filter(&loads?/1)
    {brought, gone} = Enum.split_with(files, &brought?/1)
    # Of one that has moved, the file in the former place is gone, or there for the boot script.
    names = MapSet.new(brought, & &1.module)

    for file <- gone,
        file.module not in names,
        Store.Transaction.digest(file.target) == file.new,
        {:ok, module} <- [LoadedCode.module(file.module)],
        :erlang.module_loaded(module),
        do: unload(module)

    wrong =
      for %{new: new} = file <- brought,
          {:ok, bytes} <- [File.read(file.target)],
          :crypto.hash(:sha256, bytes) == new,
          wanted?(file.module),
          module = LoadedCode.accepted_module(file.module),
          runs_other?(module, bytes) or elsewhere?(module, file),
          do: {module, FileName.to_charlist(file.target), bytes}

    load(wrong)
  end

  defp brought?(%{new: nil}), do: false
  defp brought?(file), do: not file.gone? and file.move != :away

  # The boot script knows only its former place.
  defp elsewhere?(module, %{move: :here, target: target}),
    do: :code.is_loaded(module) != {:file, FileName.to_charlist(target)}

  defp elsewhere?(_module, _file), do: false

  # Through links or not. Where the file is gone the code server only knows whence it has loaded it.
  defp loads?(%{move: :here}), do: true

  defp loads?(file) do
    case LoadedCode.path(file.module) do
      {_have, path} when is_binary(path) -> FileMark.real(path) == FileMark.real(file.target)
      :none -> String.to_charlist(Path.dirname(file.target)) in :code.get_path()
      _elsewhere -> false
    end
  end

  # The boot script has loaded them while files that they read then were those of a set that was
  # not decided; by now these are what they were.
  defp again(intents) do
    for %{files: files} <- intents,
        %{alone?: true, target: target} <- files,
        {:ok, module} <- [LoadedCode.module(Path.basename(target, ".beam"))],
        :erlang.module_loaded(module),
        {:ok, bytes} <- [File.read(target)] do
      unload(module)
      load_alone(module, FileName.to_charlist(target), bytes)
    end

    :ok
  end

  # The modules of the patches, those of a set that this start has finished, and those that went back:
  # a rollback leaves no patch behind, but the boot script may have loaded what was still to go.
  defp touched(state, begun, back) do
    patched = for %{module: name} = file when name != nil <- Applied.net(state.stack), do: file
    known = MapSet.new(patched, & &1.target)

    finished =
      for %{files: files} <- begun,
          %{target: target, new: new} <- files,
          Path.extname(target) == ".beam",
          do: there(Path.basename(target, ".beam"), target, new)

    ended =
      for %{module: name} = file when name != nil <- back,
          do: there(name, file.real, file.old)

    # Of two the later is what is on disk.
    others = (finished ++ ended) |> Map.new(&{&1.target, &1}) |> Map.values()
    patched ++ Enum.reject(others, &(&1.target in known))
  end

  defp there(module, target, new),
    do: %{module: module, target: target, new: new, gone?: false, move: nil}

  # In embedded mode nothing is loaded on first use.
  defp wanted?(name) do
    LoadedCode.embedded?() or
      case LoadedCode.module(name) do
        {:ok, module} -> :erlang.module_loaded(module)
        :unknown -> false
      end
  end

  defp runs_other?(module, bytes) do
    case LoadedCode.facts(module) do
      nil -> true
      facts -> facts.md5 != :code.module_md5(bytes)
    end
  end

  # Nobody runs it yet.
  defp unload(module) do
    :code.purge(module)
    :code.delete(module)
  end

  defp load([]), do: :ok

  # One that runs code when it is loaded can only be loaded by a step of its own.
  defp load(modules) do
    for {module, _file, _bytes} <- modules, do: :code.soft_purge(module)
    result = :code.atomic_load(modules)

    case split(modules, result) do
      {_all, []} ->
        loaded(result, Enum.map(modules, &elem(&1, 0)))

      {together, alone} ->
        load(together)
        for {module, file, bytes} <- alone, do: load_alone(module, file, bytes)
        :ok
    end
  end

  defp split(modules, :ok), do: {modules, []}

  defp split(modules, {:error, reasons}),
    do: Enum.split_with(modules, &({elem(&1, 0), :on_load_not_allowed} not in reasons))

  defp load_alone(module, file, bytes),
    do: loaded(:code.load_binary(module, file, bytes), module)

  defp loaded(:ok, _what), do: :ok
  defp loaded({:module, _module}, _what), do: :ok

  defp loaded({:error, reason}, what),
    do: note_failure(:memory, {:error, "#{inspect(what)}: #{inspect(reason)}"})

  defp note_failure(_what, :ok), do: :ok

  defp note_failure(what, {:error, reason}) do
    Log.error(
      "HotPatch: start: #{what}: #{if is_binary(reason), do: reason, else: inspect(reason)}"
    )

    :ok
  end
end
