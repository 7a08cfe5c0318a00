defmodule HotPatch.LoaderVM.Program do
  @moduledoc false
  # A VM of its own with nothing in it but a loader: how it is started, what is said to it, and
  # how it ends.
  #
  # It is the emulator of this node's own ERTS, so that its loader is this node's loader. It
  # boots from a script that is written for it and that holds the little code it needs: no
  # kernel, no stdlib, no distribution, no file of the host. Its memory, its processor time and
  # its core dumps are limited by the shell's `ulimit` before it starts.
  #
  # The protocol is one encoded term a frame of {packet, 4}. It begins with `:ready`. To
  # `{:module, name, bytes}` it answers `:prepared` or `{:refused, reason}`, to `:finish`
  # `:finished` or `{:unfinished, reason}`. It ends when its input ends.

  alias HotPatch.Host.Emulator
  alias HotPatch.LoaderVM.BootScript

  @enforce_keys [:port, :shell, :os_pid]
  defstruct [:port, :shell, :os_pid]

  @type t :: %__MODULE__{port: port(), shell: Path.t(), os_pid: non_neg_integer() | nil}

  # One scheduler of each kind is enough, and they need not wait for work by spinning.
  @flags ~w(-noinput -noshell +S 1:1 +SDcpu 1:1 +SDio 1 +A 1 +sbwt none)

  # $1 is kilobytes of memory, $2 seconds of processor time; what follows is the command.
  # Memory is limited as data, not as address space, of which an emulator reserves a great deal
  # that it never touches.
  @limited ~S"""
  ulimit -c 0; ulimit -d "$1" || exit 119; ulimit -t "$2" || exit 119; shift 2; exec "$@" 2>/dev/null
  """
  @no_limits 119

  # How long an emulator may take until it is ready. It is 0.1 s where nothing else is going on.
  @start_within 30_000

  @doc """
  Starts the VM, with so many bytes of memory and so many seconds of processor time. An error
  says why this machine cannot have one: no module was put before it yet.
  """
  @spec start(pos_integer(), pos_integer()) :: {:ok, t()} | {:error, String.t()}
  def start(memory, seconds) do
    with {:ok, shell} <- shell(),
         {:ok, emulator, environment} <- Emulator.find(),
         {:ok, folder} <- boot_folder() do
      limits = [Integer.to_string(div(memory, 1024)), Integer.to_string(seconds)]
      command = [emulator, "-boot", Path.join(folder, "loader") | @flags]
      options = [args: ["-c", @limited, "sh" | limits] ++ command, env: environment, cd: "/"]

      result = with {:ok, program} <- open(shell, options), do: ready(program)
      # The script was read when the VM said that it is ready.
      _ = File.rm_rf(folder)
      result
    end
  end

  defp open(shell, options) do
    options = [:binary, :exit_status, :hide, {:packet, 4} | options]
    port = Port.open({:spawn_executable, shell}, options)
    {:ok, %__MODULE__{port: port, shell: shell, os_pid: os_pid(port)}}
  rescue
    error in [ErlangError, SystemLimitError] ->
      {:error, "#{shell} cannot be started (#{Exception.message(error)})"}
  end

  defp ready(program) do
    case answer(program, System.monotonic_time(:millisecond) + @start_within) do
      {:ok, :ready} ->
        {:ok, program}

      {:ended, how} ->
        stop(program)
        {:error, "the emulator that was started for it #{how}"}

      _late_or_nonsense ->
        stop(program)
        {:error, "the emulator that was started for it was not ready within #{@start_within} ms"}
    end
  end

  defp os_pid(port) do
    case Port.info(port, :os_pid) do
      {:os_pid, os_pid} -> os_pid
      nil -> nil
    end
  end

  defp shell do
    case System.find_executable("sh") do
      nil -> {:error, "there is no sh on the PATH"}
      path -> {:ok, path}
    end
  end

  # A file of this trial alone, in a folder that nobody else can write to.
  defp boot_folder do
    name = "hot_patch_loader-" <> Base.encode16(:crypto.strong_rand_bytes(8))
    folder = Path.join(System.tmp_dir() || ".", name)

    with {:ok, script} <- BootScript.make(),
         :ok <- File.mkdir(folder),
         :ok <- File.chmod(folder, 0o700),
         :ok <- File.write(Path.join(folder, "loader.boot"), script) do
      {:ok, folder}
    else
      {:error, posix} when is_atom(posix) ->
        _ = File.rm_rf(folder)
        {:error, "#{folder} cannot be written (#{:file.format_error(posix)})"}

      {:error, text} ->
        {:error, text}
    end
  end

  @doc "Sends a request."
  @spec send(t(), tuple() | atom()) :: :ok | :closed
  def send(%__MODULE__{port: port}, request) do
    true = Port.command(port, :erlang.term_to_iovec(request))
    :ok
  rescue
    # It has ended; the message about it is on its way.
    ArgumentError -> :closed
  end

  @doc "Waits for the next answer until an instant of the monotonic clock (milliseconds)."
  @spec answer(t(), integer()) :: {:ok, term()} | {:ended, String.t()} | :late
  def answer(%__MODULE__{port: port}, deadline) do
    receive do
      {^port, {:data, frame}} -> {:ok, decode(frame)}
      {^port, {:exit_status, status}} -> {:ended, ended(status)}
      {:EXIT, ^port, reason} when reason != :normal -> {:ended, inspect(reason)}
    after
      max(deadline - System.monotonic_time(:millisecond), 0) -> :late
    end
  end

  # Its loader has read hostile bytes: what it says is not trusted to be well-formed.
  defp decode(frame) do
    :erlang.binary_to_term(frame, [:safe])
  rescue
    ArgumentError -> :nonsense
  end

  defp ended(@no_limits), do: "its memory or its processor time could not be limited by ulimit"
  defp ended(status) when status > 128, do: "ended by signal #{status - 128}"
  defp ended(status), do: "ended with exit status #{status}"

  @doc "Ends the VM, however busy it is."
  @spec stop(t()) :: :ok
  def stop(%__MODULE__{port: port} = program) do
    kill(program)

    try do
      Port.close(port)
    rescue
      # It has ended already.
      ArgumentError -> true
    end

    flush(port)
  end

  # A loader in an endless loop does not see that its input has ended. Only while the port is
  # open is its number sure to be that of our program.
  defp kill(%{os_pid: nil}), do: :ok

  defp kill(%{port: port, shell: shell, os_pid: os_pid}) do
    _ =
      if Port.info(port) != nil,
        do: System.cmd(shell, ["-c", "kill -KILL #{os_pid}"], stderr_to_stdout: true)

    :ok
  end

  defp flush(port) do
    receive do
      {^port, _message} -> flush(port)
      {:EXIT, ^port, _reason} -> flush(port)
    after
      0 -> :ok
    end
  end
end
