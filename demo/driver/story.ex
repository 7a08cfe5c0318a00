defmodule Demo.Story do
  @moduledoc false
  # The demo, step by step. Every claim it makes is checked as it is made; `run/1` answers
  # those that were not so.

  import Demo.Console

  alias Demo.Archive
  alias Demo.Cluster
  alias Demo.Traffic

  @operator hd(Cluster.nodes())

  # A call abroad of 59 seconds: free in the shipped build, a minute's price in the patched.
  @customer "004620"
  @customer_seconds 59
  @right_cents 45

  # The broken patch fails on the one call of all that goes to a country it has not heard of.
  @unknown_country_number "00811"

  # A phase of the demo goes on until every node has answered so often in it.
  @answers_per_phase 1_000

  @enforce_keys [:total, :folders, :work]
  defstruct @enforce_keys ++
              [:traffic, :customers, :changes, :patch, :longest_pause_us, :answers] ++
              [problems: [], dropped: [], failed: []]

  @type options :: %{
          total: pos_integer(),
          folders: %{shipped: Path.t(), patched: Path.t(), broken: Path.t()},
          work: Path.t()
        }

  @spec run(options()) :: {:ok, summary :: String.t()} | {:failed, [String.t(), ...]}
  def run(options) do
    story =
      struct!(__MODULE__, Map.take(options, [:total, :folders, :work]))
      |> start()
      |> show_bug()
      |> make_patch()
      |> apply_patch()
      |> apply_damaged()
      |> apply_failing()
      |> roll_back()
      |> close_books()
      |> restart()
      |> delete()

    case Enum.reverse(story.failed) do
      [] -> {:ok, summary(story)}
      failed -> {:failed, failed}
    end
  end

  defp summary(story) do
    """
    #{count(story.total)} calls on three nodes, #{count(story.answers)} answers: none wrong, none missing,
    no call dropped. The longest pause of a node was #{milliseconds(story.longest_pause_us)}.
    """
  end

  ## 1

  defp start(story) do
    headline(1, "Three nodes carry #{count(story.total)} calls")
    :ok = Cluster.await()

    calls =
      pairs(story.total)
      |> Enum.chunk_every(div(story.total - 1, length(Cluster.nodes())) + 1)
      |> Enum.zip(Cluster.nodes())
      |> Enum.map(fn {pairs, node} ->
        Task.async(fn -> {node, Cluster.call(node, Exchange, :start_calls, [pairs])} end)
      end)
      |> Task.await_many(:infinity)

    story = %{story | traffic: Traffic.start(calls)}
    phase(story, :calm)

    table(
      ["node", "calls", "answers", "median", "longest"],
      for {node, result} <- Traffic.results(story.traffic, :calm) do
        calls = Cluster.call(node, Exchange, :count_calls, [])
        [node, calls, result.answers, {:us, result.median}, {:us, result.longest}]
      end
    )

    say()

    say("""
    From now on subscribers talk on calls picked at random, over distribution, and begin and end
    calls of their own. Every answer is checked, every call is watched.
    """)

    say()
    verify(story, audit(story) == %{shipped: story.total}, "every call is in the shipped format")
  end

  defp pairs(total) do
    ordinary = for index <- 1..(total - 1), do: {"2#{index}", number(index)}
    ordinary ++ [{"2#{total}", @unknown_country_number}]
  end

  defp number(index) do
    case rem(index, 5) do
      0 -> "0044#{index}"
      1 -> "0049#{index}"
      2 -> "02#{index}"
      _ -> "7#{index}"
    end
  end

  ## 2

  defp show_bug(story) do
    headline(2, "The bug: a call abroad of #{@customer_seconds} seconds is free")

    customers =
      for {node, {:ok, call}} <- Cluster.multicall(Exchange, :start_call, ["100", @customer]) do
        _ = Exchange.talk(call, @customer_seconds)
        {node, call}
      end

    charges = charges(customers)
    say("It should cost #{@right_cents} cents. On each node such a call is going on now:")
    say()
    print_charges(charges)
    say()

    %{story | customers: customers}
    |> verify(all_cost?(charges, 0), "the shipped build gives it away")
  end

  defp charges(customers), do: for({node, call} <- customers, do: {node, Exchange.charge(call)})

  defp all_cost?(charges, cents), do: Enum.all?(charges, &match?({_node, ^cents}, &1))

  defp print_charges(charges) do
    table(["node", "charge"], for({node, cents} <- charges, do: [node, "#{cents} cents"]))
  end

  ## 3

  defp make_patch(story) do
    headline(3, "The patch: the modules in which the repaired build differs")
    changes = Archive.changes(story.folders.shipped, story.folders.patched)

    table(
      ["module", "vsn in the shipped build", "in the repaired build"],
      for({module, old, new} <- changes, do: [inspect(module), vsn(old), vsn(new)])
    )

    path = Archive.zip!(changes, story.folders.patched, Path.join(story.work, "billing.zip"))
    say()

    say("""
    #{Path.basename(path)}: #{count(File.stat!(path).size)} bytes. Calls, trunks and books keep their state in another
    format in it; their code_change/3 converts it.
    """)

    %{story | changes: changes, patch: path}
  end

  defp vsn(nil), do: "no such module"
  defp vsn([vsn]) when is_integer(vsn) and vsn < 1_000, do: "#{vsn}"
  defp vsn(_derived), do: "its checksum"

  ## 4

  defp apply_patch(story) do
    headline(4, "Upload, look, check, plan, apply")
    patch = must(:upload, [story.patch], upload_code(story.patch))
    answer(patch)

    for function <- [:composition, :check, :plan] do
      answer(must(function, [patch.id], code(function, patch.id)))
    end

    phase(story, :before)
    Traffic.phase(story.traffic, :apply)
    {time, report} = :timer.tc(fn -> must(:apply, [patch.id], code(:apply, patch.id)) end)
    Traffic.phase(story.traffic, :settle)
    answer(report)
    phase(story, :after)

    say()
    say("It took #{milliseconds(time)} in all. What the subscribers noticed:")
    say()
    pauses = Map.new(report.nodes, &{&1.node, &1.pause_us})

    table(
      ["node", "pause", "longest wait", "usual wait", "answers meanwhile"],
      for {{node, usual}, {node, apply}} <-
            Enum.zip(results(story, :before), results(story, :apply)) do
        [node, {:us, pauses[node]}, {:us, apply.longest}, {:us, usual.median}, apply.answers]
      end
    )

    say()
    say("The same calls as in step 2, still going on:")
    say()
    charges = charges(story.customers)
    print_charges(charges)
    say()

    %{story | longest_pause_us: pauses |> Map.values() |> Enum.max()}
    |> verify(report.status == :ok, "the patch is applied")
    |> verify(runs?(story, story.folders.patched), "every node runs the repaired build")
    |> verify(all_cost?(charges, @right_cents), "the bug is gone on every node")
    |> verify(kept?(story), "the state of every call is whole, in the new format")
    |> verify_traffic()
  end

  ## 5

  defp apply_damaged(story) do
    headline(5, "A damaged patch is refused")
    say("The same files, but each is cut in half.")
    cut = fn beam -> binary_part(beam, 0, div(byte_size(beam), 2)) end
    path = Path.join(story.work, "damaged.zip")
    refuse(story, Archive.zip!(story.changes, story.folders.patched, path, cut))
  end

  ## 6

  defp apply_failing(story) do
    headline(6, "A patch that fails half way is taken back")

    say("""
    It can convert the state of all calls but one: a single call goes to #{@unknown_country_number}, a
    country it has not heard of, and there its code_change/3 fails.
    """)

    changes = Archive.changes(story.folders.patched, story.folders.broken)
    path = Path.join(story.work, "countries.zip")
    refuse(story, Archive.zip!(changes, story.folders.broken, path))
  end

  defp refuse(story, path) do
    outcome = try_to_apply(path)
    phase(story, :refused)
    say()

    story
    |> verify(outcome == :refused, "it is refused")
    |> verify(runs?(story, story.folders.patched), "every node runs the code it ran before")
    |> verify(kept?(story), "the state of every call is whole, in the format it had before")
    |> verify_traffic()
  end

  defp try_to_apply(path) do
    with {:ok, patch} <- operate(:upload, [path], upload_code(path)),
         answer(patch),
         {:ok, report} <- operate(:apply, [patch.id], code(:apply, patch.id)) do
      answer(report)
      :applied
    else
      {:error, exception} ->
        answer(exception_text(exception))
        :refused
    end
  end

  ## 7

  defp roll_back(story) do
    headline(7, "The patch is taken back, and applied again")

    say("""
    Code, disk and the state of every call go back to the shipped build, which is wrong but was
    running; then forth again.
    """)

    say()

    [patch | _] =
      Enum.filter(Cluster.call(@operator, HotPatch, :list, []), &(&1.state == :applied))

    back = must(:rollback, [patch.id, [reason: "a try"]], code(:rollback, patch.id, "a try"))
    answer(back)
    phase(story, :back)
    say()

    story =
      story
      |> verify(back.status == :ok, "the patch is taken back")
      |> verify(runs?(story, story.folders.shipped), "every node runs the shipped build")
      |> verify(
        audit(story) == %{shipped: story.total},
        "the state of every call is whole, in the shipped format"
      )
      |> verify_traffic()

    settled()
    forth = must(:apply, [patch.id], code(:apply, patch.id))
    answer(forth)
    phase(story, :forth)
    say()

    story
    |> verify(runs?(story, story.folders.patched), "every node runs the repaired build again")
    |> verify(kept?(story), "the state of every call is whole, in the new format")
    |> verify_traffic()
  end

  # A loop that is written by hand gets to the new code at its next round.
  defp settled do
    Cluster.wait_until("nobody runs old code", fn ->
      match?({:ok, %{items: []}}, Cluster.call(@operator, HotPatch, :stragglers, []))
    end)
  end

  ## 8

  defp close_books(story) do
    headline(8, "Close the books")
    story = verify_traffic(%{story | answers: Traffic.count(story.traffic)})
    say()

    for {_node, call} <- story.customers do
      %Exchange.Record{cents: @right_cents} = Exchange.hang_up(call)
    end

    # The customers of step 2 have ended by now, too.
    due =
      for {node, books} <- Traffic.stop(story.traffic) do
        customer = %{lines: 0, seconds: @customer_seconds, ended: 1, cents: @right_cents}
        {node, Map.merge(books, customer, fn _key, one, other -> one + other end)}
      end

    say("""
    What was talked and charged since the nodes started, counted by the subscribers and by the
    nodes, in processes whose state was converted:
    """)

    say()
    kept = Cluster.multicall(Exchange, :totals, [])

    table(
      ["node", "counted by", "lines in use", "seconds talked", "calls ended", "cents charged"],
      for {{node, due}, {node, kept}} <- Enum.zip(due, kept),
          {who, books} <- [{"subscribers", due}, {"the node", kept}] do
        [node, who, books.lines, books.seconds, books.ended, books.cents]
      end
    )

    say()
    verify(story, due == kept, "the books of every node agree with the subscribers'")
  end

  ## 9

  defp restart(story) do
    headline(9, "A node that restarts boots the repaired build")
    node = List.last(Cluster.nodes())
    say("#{node} is restarted, and loads everything from its disk; its calls end with it.")
    :ok = Cluster.restart(node)
    price = Cluster.call(node, Exchange, :price, [@customer, @customer_seconds])
    say("A call of #{@customer_seconds} seconds abroad costs #{price} cents there.")
    say()

    story
    |> verify(price == @right_cents, "the bug is gone there, too")
    |> verify(runs?(story, story.folders.patched), "every node runs the repaired build")
  end

  ## 10

  defp delete(story) do
    headline(10, "Delete what was uploaded, and look back")
    patches = operate(:list, [], "HotPatch.list()")
    Enum.each(patches, &answer/1)

    for patch <- patches, patch.kept_on != [] do
      answer(inspect(operate(:delete, [patch.id], code(:delete, patch.id))))
    end

    say()
    journal = must(:journal, [], "HotPatch.journal()")
    Enum.each(journal, &answer/1)
    say()
    left = Cluster.call(@operator, HotPatch, :list, [])

    story
    |> verify(Enum.all?(left, &(&1.kept_on == [])), "no archive is left")
    |> verify(Enum.any?(journal, &(&1.what == :rollback)), "what was done is written down")
    |> verify(runs?(story, story.folders.patched), "what was applied stays applied")
  end

  ## Helpers

  # Every node answers for a while, in the phase of this name.
  defp phase(story, phase), do: Traffic.phase(story.traffic, phase, @answers_per_phase)

  defp results(story, phase), do: Traffic.results(story.traffic, phase)

  # Every call is there, in the repaired build's format, and is what its subscriber knows.
  defp kept?(story), do: audit(story) == %{patched: story.total}

  defp audit(story), do: Traffic.audit(story.traffic)

  # The modules of the patch as a node runs them are those of the build in this folder.
  defp runs?(story, folder) do
    Enum.all?(story.changes, fn {module, _old, _new} ->
      # A module that the build does not have is not to run.
      md5 =
        with {^module, md5, _vsn} <- Archive.identity(Path.join(folder, "#{module}.beam")),
             do: md5

      Enum.all?(Cluster.nodes(), &(Cluster.loaded_md5(&1, module) == md5))
    end)
  end

  defp must(function, arguments, code) do
    case operate(function, arguments, code) do
      {:ok, result} -> result
      {:error, exception} -> raise exception_text(exception)
    end
  end

  defp operate(function, arguments, code) do
    prompt(@operator, code)
    Cluster.call(@operator, HotPatch, function, arguments)
  end

  defp upload_code(path), do: "HotPatch.upload(#{inspect(Path.basename(path))})"
  defp code(function, id), do: "HotPatch.#{function}(#{inspect(id)})"

  defp code(function, id, reason),
    do: "HotPatch.#{function}(#{inspect(id)}, reason: #{inspect(reason)})"

  defp exception_text(%{report: report} = exception) when report != nil,
    do: "#{Exception.message(exception)}\n\n#{report}"

  defp exception_text(exception), do: Exception.message(exception)

  # What went wrong is told once, in the step in which it was noticed.
  defp verify_traffic(story) do
    problems = Traffic.problems(story.traffic) -- story.problems
    dropped = Traffic.dropped(story.traffic) -- story.dropped
    answers = count(Traffic.count(story.traffic))
    Enum.each(Enum.take(problems, 5), &say/1)

    for {pid, reason} <- Enum.take(dropped, 5),
        do: say("#{inspect(pid)} ended: #{inspect(reason)}")

    %{story | problems: problems ++ story.problems, dropped: dropped ++ story.dropped}
    |> verify(problems == [], "every answer came and was right (#{answers} so far)")
    |> verify(dropped == [], "not one call was dropped")
  end

  defp verify(story, true, claim) do
    verdict(true, claim)
    story
  end

  defp verify(story, false, claim) do
    verdict(false, claim)
    %{story | failed: [claim | story.failed]}
  end
end
