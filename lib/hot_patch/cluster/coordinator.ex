defmodule HotPatch.Cluster.Coordinator do
  @moduledoc false
  # The process that leads something over the cluster. It is none of its caller's: it goes on when
  # that dies, and can be told to stop from any node (HotPatch.cancel/2). Whatever waits in it looks
  # for that (`asked/0`), and says how far it has come.

  alias HotPatch.Cancellation
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Coordinators
  alias HotPatch.Store.Journal
  alias HotPatch.Support.Hex

  @type what :: %{
          :id => String.t(),
          :kind => atom(),
          :patch => String.t(),
          :by => String.t(),
          optional(atom()) => term()
        }

  @doc "An id that nothing else has."
  @spec new_id() :: String.t()
  def new_id, do: Hex.random()

  @doc """
  Has `fun` lead this in a process of its own, and gives its result: what `fun` tells with the function
  that it is given. What it does after that nobody waits for.
  """
  @spec run(what(), ((result -> :ok) -> term())) :: result | {:error, Error.t()}
        when result: term()
  def run(what, fun) do
    facts = facts(what)

    await(facts, fn tell ->
      :ok = Coordinators.enter(facts)

      fun.(fn result ->
        :ok = Coordinators.leave(&cancellation(facts, &1, result))
        tell.(result)
      end)
    end)
  end

  defp facts(what),
    do: what |> Map.take([:id, :kind, :patch, :by]) |> Map.put(:started_at, DateTime.utc_now())

  defp await(facts, fun) do
    caller = self()

    {coordinator, monitor} =
      spawn_monitor(fn ->
        fun.(fn result ->
          _ = send(caller, {self(), result})
          :ok
        end)
      end)

    receive do
      {^coordinator, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^coordinator, reason} ->
        {:error, died(facts, reason)}
    end
  end

  @doc "The same of what cannot be told to stop, and is not found by those who look for it."
  @spec unheard(what(), ((result -> :ok) -> term())) :: result | {:error, Error.t()}
        when result: term()
  def unheard(what, fun), do: await(facts(what), fun)

  defp cancellation(facts, order, result) do
    cancellation = Cancellation.of(facts, order, result)
    unless question?(facts.kind), do: note(cancellation, order)
    cancellation
  end

  defp note(cancellation, order) do
    _ =
      Journal.add(:cancel, %{
        op: cancellation.operation,
        kind: cancellation.kind,
        patch: cancellation.patch,
        by: order.by,
        reason: order.reason,
        from: order.from,
        outcome: cancellation.outcome,
        error: cancellation.message,
        coordinator: node()
      })

    :ok
  end

  defp died(%{kind: kind} = facts, reason) when kind in [:apply, :rollback] do
    Error.new(
      :failed,
      "#{kind} #{facts.patch}: the coordinator died (#{inspect(reason)}), the nodes take back " <>
        "by themselves what is not decided, and do what is; see HotPatch.nodes()"
    )
  end

  defp died(facts, reason) do
    text = "#{facts.kind} #{facts.patch}: it died (#{inspect(reason, limit: 20)})"
    Error.new(:internal, text)
  end

  @doc "Who wants the calling process to stop, if anybody."
  @spec asked() :: Coordinators.order() | nil
  def asked, do: Coordinators.asked(self())

  @doc "The same, to be asked in any process."
  @spec stop() :: (() -> boolean())
  def stop do
    coordinator = self()
    fn -> Coordinators.asked(coordinator) != nil end
  end

  @doc "Whether that, in the options of what is led, says so; nobody can tell it where it is not there."
  @spec stop?(map()) :: boolean()
  def stop?(%{stop: stop}), do: stop.()
  def stop?(_nobody_can_tell), do: false

  @doc "Whether what is led only asks, and changes nothing."
  @spec question?(atom()) :: boolean()
  def question?(kind), do: kind in [:check, :plan, :rehearse]

  @doc "That it was cancelled, by whom and why."
  @spec by(Coordinators.order()) :: String.t()
  def by(%{by: by, reason: nil}), do: "cancelled by #{by}"
  def by(%{by: by, reason: reason}), do: "cancelled by #{by} (#{reason})"

  @doc "The error of what was cancelled."
  @spec error(
          %{:kind => atom(), :patch => String.t(), optional(atom()) => term()},
          Coordinators.order(),
          Cancellation.outcome(),
          String.t()
        ) :: Error.t()
  def error(what, order, outcome, how) do
    Error.new(:cancelled, "#{what.kind} #{what.patch}: #{by(order)}: #{how}", %{
      outcome: outcome,
      by: order.by
    })
  end
end
