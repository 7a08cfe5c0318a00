defmodule HotPatch.Store.Lock.Owner do
  @moduledoc false
  # Who holds a lock, as a line of text, and whether that one still lives.
  #
  # An OS process is told by its pid, its start time, and the boot of the host: pids are used
  # again, and start times count from the boot. The processes of one VM are told by a token
  # in their dictionary, which a later process with the same pid does not have.
  #
  # What cannot be found out counts as living: a lock that stays is better than two holders.
  # All owners must see each other's pids: not so those in different containers, or those of
  # different users where /proc shows each user only its own.

  @enforce_keys [:token, :text]
  defstruct [:token, :text]

  @type t :: %__MODULE__{token: String.t(), text: String.t()}

  @unknown "-"
  @pattern ~r/\Apid=(\d+) start=(\S+) boot=(\S+) process=(<0\.\d+\.\d+>) token=(\S+) node=.*\n\z/s

  @doc "Makes the calling process an owner, until `forget/1` or its end."
  @spec new() :: t()
  def new do
    token = Base.encode16(:crypto.strong_rand_bytes(8))
    Process.put({__MODULE__, token}, true)
    pid = System.pid()

    %__MODULE__{
      token: token,
      text:
        "pid=#{pid} start=#{started(pid) || @unknown} boot=#{boot()} " <>
          "process=#{:erlang.pid_to_list(self())} token=#{token} node=#{node()}\n"
    }
  end

  @doc "The calling process is this owner no longer."
  @spec forget(t()) :: :ok
  def forget(%__MODULE__{token: token}) do
    _ = Process.delete({__MODULE__, token})
    :ok
  end

  @doc """
  Whether the owner of this text lives. Text that is not from here was put there on purpose
  and is respected; none at all is what a power cut leaves of a file.
  """
  @spec lives?(binary()) :: boolean()
  def lives?(text) do
    case Regex.run(@pattern, text, capture: :all_but_first) do
      [pid, start, boot, process, token] ->
        same?(boot, boot()) and same?(start, started(pid)) and
          (pid != System.pid() or holds?(process, token))

      nil ->
        String.trim(text, <<0>>) != ""
    end
  end

  @doc "When an OS process was started, in whatever unit; `nil` if there is none, or it is dead."
  @spec started(String.t()) :: String.t() | nil
  def started(pid) do
    if File.exists?("/proc/self/stat"), do: started_by_proc(pid), else: started_by_ps(pid)
  end

  @doc "As `started/1`, where there is no /proc."
  @spec started_by_ps(String.t()) :: String.t() | nil
  def started_by_ps(pid) do
    case {ps(pid), ps(System.pid())} do
      # It does not even show this VM: it is of no use.
      {_, ""} -> @unknown
      {"", _} -> nil
      {start, _} -> start
    end
  end

  defp started_by_proc(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, stat} ->
        # The name before these fields is in brackets, and may contain some itself.
        [state | fields] = stat |> String.split(")") |> List.last() |> String.split()
        # A process that was killed stays as a zombie until its parent asks for it.
        if state in ["Z", "X", "x"], do: nil, else: Enum.at(fields, 18)

      {:error, posix} when posix in [:enoent, :esrch] ->
        nil

      {:error, _posix} ->
        @unknown
    end
  end

  defp ps(pid) do
    options = [stderr_to_stdout: true, env: [{"LC_ALL", "C"}, {"TZ", "UTC"}]]

    case System.cmd("ps", ["-o", "lstart=", "-p", pid], options) do
      {start, 0} -> start |> String.split() |> Enum.join("_")
      _ -> ""
    end
  rescue
    ErlangError -> ""
  end

  defp boot do
    case File.read("/proc/sys/kernel/random/boot_id") do
      {:ok, id} -> String.trim(id)
      {:error, _posix} -> @unknown
    end
  end

  defp same?(_noted, nil), do: false
  defp same?(noted, now), do: noted == now or @unknown in [noted, now]

  defp holds?(process, token) do
    case Process.info(:erlang.list_to_pid(String.to_charlist(process)), :dictionary) do
      {:dictionary, dictionary} -> List.keymember?(dictionary, {__MODULE__, token}, 0)
      nil -> false
    end
  rescue
    # No pid of this VM.
    ArgumentError -> false
  end
end
