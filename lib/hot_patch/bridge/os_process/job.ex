defmodule HotPatch.Bridge.OSProcess.Job do
  @moduledoc false
  # One request of one caller.

  @enforce_keys [:id, :from, :about, :request, :timeout, :monitor, :timer]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          id: non_neg_integer(),
          from: GenServer.from() | nil,
          about: String.t(),
          request: tuple() | nil,
          timeout: pos_integer(),
          monitor: reference() | nil,
          timer: reference() | nil
        }

  @doc "A request that is late after `timeout` ms: the server is told so."
  @spec new(non_neg_integer(), GenServer.from(), tuple(), {String.t(), pos_integer()}) :: t()
  def new(id, {pid, _tag} = from, request, {about, timeout}) do
    %__MODULE__{
      id: id,
      from: from,
      about: about,
      request: request,
      timeout: timeout,
      monitor: Process.monitor(pid),
      timer: Process.send_after(self(), {:late, id}, timeout)
    }
  end

  @doc "Answers the caller, if there is one."
  @spec answer(t(), term()) :: :ok
  def answer(%__MODULE__{from: nil}, _answer), do: :ok

  def answer(%__MODULE__{from: from} = job, answer) do
    _ = orphan(job)
    GenServer.reply(from, answer)
  end

  @doc "Leaves the request without a caller."
  @spec orphan(t()) :: t()
  def orphan(%__MODULE__{from: nil} = job), do: job

  def orphan(%__MODULE__{} = job) do
    Process.demonitor(job.monitor, [:flush])
    _ = Process.cancel_timer(job.timer)
    %{job | from: nil, monitor: nil, timer: nil}
  end
end
