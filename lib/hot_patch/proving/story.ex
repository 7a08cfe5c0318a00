defmodule HotPatch.Proving.Story do
  @moduledoc false
  # What is done to the nodes, step by step. With the first step that fails it ends; the nodes are ended in any
  # case.

  alias HotPatch.Proving.Nodes
  alias HotPatch.Proving.Step
  alias HotPatch.Rehearsal
  alias HotPatch.Rehearsal.NodeResult
  alias HotPatch.Rehearsal.Replay
  alias HotPatch.Support.Cause
  alias HotPatch.Support.Table

  @typep course :: %{
           nodes: Nodes.t(),
           load: module(),
           state: term(),
           zip: binary(),
           patch: String.t() | nil,
           upgrade: String.t() | nil,
           rehearsal: Rehearsal.t() | nil,
           options: map()
         }

  @typedoc "The patch's id, once it has one; the last rehearsal, where there was one; the steps."
  @type told :: %{
          patch: String.t() | nil,
          rehearsal: Rehearsal.t() | nil,
          steps: [Step.t()]
        }

  # Beside the time that an operation takes by its own options.
  @margin 30_000

  # So many processes of each module are heard on a node.
  @heard 10

  # Until those who are in old code have left it, and how often that is looked for.
  @leaves_within 10_000
  @look_every 200

  @steps [:boot, :load, :upload, :rehearse, :apply, :rollback, :apply_again, :restart, :end]

  @doc """
  All steps, in their order; of an upgrade one more, behind `:apply_again`: `:make_permanent`, and where messages are
  played one behind `:rehearse`: `:replay`.
  """
  @spec steps() :: [atom()]
  def steps, do: @steps

  @doc "Runs it."
  @spec run(Nodes.t(), module(), binary(), map()) :: told()
  def run(nodes, load, zip, options) do
    course = %{
      nodes: nodes,
      load: load,
      state: nil,
      zip: zip,
      patch: nil,
      upgrade: nil,
      rehearsal: nil,
      options: options
    }

    alone(fn ->
      {course, steps} = Enum.reduce(@steps, {course, []}, &with_others/2)
      :ok = Nodes.stop(course.nodes)
      %{patch: course.patch, rehearsal: course.rehearsal, steps: Enum.reverse(steps)}
    end)
  end

  # In a process of its own, to which is linked what the load starts: that may fail, and it ends with the story.
  @spec alone((() -> told())) :: told()
  defp alone(tell) do
    caller = self()
    ref = make_ref()

    {pid, monitor} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)
        send(caller, {ref, tell.()})
        Process.flag(:trap_exit, false)
        Process.exit(self(), :shutdown)
      end)

    receive do
      {^ref, told} ->
        receive(do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> told))

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        exit(reason)
    end
  end

  # Until it is permanent a restart boots the former release.
  defp with_others(:restart, {%{upgrade: version}, _steps} = so_far) when version != nil,
    do: step(:restart, step(:make_permanent, so_far))

  defp with_others(:rehearse, {%{options: %{replay: seconds}}, _steps} = so_far)
       when seconds != nil,
       do: step(:replay, step(:rehearse, so_far))

  defp with_others(name, so_far), do: step(name, so_far)

  defp step(name, {course, [%{outcome: outcome} | _] = steps}) when outcome != :ok,
    do: {course, [%Step{name: name, outcome: :skipped} | steps]}

  defp step(name, {course, steps}) do
    {us, {result, course}} = :timer.tc(fn -> carried_out(name, course) end)
    {outcome, text} = result
    {course, [%Step{name: name, outcome: outcome, text: text, us: us} | steps]}
  end

  # The script of the load is somebody's, and so is the system.
  @spec carried_out(atom(), course()) :: {{:ok | :failed, String.t()}, course()}
  defp carried_out(name, course) do
    case do_step(name, course) do
      {:ok, text, course} -> checked(text, name, course)
      {:error, text, course} -> {{:failed, text}, course}
    end
  catch
    kind, reason ->
      {{:failed, "#{name} failed: #{Cause.of(kind, reason, __STACKTRACE__)}"}, course}
  end

  defp checked(text, name, course) when name in [:boot, :upload], do: {{:ok, text}, course}

  # Nobody has ended, and the load says that all is well; at its beginning and its end it has said so itself.
  defp checked(text, name, course) do
    case Enum.find_value(course.nodes, &Nodes.ended/1) || lost() || well_after(name, course) do
      :ok -> {{:ok, text}, course}
      {:error, what} -> {{:failed, "#{text}; then #{what}"}, course}
      ended -> {{:failed, "#{text}; then #{ended}"}, course}
    end
  end

  defp well_after(name, _course) when name in [:load, :end], do: :ok
  defp well_after(_name, course), do: well(course)

  # What the load has started may fail as it likes, but not unsaid. What is ended on purpose is none of that.
  defp lost do
    receive do
      {:EXIT, pid, reason} when is_pid(pid) -> if not on_purpose?(reason), do: lost(reason)
    after
      0 -> nil
    end
  end

  defp lost(reason), do: "a process of the load ended: #{Cause.of_exit(reason)}"

  defp on_purpose?({:shutdown, _why}), do: true
  defp on_purpose?(reason), do: reason in [:normal, :shutdown, :killed]

  defp well(course), do: course.load.check(Nodes.names(course.nodes), course.state)

  defp do_step(:boot, course) do
    case Nodes.boot(course.nodes, course.load, course.options.timeout) do
      {:ok, nodes} -> {:ok, "#{Nodes.count(nodes)} up", %{course | nodes: nodes}}
      {{:error, text}, nodes} -> {:error, text, %{course | nodes: nodes}}
    end
  end

  defp do_step(:load, course) do
    names = Nodes.names(course.nodes)
    course = %{course | state: course.load.start(names)}

    case well(course) do
      :ok -> {:ok, "#{inspect(course.load)} runs", course}
      {:error, text} -> {:error, text, course}
    end
  end

  defp do_step(:upload, course) do
    with {:ok, patch} <- call(course, :upload, [course.zip, [name: "rehearsal"]]) do
      {:ok, "#{patch.id} is taken in", %{course | patch: patch.id, upgrade: patch.upgrade}}
    else
      {:error, error} -> {:error, Exception.message(error), course}
    end
  end

  defp do_step(:rehearse, course), do: rehearsed(course, [], &tried/1)

  # It has been seen that states convert: there is no need to try all of them again.
  defp do_step(:replay, %{options: %{replay: seconds, show: show}} = course),
    do: rehearsed(course, [replay: seconds, show: show, sample: @heard], &played/1)

  defp do_step(name, course) when name in [:apply, :apply_again] do
    watch = [duration: course.options.watch]
    options = [watch: watch, timeout: course.options.timeout, reason: "rehearsal"]
    operation(course, :apply, options)
  end

  defp do_step(:rollback, course),
    do: operation(course, :rollback, timeout: course.options.timeout, reason: "rehearsal")

  defp do_step(:make_permanent, course) do
    case call(course, :make_permanent, [course.upgrade, []]) do
      {:ok, %{failed: []}} ->
        {:ok, "the next start of each node boots #{course.upgrade}", course}

      {:ok, answers} ->
        {:error, Enum.join(HotPatch.Answers.lines(answers), "; "), course}

      {:error, error} ->
        {:error, Exception.message(error), course}
    end
  end

  defp do_step(:restart, course) do
    %{node: node} = one = List.last(course.nodes)
    options = [force: true, timeout: course.options.timeout, reason: "rehearsal"]

    with {:ok, info} <- restarted(course, node, options),
         {:patched, true} <- {:patched, course.patch in info.applied} do
      {:ok, "#{node} is back, with the patch", course}
    else
      {:patched, false} -> {:error, "#{node} is back without the patch: see #{one.log}", course}
      {:error, text} -> {:error, text, course}
    end
  end

  defp do_step(:end, course) do
    case course.load.stop(Nodes.names(course.nodes), course.state) do
      :ok -> {:ok, "the load has ended, and all is well", course}
      {:error, text} -> {:error, text, course}
    end
  end

  # Of a single node nobody else can wait for it.
  defp restarted(%{nodes: [_only]} = course, node, options) do
    deadline = System.monotonic_time(:millisecond) + course.options.timeout
    before = started(node)
    _ = call(course, :restart, [node, options])
    back(node, before, deadline)
  end

  defp restarted(course, node, options) do
    with {:error, error} <- call(course, :restart, [node, options]),
         do: {:error, Exception.message(error)}
  end

  defp back(node, before, deadline) do
    cond do
      Nodes.managed?(node) and started(node) != before -> info(node)
      System.monotonic_time(:millisecond) > deadline -> {:error, "#{node} does not come back"}
      true -> receive(do: (:never -> nil), after: (100 -> back(node, before, deadline)))
    end
  end

  # It is another one after a restart, also of `:init.restart/0`, which keeps the VM and the time of its start.
  defp started(node), do: :erpc.call(node, :erlang, :whereis, [:application_controller])

  defp info(node) do
    {:ok, Enum.find(:erpc.call(node, HotPatch, :nodes, []), &(&1.node == node))}
  end

  # Who is in the code of before has to leave it first, as it does when it is called the next time; who does
  # not is what the operation is refused for.
  defp free_of_old_code(course, until) do
    case call(course, :stragglers, [[]]) do
      {:ok, %{items: [_ | _]}} ->
        if System.monotonic_time(:millisecond) < until do
          _ = well(course)
          receive(do: (:never -> nil), after: (@look_every -> free_of_old_code(course, until)))
        end

      _nobody_or_not_known ->
        nil
    end
  end

  defp operation(course, function, options) do
    _ = free_of_old_code(course, System.monotonic_time(:millisecond) + @leaves_within)

    case call(course, function, [course.patch, options]) do
      {:ok, report} ->
        paused = report.nodes |> Enum.map(& &1.suspended) |> Enum.sum()
        longest = report.nodes |> Enum.map(& &1.pause_us) |> Enum.max()

        if report.status in [:ok, :not_changed],
          do:
            {:ok,
             "#{report.status}, #{Table.count(paused, "process", "processes")} paused for #{Table.milliseconds(longest)} at most",
             course},
          else: {:error, "#{function}: #{report.status}", course}

      {:error, error} ->
        {:error, Exception.message(error), course}
    end
  end

  defp rehearsed(course, options, told) do
    case call(course, :rehearse, [course.patch, [timeout: course.options.timeout] ++ options]) do
      {:ok, rehearsal} ->
        course = %{course | rehearsal: rehearsal}

        if rehearsal.outcome == :failed,
          do: {:error, Rehearsal.failure(rehearsal), course},
          else: {:ok, told.(rehearsal), course}

      {:error, error} ->
        {:error, Exception.message(error), course}
    end
  end

  defp tried(rehearsal) do
    tried = rehearsal.nodes |> Enum.map(&NodeResult.tried/1) |> Enum.sum()
    "on live states: #{rehearsal.outcome}, #{Table.count(tried, "process", "processes")} tried"
  end

  defp played(rehearsal) do
    replays = for node <- rehearsal.nodes, replay <- node.replays, do: replay
    sum = fn count -> replays |> Enum.map(count) |> Enum.sum() end
    messages = Table.count(sum.(& &1.messages), "message", "messages")
    processes = Table.count(sum.(& &1.processes), "process", "processes")

    "#{messages} of #{processes} played: #{sum.(& &1.same)} alike, " <>
      "#{sum.(&Replay.different/1)} not; #{sum.(&Replay.left/1)} left aside"
  end

  # On the first node, as an operator does it.
  defp call(course, function, arguments) do
    %{node: node} = hd(course.nodes)
    played = 1_000 * (course.options.replay || 0)
    within = course.options.timeout * 2 + course.options.watch + played + @margin
    :erpc.call(node, HotPatch, function, arguments, within)
  end
end
