defmodule HotPatch.NodeAgent.Upgrade.Configuration do
  @moduledoc false
  # What an upgrade changes in the environments of applications: the configuration of the release that comes against
  # that of the one that runs, each as its own boot makes it (HotPatch.NodeAgent.Upgrade.Evaluation). A key
  # that is the same in both stays as it is now, whoever has set it.

  alias HotPatch.NodeAgent.BootScript
  alias HotPatch.NodeAgent.Environment
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.Evaluation
  alias HotPatch.NodeAgent.Upgrade.EvaluationVM
  alias HotPatch.Store
  alias HotPatch.Support.Cause
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder
  alias HotPatch.Support.Isolated

  # Milliseconds that providers of both releases may take; a boot that waits longer is none to wait for.
  @within 60_000

  @typedoc "The configurations of both releases."
  @type t :: %{former: Evaluation.configuration(), new: Evaluation.configuration()}

  @doc """
  Both configurations. `entries` are the files of the release that comes, which need not be on disk yet: it is
  evaluated in a folder in which the rest is what this node has. That is done by a process of its own, so that folder and
  VM go also where whoever asks is ended.
  """
  @spec evaluate(Course.t(), [HotPatch.Composition.Entry.t()], pos_integer()) ::
          {:ok, t()} | {:error, String.t()}
  def evaluate(course, entries, within \\ @within) do
    asker = self()

    evaluated =
      Isolated.run(
        fn ->
          watched = self()
          _ = spawn(fn -> tell_of_end(asker, watched) end)
          evaluate_here(course, entries, within)
        end,
        :infinity
      )

    case evaluated do
      {:ok, result} ->
        result

      {:died, reason} ->
        {:error, "the configuration cannot be evaluated: #{Cause.of_exit(reason)}"}
    end
  end

  defp tell_of_end(asker, evaluating) do
    [asker, evaluating] = for pid <- [asker, evaluating], do: {pid, Process.monitor(pid)}

    receive do
      {:DOWN, monitor, :process, _pid, _reason} ->
        if monitor == elem(asker, 1), do: send(elem(evaluating, 0), :asker_gone)
    end
  end

  defp evaluate_here(course, entries, within) do
    folder = Store.directory() |> Path.join("upgrade") |> Store.temporary()

    try do
      new = Path.join(folder, "root")

      with :ok <- lay_out(course, entries, new),
           {:ok, [former, new]} <- ask(sides(course, new), folder, within) do
        both(former, new, course)
      end
    after
      File.rm_rf(folder)
    end
  end

  defp both({:ok, former}, {:ok, new}, _course), do: {:ok, %{former: former, new: new}}

  defp both(_former, {:error, text}, course),
    do:
      {:error,
       "the configuration of #{elem(course.to, 1)} cannot be evaluated, and its boot would fail: #{text}"}

  # What it was booted with it has read then.
  defp both({:error, text}, _new, course) do
    {:error,
     "the configuration of #{elem(course.from, 1)}, which runs, cannot be evaluated any more, so that it is not known " <>
       "what changes: #{text}"}
  end

  defp sides(course, new) do
    [
      %{
        root: course.root,
        stands_for: course.root,
        version: elem(course.from, 1),
        resources:
          for(
            %{former: former} when former != nil <- course.applications,
            do: resource(course.root, former)
          )
      },
      %{
        root: new,
        stands_for: course.root,
        version: elem(course.to, 1),
        resources: for(%{new: own} when own != nil <- course.applications, do: resource(new, own))
      }
    ]
  end

  defp resource(root, folder) do
    [name | _vsn] = folder |> Path.basename() |> String.split("-")
    Path.join([root, folder, "ebin", name <> ".app"])
  end

  # Links to what is there, and the files that come.
  defp lay_out(course, entries, root) do
    new = for %{new: own} when own != nil <- course.applications, do: own
    release = Path.join("releases", elem(course.to, 1))

    with :ok <- make(Path.join(root, "lib")),
         :ok <- make(Path.join(root, "releases")) do
      for kind <- ["lib", "releases"],
          {:ok, names} <- [File.ls(Path.join(course.root, kind))],
          name <- names,
          path = Path.join(kind, name),
          path not in [release | new],
          do: _ = File.ln_s(Path.join(course.root, path), Path.join(root, path))

      each(entries, fn entry ->
        path = Path.join(root, entry.path)

        with :ok <- make(Path.dirname(path)),
             do: wrote(path, Store.write_private(path, entry.bytes))
      end)
    end
  end

  # What comes may be secret, and so may be what becomes of it.
  defp make(folder), do: wrote(folder, Store.make_folder(folder))

  defp wrote(_path, :ok), do: :ok

  defp wrote(path, {:error, posix}),
    do: {:error, "cannot write #{path}: #{:file.format_error(posix)}"}

  defp each(items, fun) do
    Enum.reduce_while(items, :ok, fn item, :ok ->
      case fun.(item) do
        :ok -> {:cont, :ok}
        error -> {:halt, error}
      end
    end)
  end

  defp ask(sides, folder, within) do
    request = Path.join(folder, "request")
    answer = Path.join(folder, "answer")

    with :ok <- wrote(request, Store.write_private(request, :erlang.term_to_binary(sides))),
         :ok <- wrote(answer, Store.write_private(answer, "")),
         {:ok, boot} <- boot(hd(sides), folder),
         :ok <- EvaluationVM.run(arguments(sides, boot, [request, answer]), within),
         {:ok, bytes} <- File.read(answer) do
      # Written by our own function: names and values are binaries in it, and no atom is made.
      {:ok, :erlang.binary_to_term(bytes, [:safe])}
    else
      {:error, text} when is_binary(text) ->
        {:error, text}

      {:error, posix} ->
        {:error, "the VM that evaluates configurations has left no answer: #{posix}"}
    end
  end

  defp arguments([former, new], boot, files) do
    ebins = for one <- Folder.folders(Path.join(new.root, "lib")), do: Path.join(one, "ebin")
    others = for folder <- :code.get_path(), folder != ~c".", do: FileName.to_binary(folder)

    ["-noinput", "-boot", boot] ++
      variables() ++
      ["-boot_var", "RELEASE_LIB", Path.join(former.root, "lib"), "-pa"] ++
      others ++
      ebins ++
      ["-s", Atom.to_string(Evaluation), "main", "-extra" | files]
  end

  # By which a boot script names its folders: a release without an ERTS has them for those of OTP.
  defp variables do
    case :init.get_argument(:boot_var) do
      {:ok, lists} ->
        for list <- lists,
            [name, value] <- Enum.chunk_every(list, 2),
            one <- ["-boot_var", name, value],
            do: FileName.to_binary(one)

      :error ->
        []
    end
  end

  # One that starts nothing of the system: of the release, or of OTP; else made of the one that this VM has.
  defp boot(former, folder) do
    root = FileName.to_binary(:code.root_dir())

    [
      Path.join([former.root, "releases", former.version, "start_clean"]),
      Path.join([former.root, "bin", "start_clean"]),
      Path.join([root, "bin", "start_clean"]),
      Path.join([root, "bin", "no_dot_erlang"])
    ]
    |> Enum.find(&File.regular?(&1 <> ".boot"))
    |> case do
      nil -> own_boot(Path.join(folder, "clean"))
      boot -> {:ok, boot}
    end
  end

  defp own_boot(path) do
    file = path <> ".boot"

    with {:ok, bytes} <- BootScript.clean(),
         :ok <- wrote(file, File.write(file, bytes)) do
      {:ok, path}
    else
      :error -> {:error, "there is no boot script for a VM that could evaluate configurations"}
      error -> error
    end
  end

  @doc "What changes, by keys; the values are as they came, and no atom is made of a name."
  @spec foresee(t()) :: [Environment.foreseen()]
  def foresee(%{former: former, new: new}) do
    for application <- Enum.uniq(Map.keys(former) ++ Map.keys(new)),
        known = known(application),
        Application.spec(known) != nil,
        one <-
          differences(known, Map.get(former, application, %{}), Map.get(new, application, %{})),
        do: one
  end

  defp differences(application, former, new) do
    for key <- Enum.sort(Enum.uniq(Map.keys(former) ++ Map.keys(new))),
        former[key] != new[key],
        do: %{
          application: application,
          key: known(key) || key,
          base: :none,
          new: if(is_map_key(new, key), do: {:etf, new[key]}, else: :gone)
        }
  end

  defp known(name) do
    String.to_existing_atom(name)
  rescue
    ArgumentError -> nil
  end

  @doc "A configuration as a `sys.config` has it, of an upgrade that is accepted."
  @spec accepted(Evaluation.configuration()) :: keyword()
  def accepted(configuration) do
    for {application, environment} <- configuration do
      {:erlang.binary_to_atom(application),
       for(
         {key, value} <- environment,
         do: {:erlang.binary_to_atom(key), :erlang.binary_to_term(value)}
       )}
    end
  end
end
