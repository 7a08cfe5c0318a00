defmodule HotPatch.Bridge.OSProcess.Server do
  @moduledoc false
  # Owns the program that reads archives. It is started for the first request and closed when
  # there was none for a while. When it ends, each request that it had is answered with an error
  # that names the archive and is not sent again; those that still waited go to a new one.
  #
  # No more requests are sent than the program has workers: what waits, waits here, where a caller
  # that dies can be forgotten.

  use GenServer

  alias HotPatch.Bridge
  alias HotPatch.Bridge.OSProcess.Job
  alias HotPatch.Bridge.OSProcess.Program
  alias HotPatch.Host.Config

  require HotPatch.Support.Log, as: Log

  @workers 2
  # How long a cancelled request may keep its worker before the program is given up.
  @grace 10_000
  @idle 60_000
  @too_large "it is more than the reader takes at a time (config :hot_patch, max_unpacked_bytes)"
  # A program that is still taking in the last request is asked again after this long.
  @busy 2

  @type option ::
          {:name, atom()}
          | {:timeout, pos_integer()}
          | {:grace, pos_integer()}
          | {:memory, pos_integer()}

  defstruct [
    :timeout,
    :grace,
    :memory,
    :program,
    waiting: :queue.new(),
    running: %{},
    next: 0,
    idle: nil,
    feeding: nil,
    last_word: nil
  ]

  @doc "Where the program is."
  @spec executable() :: Path.t()
  defdelegate executable, to: Program

  @doc "Starts the server. The program is not started before it is needed."
  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(options) do
    GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))
  end

  @impl GenServer
  def init(options) do
    # The program is a port: its end is to be a message, not ours.
    Process.flag(:trap_exit, true)
    grace = options[:grace] || @grace
    {:ok, %__MODULE__{timeout: options[:timeout], grace: grace, memory: options[:memory]}}
  end

  @impl GenServer
  def handle_call({:request, name, blobs, options, about}, from, state)
      when is_binary(name) and is_list(blobs) and is_binary(options) and is_binary(about) do
    timeout = state.timeout || Config.current().port_timeout
    job = Job.new(state.next, from, {name, options, blobs}, {about, timeout})
    # The numbers of the protocol have 32 bits.
    next = rem(state.next + 1, 0x1_0000_0000)
    {:noreply, feed(%{state | next: next, waiting: :queue.in(job, state.waiting)})}
  end

  def handle_call(_other, _from, state), do: {:reply, {:error, :not_supported}, state}

  @impl GenServer
  def handle_cast(_other, state), do: {:noreply, state}

  @impl GenServer
  def handle_info({port, {:data, frame}}, %{program: port} = state) do
    case Program.said(frame) do
      {:reply, id, reply} -> {:noreply, state |> done(id, {:ok, reply}) |> feed()}
      :hello -> {:noreply, state}
      {:broken, text} -> {:noreply, %{state | last_word: text}}
      {:stranger, text} -> {:noreply, state |> ended(text) |> feed()}
    end
  end

  def handle_info({port, {:exit_status, status}}, %{program: port} = state) do
    {:noreply, state |> ended(state.last_word || Program.died(status)) |> feed()}
  end

  # A pipe that broke while it was written to; the exit status may never come.
  def handle_info({:EXIT, port, reason}, %{program: port} = state) when reason != :normal do
    {:noreply, state |> ended("the reader ended (#{inspect(reason)})") |> feed()}
  end

  def handle_info({:late, id}, state), do: {:noreply, state |> late(id) |> feed()}
  def handle_info({:stuck, id}, state), do: {:noreply, state |> stuck(id) |> feed()}
  def handle_info({:cancel, id}, state), do: {:noreply, tell(state, id)}
  def handle_info(:feed, state), do: {:noreply, feed(%{state | feeding: nil})}

  # A caller that died: nobody waits for its request any more.
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    {:noreply, state |> forget(monitor) |> feed()}
  end

  def handle_info({:idle, mark}, %{idle: mark} = state) when map_size(state.running) == 0 do
    {:noreply, close(state)}
  end

  # What is late: timers that went off while they were stopped, ports that were given up.
  def handle_info(_message, state), do: {:noreply, state}

  # As many requests as there are workers.
  defp feed(state) when map_size(state.running) >= @workers, do: state

  defp feed(state) do
    case :queue.out(state.waiting) do
      {:empty, _waiting} -> rest(state)
      {{:value, job}, waiting} -> feed(state, job, waiting)
    end
  end

  defp feed(state, job, waiting) do
    case open(state) do
      {:ok, state} ->
        hand_over(state, job, waiting)

      {:error, error} ->
        Job.answer(job, {:error, error})
        feed(%{state | waiting: waiting})
    end
  end

  defp open(%{program: nil} = state) do
    with {:ok, port} <- Program.open(@workers, state.memory),
         do: {:ok, %{state | program: port, last_word: nil}}
  end

  defp open(state), do: {:ok, state}

  defp hand_over(state, job, waiting) do
    {name, options, blobs} = job.request

    case Program.send(state.program, {:request, job.id, name, options, blobs}) do
      :ok ->
        # What was sent need not be kept here.
        running = Map.put(state.running, job.id, %{job | request: nil})
        feed(%{state | waiting: waiting, running: running, idle: nil})

      :too_large ->
        Job.answer(job, {:error, Bridge.failed(job.about, @too_large, %{cause: :too_large})})
        feed(%{state | waiting: waiting})

      :busy ->
        feed_again(state)

      :closed ->
        # It ended a moment ago: the message about it is on its way.
        state
    end
  end

  # One timer, however many requests come meanwhile: each that goes off may start the next.
  defp feed_again(%{feeding: nil} = state),
    do: %{state | feeding: Process.send_after(self(), :feed, @busy)}

  defp feed_again(state), do: state

  # Memory is given back to the system when nobody reads archives for a while.
  defp rest(%{program: port, running: running} = state)
       when port != nil and map_size(running) == 0 do
    mark = make_ref()
    Process.send_after(self(), {:idle, mark}, @idle)
    %{state | idle: mark}
  end

  defp rest(state), do: state

  defp done(state, id, answer) do
    case Map.pop(state.running, id) do
      {nil, _running} ->
        state

      {job, running} ->
        Job.answer(job, answer)
        %{state | running: running}
    end
  end

  # The program is gone: what it had is answered, whoever of them it was.
  defp ended(state, cause) do
    jobs = Map.values(state.running)
    Log.error("HotPatch: #{cause} while it had #{names(jobs)}")

    for job <- jobs do
      others = for %{id: id, about: about} <- jobs, id != job.id, do: about
      Job.answer(job, {:error, lost(job.about, cause, others)})
    end

    close(%{state | running: %{}})
  end

  defp names([]), do: "nothing to do"
  defp names(jobs), do: Enum.map_join(jobs, ", ", & &1.about)

  defp lost(about, cause, []), do: Bridge.failed(about, cause, %{cause: :ended})

  defp lost(about, cause, others) do
    why = "#{cause}, and it was reading #{Enum.join(others, ", ")} at the same time"
    Bridge.failed(about, why, %{cause: :ended, others: others})
  end

  defp close(state) do
    Program.close(state.program)
    %{state | program: nil, idle: nil}
  end

  # One that waits is dropped; one that runs is cancelled, and if that does not help the program
  # is given up.
  defp late(state, id) do
    case state.running do
      %{^id => job} ->
        Job.answer(job, {:error, late_error(job)})
        cancel(%{state | running: Map.put(state.running, id, Job.orphan(job))}, id)

      _ ->
        {late, waiting} = take(state.waiting, &(&1.id == id))
        for job <- late, do: Job.answer(job, {:error, late_error(job)})
        %{state | waiting: waiting}
    end
  end

  defp late_error(job) do
    why = "the reader did not come to an end within #{job.timeout} ms"
    Bridge.failed(job.about, why, %{cause: :timeout})
  end

  defp cancel(state, id) do
    Process.send_after(self(), {:stuck, id}, state.grace)
    tell(state, id)
  end

  # A cancel that got lost would cost the other request its program.
  defp tell(state, id) do
    with true <- is_map_key(state.running, id),
         :busy <- Program.send(state.program, {:cancel, id}),
         do: Process.send_after(self(), {:cancel, id}, @busy)

    state
  end

  defp stuck(state, id) do
    if is_map_key(state.running, id),
      do: ended(state, "the reader did not stop when it was told to"),
      else: state
  end

  defp forget(state, monitor) do
    case Enum.find(state.running, fn {_id, job} -> job.monitor == monitor end) do
      {id, job} ->
        cancel(%{state | running: Map.put(state.running, id, Job.orphan(job))}, id)

      nil ->
        {gone, waiting} = take(state.waiting, &(&1.monitor == monitor))
        Enum.each(gone, &Job.orphan/1)
        %{state | waiting: waiting}
    end
  end

  defp take(queue, wanted?) do
    {taken, rest} = queue |> :queue.to_list() |> Enum.split_with(wanted?)
    {taken, :queue.from_list(rest)}
  end
end
