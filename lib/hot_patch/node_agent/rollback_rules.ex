defmodule HotPatch.NodeAgent.RollbackRules do
  @moduledoc false
  # Judges the way back: the files of a patch that was applied on this node, each to what it
  # was before. All of it comes from this node's own store, so nothing is validated but that
  # it is still what was put there, and that nobody else has changed the files since.

  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.InstructionRunner.Children
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadRules
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.PreviousCode
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Swap

  @doc "The way back from one patch."
  @spec of_record(Applied.t(), Payload.t()) :: [Verdict.t()]
  def of_record(record, payload) do
    disk? = not Applied.memory_only?(record)
    for {_file, verdict} <- judge_all(record.files, payload, disk?), do: verdict
  end

  @doc """
  For a patch that takes the place of all before it: the way back for what those have
  changed and it does not.
  """
  @spec of_others([Verdict.t()], Payload.t()) :: [Verdict.t()]
  def of_others(verdicts, payload) do
    own = MapSet.new(verdicts, & &1.target)

    Applied.list()
    |> Applied.net()
    |> Enum.reject(&(&1.target in own))
    # One of them has taken back already what another has changed. A module that is out of memory
    # while its file is there for the boot script is not back.
    |> Enum.reject(&(&1.old == &1.new and not &1.gone?))
    |> judge_all(payload, payload.disk == :replace)
    |> Enum.map(fn {file, verdict} -> %{verdict | ran: ran(file, payload)} end)
  end

  @doc """
  For an upgrade: the way back for what patches have changed in folders that both of its releases have. `common?` tells
  which files are in one. Patches end with the release that they are for, on disk and in memory.
  """
  @spec of_common((Path.t() -> boolean()), Payload.t()) :: [Verdict.t()]
  def of_common(common?, payload) do
    for {file, verdict} <- common? |> patched() |> judge_all(payload, true) do
      %{ends(verdict, file) | ran: ran(file, payload), common?: true}
    end
  end

  # Of what is in memory only the file is as it was, or as patches on disk have left it.
  defp patched(common?) do
    stack = Applied.list()

    disk =
      for file <- stack |> Applied.on_disk() |> Applied.net(), into: %{}, do: {file.target, file}

    for file <- Applied.net(stack),
        common?.(file.target),
        file.old != file.new or file.gone?,
        do: Map.merge(file, on_disk(disk[file.target], file))
  end

  defp on_disk(nil, file), do: %{new: file.old}
  defp on_disk(file, _last), do: Map.take(file, [:old, :new, :folders, :rights])

  defp ends(%Verdict{reason: nil} = verdict, file),
    do: %{
      verdict
      | reason: "it goes back to what it was before #{file.id}, which ends with the release"
    }

  defp ends(verdict, _file), do: verdict

  @doc "The way back of the same: what the patches had made of these files comes again."
  @spec again(Applied.t(), Payload.t()) :: [Verdict.t()]
  def again(record, payload) do
    for {_file, verdict} <- judge_all(record.files, payload, true), do: come_again(verdict)
  end

  # A state goes on to the patch's version, as it did when that was applied, by the code that comes.
  defp come_again(%Verdict{change: :replace, entry: %{bytes: bytes} = entry} = verdict)
       when bytes != nil do
    beam = %{entry.beam | exports: exports(bytes)}
    %{verdict | direction: :up, entry: %{entry | beam: beam}, common?: true}
  end

  defp come_again(verdict), do: %{verdict | common?: true}

  defp exports(bytes) do
    {:ok, {_module, [exports: exports]}} = :beam_lib.chunks(bytes, [:exports])
    for {name, arity} <- exports, do: {Atom.to_string(name), arity}
  end

  # Its own rollback brings back what those patches have left.
  defp ran(%{module: nil}, _payload), do: :file

  defp ran(file, payload) do
    case LoadedCode.module(file.module) do
      {:ok, module} -> PreviousCode.find(module, file.target, false, payload.patch)
      :unknown -> :file
    end
  end

  @doc "A file of the store as if it came from an archive; without bytes it is to go."
  @spec entry(
          %{
            :path => Path.t(),
            :module => String.t() | nil,
            :alone? => boolean(),
            optional(atom()) => term()
          },
          binary() | nil
        ) :: Entry.t()
  def entry(file, bytes) do
    %Entry{
      path: file.path,
      size: byte_size(bytes || ""),
      crc32: :erlang.crc32(bytes || ""),
      sha256: :crypto.hash(:sha256, bytes || ""),
      bytes: bytes,
      kind: if(file.module, do: :beam, else: :other),
      beam: if(file.module, do: beam(file, bytes))
    }
  end

  # What runs of a module that has moved is what came to its new place.
  defp judge_all(files, payload, disk?) do
    runs = for %{move: :here, module: name} = file <- files, into: %{}, do: {name, brought(file)}

    for file <- files do
      file = Map.put(file, :runs, runs[file.module] || brought(file))
      {file, judge(file, payload, disk?)}
    end
  end

  # Where only memory goes back, files are none of its business.
  defp judge(file, payload, disk?) do
    with :ok <- if(disk?, do: untouched(file), else: :ok),
         {:ok, bytes} <- former(file),
         {:ok, code} <- former_code(file, bytes) do
      verdict = file |> entry(code) |> judge_entry(file, payload)
      disk = if code == bytes, do: verdict.disk, else: {:bytes, bytes}
      %{verdict | folders: file.folders, disk: disk, rights: file.rights}
    else
      {:error, reason} -> Verdict.new(entry(file, nil), :error, reason)
    end
  end

  # It goes from where it came to, and is loaded from where it was.
  defp judge_entry(entry, %{move: :here} = file, _payload) do
    reason = "the module moves back, and this file #{goes(file)}"
    %{Verdict.new(entry, :ok, reason, file.target) | move: :away}
  end

  # Before the patch it was out of memory, and its file there for the boot script.
  defp judge_entry(%Entry{bytes: bytes}, %{returned?: true} = file, payload) when bytes != nil do
    verdict = file |> entry(nil) |> judge_entry(%{file | returned?: false, old: nil}, payload)
    %{verdict | disk: {:bytes, bytes}}
  end

  defp judge_entry(%Entry{kind: :other} = entry, file, _payload) do
    what = if entry.bytes, do: "goes back to what it was", else: "is removed again"
    Verdict.carried(entry, "no Erlang module: #{file.target} #{what}", file.target)
  end

  defp judge_entry(%Entry{beam: beam} = entry, file, payload) do
    with {:change, change} <- wanted(file, beam),
         :ok <- unused(change, file, payload),
         :ok <- LoadRules.check(beam, payload) do
      %Verdict{
        entry: entry,
        status: :ok,
        reason: remark(file, change),
        target: file.target,
        change: change,
        direction: if(change == :add, do: :up, else: :down),
        alone?: file.alone?,
        convert?: file.convert?,
        callback_mode: file.callback_mode,
        move: if(file.move == :away, do: :here),
        returns?: file.gone?
      }
    else
      {:transient, reason} ->
        %{Verdict.new(entry, :not_updated, reason, file.target) | transient?: true}

      {status, reason} ->
        Verdict.new(entry, status, reason, file.target)
    end
  end

  # Of what runs, only what this patch has brought is taken back.
  defp wanted(file, beam) do
    with {:ok, module} <- LoadedCode.module(file.module),
         %{} = facts <- LoadedCode.facts(module) do
      cond do
        file.move == nil and LoadedCode.same?(facts, beam.md5, beam.vsn) -> {:not_changed, nil}
        # Nothing but a restart would have made the patch's version current.
        file.ran == {:lost, facts.md5} -> {:not_changed, nil}
        facts.md5 != file.runs -> {:error, foreign(file)}
        beam.md5 == nil -> {:change, :delete}
        true -> {:change, :replace}
      end
    else
      # Taken out by the patch, as one that replaces others does.
      _ when (file.new == nil and file.old != nil) or file.gone? -> {:change, :add}
      _ -> {:not_loaded, "it does not run here; its file #{goes(file)}"}
    end
  end

  defp remark(%{ran: {:lost, _md5}}, :replace),
    do: "what ran before the patch is kept nowhere: the version of its file becomes current"

  defp remark(_file, _change), do: nil

  defp goes(%{old: nil}), do: "is removed again"
  defp goes(_file), do: "goes back to what it was"

  defp foreign(file) do
    "#{file.module} runs in a version that neither is what the patch brought nor what was there " <>
      "before it: somebody has loaded it by hand, see HotPatch.drift/0"
  end

  @doc "Whoever has a module for its callback cannot live without it."
  @spec unused(atom(), %{:module => String.t() | nil, optional(atom()) => term()}, Payload.t()) ::
          :ok | {:transient, String.t()}
  def unused(:delete, file, %{purge: :soft} = payload) do
    {:ok, module} = LoadedCode.module(file.module)
    users = Enum.reject(Swap.users(module), &stops?(&1, Instructions.stopping(payload)))

    case users -- Children.about_to_stop(users, Instructions.supervisors(payload)) do
      [] ->
        :ok

      pids ->
        {:transient,
         "#{file.module} is to go, and processes work for it: " <>
           "#{Enum.map_join(Enum.take(pids, 5), ", ", &inspect/1)}#{if length(pids) > 5, do: " and #{length(pids) - 5} more"}; " <>
           "stop them first, or do it with purge: :force, which kills them"}
    end
  end

  def unused(_change, _file, _payload), do: :ok

  # With its application, before the pause.
  defp stops?(_pid, []), do: false

  defp stops?(pid, applications) do
    case :application.get_application(pid) do
      {:ok, application} -> Atom.to_string(application) in applications
      :undefined -> false
    end
  end

  # Somebody else's file is nobody's to overwrite.
  defp untouched(file) do
    if Store.Transaction.digest(file.target) in [file.new, file.old] do
      :ok
    else
      {:error,
       "#{file.target} is neither what the patch has put there nor what was there before: it was " <>
         "changed by something else since; put the right file back, or install the release again"}
    end
  end

  defp former(%{old: nil}), do: {:ok, nil}

  defp former(file) do
    with what when is_atom(what) <- Blobs.fetch(Store.blobs(), file.old) do
      {:error, "what #{file.target} was before is #{what} in #{Store.blobs()}: it cannot go back"}
    end
  end

  # Memory had other code than the disk when the patch came: each goes back to its own.
  defp former_code(%{ran: digest} = file, _bytes) when is_binary(digest) do
    with what when is_atom(what) <- Blobs.fetch(Store.blobs(), digest) do
      {:error,
       "the code that ran for #{file.module} before is #{what} in #{Store.blobs()}: it cannot come back"}
    end
  end

  defp former_code(_as_on_disk_or_lost, bytes), do: {:ok, bytes}

  # The digest of the code that the patch has brought; records of earlier versions do not have it.
  defp brought(%{md5: md5}) when md5 != nil, do: md5
  defp brought(%{new: nil}), do: nil

  defp brought(%{new: digest}) do
    case Blobs.fetch(Store.blobs(), digest) do
      {:ok, bytes} -> :code.module_md5(bytes)
      _gone -> nil
    end
  end

  # It ran on this node, so this node's beam_lib can read it.
  defp beam(file, bytes) do
    vsn = bytes && :beam_lib.chunks(bytes, [:attributes])

    %{
      module: file.module,
      md5: bytes && :code.module_md5(bytes),
      vsn: with({:ok, {_module, [attributes: list]}} <- vsn, do: etf(list[:vsn])),
      attributes: "",
      exports: [],
      imports: [],
      behaviours: [],
      chunks: [],
      on_load: file.alone?,
      load_nif: false,
      needs_otp: nil,
      compiler: nil,
      compressed: false,
      load: nil
    }
  end

  defp etf(nil), do: nil
  defp etf(vsn), do: :erlang.term_to_binary(vsn)
end
