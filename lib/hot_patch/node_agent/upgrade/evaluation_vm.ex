defmodule HotPatch.NodeAgent.Upgrade.EvaluationVM do
  @moduledoc false
  # The VM in which configuration providers run: code of a release that nobody has applied yet. It has what a boot would
  # have, the environment of this node and the rights of its user, because what is computed is what that boot would make
  # of it. Else it is kept small:
  #
  #   * it is no node, and cannot become one by `Node.start/2`: it has no carrier for a distribution, and starts no epmd
  #   * its time is limited, by this node's clock and by its processor's; so is its memory, and that of what it starts
  #   * it ends with this node, whose end of its input it sees, and with whoever has asked
  #   * what it has started, and has not ended, is ended with it: it carries a mark in its environment

  alias HotPatch.Host.Emulator
  alias HotPatch.Support.Hex

  # Bytes of memory, and of what it says that are kept.
  @memory 1024 * 1024 * 1024
  @said 2_000

  @mark "HOT_PATCH_EVALUATION"
  @looks 100

  # There is no module `hot_patch_none_dist`.
  @no_node ~w(-proto_dist hot_patch_none -start_epmd false)

  # $1 is kilobytes of memory, $2 seconds of processor time; what follows is the command. Memory is limited as data, not as
  # address space, of which an emulator reserves a great deal that it never touches.
  @limited ~S"""
  ulimit -c 0; ulimit -d "$1" || exit 119; ulimit -t "$2" || exit 119; shift 2; exec "$@"
  """
  @no_limits 119

  @doc "Runs one with these arguments until it ends by itself, for so many milliseconds at most."
  @spec run([String.t()], pos_integer()) :: :ok | {:error, String.t()}
  def run(arguments, within) do
    with {:ok, shell} <- shell(),
         {:ok, emulator, environment} <- emulator() do
      mark = Hex.random()
      environment = [{String.to_charlist(@mark), String.to_charlist(mark)} | environment]
      limits = [Integer.to_string(div(@memory, 1024)), Integer.to_string(seconds(within))]
      command = [emulator | @no_node] ++ arguments
      arguments = ["-c", @limited, "sh" | limits] ++ command

      try do
        ended(shell, [args: arguments, env: environment], within)
      after
        end_all(mark)
      end
    end
  end

  # Several schedulers count together.
  defp seconds(within), do: 2 * div(within + 999, 1_000)

  defp shell do
    case System.find_executable("sh") do
      nil ->
        {:error,
         "there is no sh on the PATH, with which the VM that evaluates configurations is limited"}

      path ->
        {:ok, path}
    end
  end

  defp emulator do
    with {:error, text} <- Emulator.find(),
         do: {:error, text <> " that could evaluate configurations"}
  end

  defp ended(shell, options, within) do
    options = [:binary, :exit_status, :hide, :stderr_to_stdout | options]
    port = Port.open({:spawn_executable, shell}, options)
    await(port, "", {System.monotonic_time(:millisecond) + within, within})
  end

  # Of much that it says the end tells most.
  defp last_of(said) do
    size = byte_size(said)
    if size > @said, do: binary_part(said, size - @said, @said), else: said
  end

  defp await(port, said, {deadline, within}) do
    receive do
      {^port, {:data, more}} ->
        await(port, last_of(said <> more), {deadline, within})

      {^port, {:exit_status, 0}} ->
        :ok

      {^port, {:exit_status, @no_limits}} ->
        {:error,
         "memory or processor time of the VM that evaluates configurations could not be limited by ulimit"}

      {^port, {:exit_status, status}} ->
        {:error, "the VM that evaluates configurations #{status(status)}: #{said}"}

      :asker_gone ->
        {:error, "nobody waits for it any more"}
    after
      max(deadline - System.monotonic_time(:millisecond), 0) ->
        {:error, "the configuration was not evaluated within #{within} ms"}
    end
  end

  defp status(status) when status > 128, do: "was ended by signal #{status - 128}"
  defp status(status), do: "ended with exit status #{status}"

  # The VM itself, where it goes on, and what it has started: a child of its own session is nobody's by its number, but it
  # has our mark. Where no /proc tells, the VM sees the end of its input. One may have started another after the look:
  # so it is looked until there is none, but not for ever, as what the kernel holds is not to be ended.
  defp end_all(mark, looks \\ @looks)
  defp end_all(_mark, 0), do: :ok

  defp end_all(mark, looks) do
    case marked("#{@mark}=#{mark}") do
      [] ->
        :ok

      numbers ->
        _ = System.cmd("kill", ["-KILL" | numbers], stderr_to_stdout: true)
        end_all(mark, looks - 1)
    end
  end

  defp marked(wanted) do
    for {:ok, names} <- [File.ls("/proc")],
        name <- names,
        name =~ ~r/\A[0-9]+\z/,
        {:ok, environment} <- [File.read("/proc/#{name}/environ")],
        wanted in String.split(environment, <<0>>),
        do: name
  end
end
