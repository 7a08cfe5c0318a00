defmodule HotPatch.Swap.Foreign.Release do
  @moduledoc false
  # Has a process go on that was sent a suspend and did not answer in time. OTP's loops handle the suspend
  # and then the resume behind it. A loop that takes all messages out of the mailbox before it handles the
  # first (p1_server does) has taken the resume out as well when it goes to sleep: it needs another.

  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.SysMessage

  # Milliseconds between two looks.
  @look_every 100

  @doc "Sees to it in a process of its own, however long it takes."
  @spec start(pid()) :: pid()
  def start(pid) do
    spawn(fn ->
      Guard.outlive_application()
      ref = SysMessage.open()
      SysMessage.send(pid, ref, :resume)
      until_answered(pid, ref)
    end)
  end

  # It has answered when it goes on, and all that it was sent before is behind it.
  defp until_answered(pid, ref) do
    case SysMessage.collect({ref, [pid]}, @look_every, nil, fn _, _, nil -> {:done, nil} end) do
      {:all, nil} ->
        :ok

      {{:silent, _pids}, nil} ->
        if SysMessage.suspended?(pid), do: SysMessage.resume_unanswered(pid)
        until_answered(pid, ref)
    end
  end
end
