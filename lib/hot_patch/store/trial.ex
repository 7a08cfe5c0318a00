defmodule HotPatch.Store.Trial do
  @moduledoc false
  # A restart into another release is a trial until the node serves in that: what starts it next is switched before, and
  # who finds that it does not serve switches it back. Two may find that, this node itself and what heart has started it
  # with, so the record is renamed by whoever does: only one succeeds.
  #
  #   * `trial.record` - the trial that goes on
  #   * `trial.over` - one that was taken back, until the former release has started and said so
  #   * `trial.done` - the last one that went well: the way back from it
  #   * `restart.sh` - what heart runs in place of its own command, see `script/2`
  #
  # HotPatch of the release that is tried reads what that of the former one has written: its form is a plain map.

  alias HotPatch.Host.NextBoot
  alias HotPatch.Store
  alias HotPatch.Store.ReleaseFiles
  alias HotPatch.Support.FileName

  @typedoc """
  From which release to which, each with its ERTS as `start_erl.data` has it; by which operation. `command` is that of
  heart, where it is heart that starts the system. `starts` counts those of the new release. `seconds` is how long it
  may take to serve. `seq` and `rolled` are what is to be kept when it does (HotPatch.Store.Rolled); that of an earlier version has none.
  """
  @type t :: %{
          required(:root) => Path.t(),
          required(:from) => {erts :: String.t(), version :: String.t()},
          required(:to) => {erts :: String.t(), version :: String.t()},
          required(:command) => String.t() | nil,
          required(:starts) => non_neg_integer(),
          required(:seconds) => pos_integer(),
          required(:facts) => map(),
          optional(:seq) => pos_integer(),
          optional(:rolled) => HotPatch.Store.Rolled.t() | nil
        }

  @type failure :: {Path.t(), File.posix()}

  @doc "The trial that goes on, the last that was taken back and has not been told of, or the last that went well."
  @spec read(:record | :over | :done) :: t() | nil
  def read(which) do
    case Store.read_term(path(which)) do
      {:ok, %{root: _, from: _, to: _, command: _, starts: _, seconds: _, facts: _} = trial} ->
        trial

      _none_or_damaged ->
        nil
    end
  end

  @doc "Begins one: from here on the next start boots the other release."
  @spec begin(t()) :: :ok | {:error, failure()}
  def begin(trial) do
    {erts, version} = trial.to
    for former <- [:over, :done], do: _ = File.rm(path(former))

    # What starts next is switched last: without that nothing has begun.
    with :ok <- written(path(:record), Store.write_term(path(:record), trial)),
         :ok <- script(trial),
         :ok <- ReleaseFiles.boot(trial.root, erts, version) do
      :ok
    else
      {:error, failure} ->
        _ = File.rm(path(:record))
        {:error, failure}
    end
  end

  @doc "The other release has begun to start, once more; gives the trial with that."
  @spec started(t()) :: t()
  def started(trial) do
    trial = %{trial | starts: trial.starts + 1}
    _ = Store.write_term(path(:record), trial)
    trial
  end

  @doc "It went well."
  @spec done() :: :ok | {:error, failure()}
  def done, do: written(path(:record), File.rename(path(:record), path(:done)))

  @doc "Takes one back: the next start boots the release of before. `:lost` where somebody else has done so."
  @spec back(:record | :done) :: {:ok, t()} | :lost | {:error, failure()}
  def back(which) do
    with %{} = trial <- read(which),
         :ok <- File.rename(path(which), path(:over)),
         {erts, version} = trial.from,
         :ok <- ReleaseFiles.boot(trial.root, erts, version) do
      {:ok, trial}
    else
      {:error, {_path, _posix} = failure} -> {:error, failure}
      _gone -> :lost
    end
  end

  @doc "That one was taken back has been said, and need not be said again; whoever leads may still ask."
  @spec told(t()) :: :ok
  def told(trial) do
    _ = Store.write_term(path(:over), put_in(trial.facts[:told], true))
    :ok
  end

  @doc "What heart is to run: the script that begins the trial, or that ends one that has failed."
  @spec command(:begin | :back) :: String.t()
  def command(how), do: "/bin/sh #{quoted(path("restart.sh"))} #{how}"

  # What the VM that ends has inherited names its own release, and would lead the next start there.
  @named ~w(RELEASE_VSN RELEASE_SYS_CONFIG BINDIR ROOTDIR EMU PROGNAME)
  @paths ~w(RELEASE_VM_ARGS RELEASE_REMOTE_VM_ARGS)

  @doc "The variables of the environment that belong to the release that runs, and not to whoever has started it."
  @spec variables(Path.t()) :: [String.t()]
  def variables(root) do
    folder = Path.join(root, "releases") <> "/"

    @named ++
      for name <- @paths,
          value = System.get_env(name),
          value != nil and String.starts_with?(value, folder),
          do: name
  end

  # Where relx has made the release, its start script is a copy of that of the version.
  defp scripts_back(root, version) do
    for {script, %{^version => own}} <- NextBoot.scripts(root), into: "" do
      new = quoted("#{script}.back")
      "    cp -p #{quoted(own)} #{new} && mv -f #{new} #{quoted(script)}\n"
    end
  end

  defp script(%{command: nil}), do: :ok

  # `begin` starts the other release, and a second process that looks whether it serves in time: until then the record is
  # there. Where it is not gone by then the VM is ended. Whoever finds the VM ended, its heart or that process, runs
  # `back`. The VM has the process number of the shell that has become it; that it still is the same tells its start time.
  defp script(trial) do
    {erts, version} = trial.from
    record = quoted(path(:record))
    data = quoted(NextBoot.start_data(trial.root))

    text = """
    #!/bin/sh
    # Written by HotPatch for a restart into another release, and of no use after it.
    # What heart has as its output leads to the VM that has ended.
    exec 1>&2
    unset #{Enum.join(variables(trial.root), " ")}
    age () { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
    if [ "$1" = back ]; then
      if mv #{record} #{quoted(path(:over))} 2>/dev/null; then
        printf '%s' #{quoted("#{erts} #{version}")} > #{data}.back && mv -f #{data}.back #{data}
    #{scripts_back(trial.root, version)}
      fi
      HEART_COMMAND=#{quoted(trial.command)}
      export HEART_COMMAND
      exec /bin/sh -c #{quoted(become(trial.command))}
    fi
    vm=$$
    born=$(age $vm)
    (
      left=#{trial.seconds}
      while [ -e #{record} ] && [ $left -gt 0 ]; do sleep 1; left=$((left - 1)); done
      [ -e #{record} ] || exit 0
      if [ -n "$born" ] && [ "$(age $vm)" = "$born" ] && kill -KILL $vm; then
        sleep 5
        [ -e #{record} ] || exit 0
      fi
      exec #{command(:back)}
    ) &
    HEART_COMMAND=#{quoted(command(:back))}
    export HEART_COMMAND
    exec /bin/sh -c #{quoted(become(trial.command))}
    """

    path = path("restart.sh")
    written(path, Store.write(path, text, 0o700))
  end

  # A plain command takes the place of the shell; what is more than that the shell has to read.
  defp become(command),
    do: if(command =~ ~r/\A\/[\w\/.@%:,+ -]*\z/, do: "exec " <> command, else: command)

  @spec quoted(String.t()) :: String.t()
  defp quoted(text), do: "'" <> String.replace(text, "'", "'\\''") <> "'"

  defp path(which) when is_atom(which), do: path("trial.#{which}")
  defp path(name), do: Path.join(FileName.to_binary(Store.directory()), name)

  defp written(_path, :ok), do: :ok
  defp written(path, {:error, posix}), do: {:error, {path, posix}}
end
