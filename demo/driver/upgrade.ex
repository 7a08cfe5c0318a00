defmodule Demo.Upgrade do
  @moduledoc false
  # The exchange goes from 1.0.0 to 1.1.0 and back and forth again while calls are going on, on one screen. Every
  # claim is checked as it is made; `run/1` answers those that were not so.

  import Demo.Console

  alias Demo.Cluster
  alias Demo.Traffic

  @operator hd(Cluster.nodes())
  @answers_per_phase 500

  @old "1.0.0"
  @new "1.1.0"
  @number "0044123"

  @enforce_keys [:total, :work, :upgrade]
  defstruct @enforce_keys ++ [:traffic, :patch, failed: [], longest_us: 0]

  @type options :: %{total: pos_integer(), work: Path.t(), upgrade: Path.t()}

  @spec run(options()) :: {:ok, summary :: String.t()} | {:failed, [String.t(), ...]}
  def run(options) do
    story =
      struct!(__MODULE__, Map.take(options, [:total, :work, :upgrade]))
      |> start()
      |> look()
      |> forth(2, "All three nodes go to #{@new}", [])
      |> back()
      |> forth(4, "And to #{@new} again, for good", permanent: :now)
      |> restart()
      |> fresh_disk()

    if story.failed == [], do: {:ok, summary(story)}, else: {:failed, Enum.reverse(story.failed)}
  end

  defp summary(story) do
    "#{count(story.total)} calls went from one release to the next, back, and forth again: no call dropped, no answer " <>
      "lost or wrong.\nThe longest pause of a node was #{milliseconds(story.longest_us)}."
  end

  defp start(story) do
    headline(1, "Three nodes carry #{count(story.total)} calls on #{@old}; the upgrade")
    :ok = Cluster.await()
    share = div(story.total - 1, length(Cluster.nodes())) + 1

    calls =
      for {numbers, node} <-
            1..story.total |> Enum.chunk_every(share) |> Enum.zip(Cluster.nodes()) do
        pairs = for n <- numbers, do: {"2#{n}", @number}
        {node, Cluster.call(node, Exchange, :start_calls, [pairs])}
      end

    story = %{story | traffic: Traffic.start(calls)}
    phase(story, :calm)
    for node <- Cluster.nodes(), do: 1 = Cluster.call(node, Desk.Clerk, :ask, [])
    story
  end

  defp look(story) do
    patch = must(:upload, [story.upgrade])
    composition = must(:composition, [patch.id])
    size = count(File.stat!(story.upgrade).size)
    say("#{patch.id}, #{size} bytes, #{count(length(composition.files))} files:")
    for one <- composition.manifest.upgrade.applications, do: say("  " <> change(one))
    check = must(:check, [patch.id])
    plan = must(:plan, [patch.id])
    [first | _] = plan.nodes
    if check.status != :ok, do: answer(check)
    say("configuration: #{Enum.join(first.config, ", ")}")

    %{story | patch: patch}
    |> verify(check.status == :ok, "every node can take it")
  end

  # Of a struct that another node has sent.
  defp change(%{from: nil} = one), do: "#{one.name} #{one.to} comes"
  defp change(%{to: nil} = one), do: "#{one.name} #{one.from} goes"
  defp change(one), do: "#{one.name} from #{one.from} to #{one.to}"

  defp forth(story, number, text, options) do
    headline(number, text)
    phase(story, :before)
    Traffic.phase(story.traffic, :apply)
    {time, report} = :timer.tc(fn -> must(:apply, [story.patch.id, options]) end)
    phase(story, :after)

    story
    |> told(report, time, :apply)
    |> verify(report.status == :ok, "the upgrade is applied")
    |> verify_release(@new)
    |> verify(audit(story) == %{patched: story.total}, "every call is in the new format")
    |> verify(
      asked() == 2,
      "the clerk still knows how often it was asked, and its desk has statistics"
    )
    |> verify(
      all?(
        Exchange.Printable,
        :line,
        [%{__struct__: Exchange.Surcharge, for: "Noise", cents: 5}],
        "Noise: 5 cents"
      ),
      "a protocol knows one more type"
    )
    |> verify(
      all?(Application, :get_env, [:exchange, :lines_per_trunk], 60_000) and
        all?(Exchange.Surcharge, :region, [], "north"),
      "the configuration is that of #{@new}"
    )
    |> verify_traffic()
  end

  # Once more, and the time before does not count.
  defp asked do
    answers =
      for node <- Cluster.nodes() do
        _ = Cluster.call(node, Desk.Statistics, :serves_for, [])
        Cluster.call(node, :sys, :get_state, [Desk.Clerk]).asked + 1
      end

    with [one] <- Enum.uniq(answers), do: one
  end

  defp back(story) do
    headline(3, "All go back to #{@old}")
    Traffic.phase(story.traffic, :back)
    options = [reason: "a try"]
    {time, report} = :timer.tc(fn -> must(:rollback, [story.patch.id, options]) end)
    phase(story, :old)

    story
    |> told(report, time, :back)
    |> verify(report.status == :ok, "the upgrade is taken back")
    |> verify_release(@old)
    |> verify(audit(story) == %{shipped: story.total}, "every call is in the former format")
    |> verify(all?(:sys, :get_state, [Desk.Clerk], 1), "so is the clerk")
    |> verify(all?(Notices, :head, [@number], "To +44123"), "what was removed serves again")
    |> verify(all?(Application, :get_env, [:exchange, :region], nil), "so is the configuration")
    |> verify_traffic()
  end

  defp restart(story) do
    headline(5, "A node that restarts boots #{@new}")
    _ = Traffic.stop(story.traffic)
    :ok = Cluster.restart(List.last(Cluster.nodes()))
    story |> verify_release(@new) |> verify_serves()
  end

  # As a container comes back: what it is made of is still the former release.
  defp fresh_disk(story) do
    headline(6, "A node that comes back with a fresh disk, on #{@old}, catches up")
    node = List.last(Cluster.nodes())
    root = Path.join(story.work, "exchange3")
    true = Node.monitor(node, true)
    :ok = Cluster.call(node, System, :stop, [])
    receive(do: ({:nodedown, ^node} -> :ok))
    File.rm_rf!(root)
    File.cp_r!(Path.join(story.work, "fresh"), root)
    start_node(node, root)
    :ok = Cluster.await()

    # The release counts from the moment of the load; applications that go are stopped after it.
    Cluster.wait_until("#{node} has caught up", fn ->
      versions()[node] == @new and started(node) == [:rates]
    end)

    story = story |> verify_release(@new) |> verify_serves()
    _ = Cluster.call(node, System, :stop, [])
    story
  end

  defp start_node(node, root) do
    program = Path.join(root, "bin/exchange")
    env = [{~c"RELEASE_NODE", Atom.to_charlist(node)}]

    Port.open({:spawn_executable, System.find_executable("setsid")}, [
      :binary,
      :stderr_to_stdout,
      env: env,
      args: [program, "start"]
    ])
  end

  ## Claims

  defp verify_release(story, version) do
    running = if version == @new, do: [:rates], else: [:notices]

    story
    |> verify(
      Enum.uniq(Map.values(versions())) == [version] and
        Enum.all?(Cluster.nodes(), &(by_release_handler(&1) == version)),
      "every node runs #{version}, and OTP's release handler says the same"
    )
    |> verify(
      Enum.all?(
        Cluster.nodes(),
        &([:notices, :rates] -- started(&1) == [:notices, :rates] -- running)
      ),
      "the applications that run are those of #{version}"
    )
  end

  defp versions do
    releases = must(:releases, [])

    for node <- Cluster.nodes(), into: %{} do
      ours = for one <- releases, one.node == node, one.running?, do: one.version
      {node, with([version] <- ours, do: version)}
    end
  end

  # In OTP's words a release that was installed is current, and permanent once a start boots it.
  defp by_release_handler(node) do
    releases = Cluster.call(node, :release_handler, :which_releases, [])

    with {_name, version, _libs, _status} <-
           List.keyfind(releases, :current, 3) || List.keyfind(releases, :permanent, 3),
         do: to_string(version)
  end

  defp started(node) do
    for {name, _, _} <- Cluster.call(node, Application, :started_applications, []),
        name in [:rates, :notices],
        do: name
  end

  defp verify_serves(story) do
    calls = Cluster.multicall(Exchange, :start_call, [@number])

    costs =
      for {_node, {:ok, pid}} <- calls,
          do:
            (
              _ = Exchange.talk(pid, 59)
              Exchange.charge(pid)
            )

    verify(story, costs == [45, 45, 45], "calls are connected on every node, at the new rates")
  end

  defp all?(module, function, arguments, expected) do
    Enum.all?(Cluster.multicall(module, function, arguments), fn {_node, answer} ->
      answer == expected
    end)
  end

  defp told(story, report, time, phase) do
    pauses = for node <- report.nodes, do: node.pause_us

    waits =
      for {_node, result} <- Traffic.results(story.traffic, phase),
          result.longest,
          do: result.longest

    say(
      "in #{milliseconds(time)}; pauses #{Enum.map_join(pauses, ", ", &milliseconds/1)}; " <>
        "the longest wait of a subscriber #{milliseconds(Enum.max(waits, fn -> 0 end))}"
    )

    if report.status != :ok, do: answer(report)
    %{story | longest_us: Enum.max([story.longest_us | pauses])}
  end

  defp phase(story, phase), do: Traffic.phase(story.traffic, phase, @answers_per_phase)

  defp audit(story), do: Traffic.audit(story.traffic)

  defp verify_traffic(story) do
    problems = Traffic.problems(story.traffic)
    dropped = Traffic.dropped(story.traffic)
    Enum.each(Enum.take(problems, 3), &say/1)

    for {pid, reason} <- Enum.take(dropped, 3),
        do: say("#{inspect(pid)} ended: #{inspect(reason)}")

    verify(
      story,
      problems == [] and dropped == [],
      "#{count(Traffic.count(story.traffic))} answers so far, each right; not one call dropped"
    )
  end

  defp verify(story, true, claim) do
    verdict(true, claim)
    story
  end

  defp verify(story, false, claim) do
    verdict(false, claim)
    %{story | failed: [claim | story.failed]}
  end

  ## Calls

  defp must(function, arguments) do
    case Cluster.call(@operator, HotPatch, function, arguments) do
      {:ok, result} -> result
      {:error, exception} -> raise exception_text(exception)
    end
  end

  defp exception_text(%{report: report} = exception) when report != nil,
    do: "#{Exception.message(exception)}\n\n#{report}"

  defp exception_text(exception), do: Exception.message(exception)
end
