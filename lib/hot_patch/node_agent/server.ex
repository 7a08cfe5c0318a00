defmodule HotPatch.NodeAgent.Server do
  @moduledoc false
  # Keeps who holds this node and what was prepared for whom, and lets go of it when the
  # coordinator dies. The commit alone runs in a process that is started here: it must end also
  # when the coordinator is gone.
  #
  # What follows from what is said by Protocol, which has the diagram of the states. This process
  # turns messages into events, and carries out what Protocol says is to be done: in the order in
  # which it says so, for who hears of an end first matters to those who wait.

  @behaviour :gen_statem

  alias HotPatch.NodeAgent.Commit
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Retirement
  alias HotPatch.NodeAgent.Server.Data
  alias HotPatch.NodeAgent.Server.Protocol
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Swap

  require HotPatch.Support.Log, as: Log

  @type holder :: Data.holder()

  @typep role :: :coordinator | :lock | :commit

  # Processes that are monitored have a name each, by which Protocol knows them.
  @typep t :: %__MODULE__{data: Data.t(), monitors: %{role() => {pid(), reference()}}}
  @enforce_keys [:data]
  defstruct [:data, monitors: %{}]

  @doc false
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [options]}}

  @doc false
  @spec start_link(keyword()) :: :gen_statem.start_ret()
  def start_link(_options), do: :gen_statem.start_link({:local, __MODULE__}, __MODULE__, [], [])

  @impl :gen_statem
  def callback_mode, do: :handle_event_function

  # An agent that was killed may have left files behind; so may a node. Files of a commit
  # that goes on without its agent are that commit's.
  @impl :gen_statem
  def init([]) do
    case Commit.running() do
      nil ->
        _ = Store.Recovery.run()
        :ok = Swap.Shadow.unload_leftovers()
        {state, data} = Protocol.begin(:nothing)
        {:ok, state, %__MODULE__{data: data}}

      {pid, operation} ->
        {state, data} = Protocol.begin({:commit, operation})
        {:ok, state, monitor(%__MODULE__{data: data}, :commit, pid)}
    end
  end

  @impl :gen_statem
  def handle_event(type, content, state, server) do
    case event(type, content, server) do
      nil ->
        :keep_state_and_data

      event ->
        {next, data, effects} = Protocol.handle(state, event, server.data)
        {server, actions} = Enum.reduce(effects, {%{server | data: data}, []}, &carry_out/2)
        {:next_state, next, server, actions}
    end
  end

  # Any process of the cluster can send this one anything. Only a caller that can be answered has
  # asked, and only the commit that was started here says how far it is.
  @spec event(:gen_statem.event_type(), term(), t()) :: Protocol.event() | nil
  defp event({:call, {pid, _tag} = from}, request, _server) when is_pid(pid),
    do: {:call, from, request}

  defp event(:internal, event, _server), do: event
  defp event(:state_timeout, :silent, _server), do: :silent

  defp event(:info, {Commit, pid, said}, %{monitors: %{commit: {pid, _monitor}}}), do: said

  defp event(:info, {:DOWN, monitor, :process, pid, reason}, server) do
    case Enum.find(server.monitors, &match?({_role, {^pid, ^monitor}}, &1)) do
      {:coordinator, _} -> {:coordinator_lost, reason}
      {:lock, _} -> {:lock_lost, reason}
      {:commit, _} -> {:commit_lost, reason}
      nil -> nil
    end
  end

  defp event(_type, _stray, _server), do: nil

  @spec carry_out(Protocol.effect(), {t(), [:gen_statem.action()]}) ::
          {t(), [:gen_statem.action()]}
  defp carry_out({:monitor, role, pid}, {server, actions}),
    do: {monitor(server, role, pid), actions}

  defp carry_out({:demonitor, role}, {server, actions}), do: {demonitor(server, role), actions}

  defp carry_out({:start_commit, preparation}, {server, actions}) do
    commit = spawn_monitor(Commit, :run, [self(), preparation])
    {put_in(server.monitors[:commit], commit), actions}
  end

  defp carry_out({:decide, :commit, decision}, {server, actions}) do
    {pid, _monitor} = server.monitors.commit
    :ok = Swap.decide(pid, decision)
    {server, actions}
  end

  defp carry_out({:settle, purpose}, {server, actions}),
    do: {server, [{:next_event, :internal, {:settled, purpose, settled(purpose)}} | actions]}

  # It is forgotten when the state changes.
  defp carry_out({:await_decision, milliseconds}, {server, actions}),
    do: {server, [{:state_timeout, milliseconds, :silent} | actions]}

  defp carry_out(effect, server_and_actions) do
    _ = carry_out(effect)
    server_and_actions
  end

  # Not by an action, which would come after all else.
  defp carry_out({:reply, from, answer}), do: :gen_statem.reply(from, answer)
  defp carry_out({:tell, pid, message}), do: send(pid, message)
  defp carry_out({:decide, pid, decision}), do: Swap.decide(pid, decision)
  defp carry_out({:note, from, ops}), do: :gen_statem.reply(from, note(ops))
  defp carry_out({:discard, preparation}), do: Prepare.discard(preparation)

  defp carry_out({:clean_up, preparation}) do
    # Not what was decided already: that is finished below.
    if preparation && not decided?(preparation), do: Prepare.discard(preparation)
    Store.Recovery.run()
  end

  defp carry_out({:fault_point, point}), do: FaultPoint.point(point)

  defp carry_out({:warn_of_lost_coordinator, patch}),
    do: Log.warning("HotPatch: the coordinator of #{patch} is gone", patch: patch)

  defp monitor(server, role, pid),
    do: put_in(server.monitors[role], {pid, Process.monitor(pid)})

  defp demonitor(server, role) do
    {gone, monitors} = Map.pop(server.monitors, role)
    _ = with {_pid, monitor} <- gone, do: Process.demonitor(monitor, [:flush])
    %{server | monitors: monitors}
  end

  # The code of the system is about to change by other means.
  defp settled({:reserve, _from, _operation}) do
    if Release.changing?(), do: {:busy, release_handler()}, else: settle()
  end

  defp settled({:settle, _from}), do: settle()

  # Its state would be built upon one that is about to change. And where the release is another now,
  # patches have ended.
  defp settle do
    case Store.Recovery.run() do
      [] ->
        with {:error, failure} <- Retirement.run(),
             do: Log.debug("HotPatch: files of ended patches stay for now: #{inspect(failure)}")

        :ok

      [{_intent, {path, reason}} | _] ->
        {:error, "#{path}: #{inspect(reason)}"}
    end
  end

  defp release_handler do
    %{
      kind: :install,
      patch: "a release",
      by: "release_handler",
      coordinator: Process.whereis(:release_handler) || self()
    }
  end

  defp note(ops) do
    applied = Enum.reduce(ops, Store.Applied.state(), &Store.Applied.noted(&2, &1))

    with {:error, posix} <- Store.Applied.put(applied),
         do: {:error, "cannot write the state: #{posix}"}
  end

  defp decided?(preparation) do
    Enum.any?(
      Store.Transaction.pending(),
      &(&1.tag == preparation.staged.tag and &1.state == :decided)
    )
  end
end
