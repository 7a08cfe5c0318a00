defmodule HotPatch.Console.UnitsTest do
  use ExUnit.Case, async: true

  alias HotPatch.Analysis
  alias HotPatch.Analysis.Finding
  alias HotPatch.Console.Commands
  alias HotPatch.Console.Config
  alias HotPatch.Console.HTML
  alias HotPatch.Console.HostNames
  alias HotPatch.Console.Inets.Heads
  alias HotPatch.Console.Lockout
  alias HotPatch.Console.Page
  alias HotPatch.Console.Page.Plans
  alias HotPatch.Console.Params
  alias HotPatch.Console.Password
  alias HotPatch.Console.Request
  alias HotPatch.Console.Sessions
  alias HotPatch.Console.User
  alias HotPatch.Console.View
  alias HotPatch.Plan
  alias HotPatch.Rehearsal

  doctest Heads
  doctest HostNames
  doctest Request
  doctest User
  doctest Commands

  describe "passwords" do
    test "a hash verifies its password and no other, and no two are the same" do
      hash = Password.hash("correct horse", 1_000)
      assert Password.verify("correct horse", hash)
      refute Password.verify("correct horsf", hash)
      refute Password.verify("", hash)
      assert hash != Password.hash("correct horse", 1_000)
      refute hash =~ "horse"
    end

    test "what is no hash verifies nothing" do
      for text <- [
            "",
            "plain",
            "pbkdf2-sha512$0$YQ$YQ",
            "pbkdf2-sha512$99999999999$YQ$YQ",
            "md5$1$YQ$YQ"
          ] do
        refute Password.hash?(text)
        refute Password.verify("plain", text)
      end
    end

    test "the derivation is that of RFC 8018, as others compute it" do
      # hashlib.pbkdf2_hmac("sha512", b"passwd", b"salt", 1, 32) of Python
      digest = "x0MZ2ZSZ/D6QE6z/WXwjxbrwoL7FY0xGuDUreT4yRyM"
      assert Password.verify("passwd", "pbkdf2-sha512$1$c2FsdA$" <> digest)
    end

    test "texts are compared as a whole" do
      assert Password.equal?("abc", "abc")
      refute Password.equal?("abc", "abd")
      refute Password.equal?("abc", "ab")
    end
  end

  describe "lock-out" do
    defp failures(count),
      do: Enum.reduce(1..count, %{}, fn _, f -> Lockout.failed(f, "alice", "1.1.1.1", 100) end)

    test "the first few cost nothing, then each costs more, to a bound" do
      waits =
        for n <- [1, 2, 3, 4, 5, 12, 40], do: Lockout.wait(failures(n), "alice", "1.1.1.1", 100)

      assert [0, 0, 1, 2, 4, 512, 900] = waits
      assert Lockout.wait(failures(5), "alice", "1.1.1.1", 104) == 0
    end

    test "who fails elsewhere does not lock one out for long" do
      assert Lockout.wait(failures(15), "alice", "2.2.2.2", 100) == 0
      assert Lockout.wait(failures(60), "alice", "2.2.2.2", 100) == 30
    end

    test "at one address, as of a proxy, each name waits for its own failures alone" do
      many = Enum.reduce(1..20, %{}, &Lockout.failed(&2, "n#{&1}", "1.1.1.1", 100))
      assert Lockout.strained?(many, "1.1.1.1", 100)
      assert Lockout.wait(many, "another", "1.1.1.1", 100) == 0
      # Nor do many names there go on for ever: each has one attempt.
      assert Lockout.wait(many, "n1", "1.1.1.1", 100) > 60
      failed = Lockout.failed(many, "another", "1.1.1.1", 100)
      assert Lockout.wait(failed, "another", "1.1.1.1", 100) > 60
      # Elsewhere it is no matter, and nothing of it is for ever.
      refute Lockout.strained?(many, "2.2.2.2", 100)
      assert Lockout.wait(failed, "another", "2.2.2.2", 100) == 0
      assert Lockout.wait(failed, "another", "1.1.1.1", 100 + 3_600) == 0
    end

    test "a success ends it, and a flood of names does not fill the memory" do
      assert Lockout.wait(
               Lockout.succeeded(failures(9), "alice", "1.1.1.1"),
               "alice",
               "1.1.1.1",
               100
             ) == 0

      flood = Enum.reduce(1..30_000, failures(9), &Lockout.failed(&2, "n#{&1}", "#{&1}", 100))
      assert map_size(flood) <= 10_003
      # However long a name may be.
      long = Lockout.failed(%{}, String.duplicate("n", 60_000), "1.1.1.1", 100)
      assert byte_size(:erlang.term_to_binary(long)) < 1_000
      assert Lockout.wait(flood, "alice", "1.1.1.1", 100) > 0
    end
  end

  describe "configuration" do
    test "what is wrong is named, and no secret with it" do
      for {options, text} <- [
            {[port: 70_000], "port"},
            {[ip: "localhost"], "ip"},
            {[accounts: [%{name: "a", role: :admin, password: "secret"}]], "accounts"},
            {[tokens: [%{name: "a", role: :root, sha256: "secret"}]], "tokens"},
            {[login: NoSuchModule], "login"},
            {[prot: 1], "prot"},
            {[port: 1, port: 2], "port is given twice"},
            {[hosts: "console.test"], "hosts"},
            {[hosts: ["https://console.test"]], "hosts"},
            {[accounts: [%{name: "a\u202E", role: :admin, password: Password.hash("x", 1)}]],
             "accounts"},
            {:on, "keyword"}
          ] do
        assert {:error, message} = Config.new(options)
        assert message =~ text
        refute message =~ "secret"
      end
    end

    test "two names for one token are refused: which of them would it be?" do
      token = &%{name: &1, role: &2, sha256: Password.digest("secret")}
      assert {:error, text} = Config.new(tokens: [token.("a", :admin), token.("b", :viewer)])
      assert text =~ "a and b"
      refute text =~ Password.digest("secret")
      assert {:ok, _config} = Config.new(tokens: [token.("a", :admin)])
    end

    test "the digest of nothing is no token" do
      tokens = [%{name: "ci", role: :admin, sha256: Password.digest("")}]
      assert {:error, text} = Config.new(tokens: tokens)
      assert text =~ "has for ci the sha256 of an empty text"
    end

    test "of two configurations it is known whose access has gone" do
      account = &%{name: &1, role: &2, password: Password.hash("x", 1)}
      [alice, bob, carol] = for name <- ["alice", "bob", "carol"], do: account.(name, :admin)
      token = &%{name: &1, role: :admin, sha256: Password.digest(&2)}

      {:ok, former} =
        Config.new(accounts: [alice, bob, carol], tokens: [token.("t", "1"), token.("u", "2")])

      {:ok, config} =
        Config.new(
          accounts: [alice, %{bob | role: :viewer}, %{carol | password: Password.hash("y", 1)}],
          tokens: [token.("t", "1"), token.("u", "3"), token.("v", "4")]
        )

      assert Config.withdrawn(former, config) == [user: "bob", user: "carol", token: "u"]
      assert Config.withdrawn(former, former) == []
      assert Config.withdrawn(former, %{former | login: __MODULE__}) == :everybody
    end

    test "what is logged of it has no hashes" do
      account = %{name: "alice", role: :admin, password: Password.hash("x", 1)}
      {:ok, config} = Config.new(port: 1, accounts: [account])
      refute inspect(config) =~ "pbkdf2"
    end
  end

  describe "the names under which it answers" do
    test "are those of the addresses on which it listens, and the configured ones" do
      known = fn options, host ->
        {:ok, config} = Config.new(options)
        HostNames.known?(config, host)
      end

      {:ok, name} = :inet.gethostname()
      loopback = [port: 4040]
      all = [port: 4040, ip: {0, 0, 0, 0}]
      one = [port: 4040, ip: {192, 0, 2, 1}]

      for {options, host, expected} <- [
            {loopback, "127.0.0.1:4040", true},
            {loopback, "localhost", true},
            {loopback, "LocalHost.:4040", true},
            {loopback, "[::1]:4040", true},
            {loopback, "evil.test", false},
            {loopback, "localhost.evil.test", false},
            {loopback, "127.0.0.1.evil.test", false},
            {loopback, "192.0.2.1", false},
            {loopback, "#{name}", false},
            {loopback, "", false},
            {loopback, nil, false},
            {loopback, "localhost:4040@evil.test", false},
            {loopback, "2130706433", false},
            {[port: 4040, ip: {0, 0, 0, 0, 0, 0, 0, 1}], "[::1]", true},
            {all, "localhost:4040", true},
            {all, "192.0.2.1:4040", true},
            {all, "[2001:db8::1]", true},
            {all, "#{name}:4040", true},
            {all, "evil.test", false},
            {one, "192.0.2.1", true},
            {one, "192.0.2.2", false},
            {one, "localhost", false},
            {loopback ++ [hosts: ["Patch.Example.com"]], "patch.example.com:443", true},
            {loopback ++ [hosts: ["patch.example.com"]], "localhost", true},
            {loopback ++ [hosts: ["patch.example.com"]], "other.example.com", false},
            # Within a host application.
            {[], "whatever.test", true},
            {[hosts: ["patch.example.com"]], "patch.example.com", true},
            {[hosts: ["patch.example.com"]], "localhost", false}
          ] do
        assert {options, host, known.(options, host)} == {options, host, expected}
      end
    end
  end

  describe "connections that are too many" do
    test "go newest first, from the address that has most of those that wait" do
      of = fn address, count, from -> for n <- 1..count, do: {{address, n}, address, from + n} end

      # One that came last, and is alone, stays.
      waiting = of.(:flood, 100, 0) ++ of.(:slow, 1, 1_000)
      assert Heads.too_many(waiting, 3) == [flood: 100, flood: 99, flood: 98]
      assert {:slow, 1} not in Heads.too_many(waiting, 99)

      # Two alike give way by turns.
      assert Heads.too_many(of.(:a, 3, 0) ++ of.(:b, 2, 10), 3) == [a: 3, b: 2, a: 2]
      assert length(Heads.too_many(waiting, 500)) == 101
      assert Heads.too_many([], 3) == []
      # Where no address is known the newest goes.
      assert Heads.too_many([{:x, nil, 1}, {:y, nil, 2}], 1) == [:y]
    end
  end

  describe "sessions that are too many" do
    test "are the user's own, or of whoever has most, a viewer before an admin" do
      session = fn name, role, n ->
        %{id: "#{name}#{n}", user: %User{name: name, role: role}, key: "", until: 0, nth: n}
      end

      of = fn name, role, count -> for n <- 1..count, do: session.(name, role, n) end
      alice = %User{name: "alice", role: :admin}
      eve = %User{name: "eve", role: :viewer}
      assert Sessions.surplus(of.("eve", :viewer, 19), eve) == nil
      assert Sessions.surplus(of.("eve", :viewer, 20) ++ of.("alice", :admin, 1), eve) == "eve1"
      assert Sessions.surplus(of.("eve", :viewer, 20) ++ of.("alice", :admin, 1), alice) == nil

      # Many users of a host's own login fill all there is.
      viewers = Enum.flat_map(1..50, &of.("viewer#{&1}.", :viewer, 19))

      full =
        viewers ++
          of.("carol", :admin, 19) ++ of.("dave", :viewer, 19) ++ of.("alice", :admin, 12)

      assert length(full) == 1_000
      assert "viewer" <> _ = Sessions.surplus(full, alice)
      admins = for n <- 1..999, do: session.("admin#{n}.", :admin, n)
      assert Sessions.surplus([session.("eve", :viewer, 5_000) | admins], alice) == "eve5000"
      assert Sessions.surplus([session.("bob", :admin, 0) | admins], alice) == "bob0"
    end
  end

  describe "parameters" do
    test "become options; what is not known is refused, and no atom is made" do
      assert {:ok, options} =
               Params.options(:apply, %{
                 "reason" => ["x"],
                 "transition" => ["none"],
                 "pause_timeout" => [""],
                 "form" => ["t"],
                 "canary" => ["0.1"]
               })

      assert Enum.sort(options) == [canary: 0.1, reason: "x", transition: :none]
      name = "no_such_option_#{System.unique_integer([:positive])}"
      assert {:error, text} = Params.options(:apply, %{name => ["1"]})
      assert text =~ name
      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end

      for {name, value} <- [{"purge", "maybe"}, {"timeout", "soon"}, {"nodes", "a@b"}] do
        assert {:error, text} = Params.options(:apply, %{name => [value]})
        assert text =~ name
      end

      assert {:error, _twice} = Params.options(:apply, %{"reason" => ["a", "b"]})

      assert {:ok, [nodes: [node]]} =
               Params.options(:check, %{"nodes" => [Atom.to_string(node())]})

      assert node == node()
    end
  end

  describe "HTML" do
    test "every value is escaped, once" do
      hostile = ~s|<img src=x onerror='alert(1)'>&"|

      assert IO.iodata_to_binary(HTML.escape(hostile)) ==
               "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&quot;"

      assert IO.iodata_to_binary(HTML.escape([hostile, {:safe, "<b>"}, nil, 1, :ok])) =~
               "&quot;<b>1ok"

      # Nor does it turn the direction of what stands beside it.
      assert IO.iodata_to_binary(HTML.escape("a\u202Eb\e\nc")) == "a\\u{202e}b\\u{1b}\nc"

      # What is no text is shown as what it is.
      assert IO.iodata_to_binary(HTML.escape(<<255, "<">>)) == "&lt;&lt;255, 60&gt;&gt;"
    end

    test "the seven statuses differ in symbol and word" do
      shapes =
        for {status, _meaning} <- View.meanings() do
          text = View.status(status) |> HTML.to_iodata() |> IO.iodata_to_binary()

          assert text =~ "s-#{status}" and
                   text =~ ">#{HotPatch.Status.code(status)}</small></span>" and
                   text =~ String.replace("#{status}", "_", " ") <> " <small"

          [_, shape] = Regex.run(~r/<svg[^>]*>(.*)<\/svg>/, text)
          shape
        end

      assert length(Enum.uniq(shapes)) == 7
    end
  end

  test "a rehearsal is shown with what failed, what was left out, and nothing that is no text" do
    failure = %{
      reason: "badmatch {_, _}",
      place: "a.ex:1: A.b/2",
      count: 2,
      processes: ["#PID<0.1.0>"]
    }

    module = %Rehearsal.ModuleResult{
      module: "A",
      kind: :server,
      processes: 5,
      tried: 4,
      forms: [%{from: "{_, _}", to: "%{<b>}", count: 2}],
      failures: [failure],
      left_out: [%{why: :too_large, count: 1, text: Rehearsal.ModuleResult.text(:too_large)}]
    }

    node = %Rehearsal.NodeResult{node: :a@h, outcome: :failed, modules: [module], late: ["who"]}
    unknown = Rehearsal.NodeResult.unknown(:b@h, "did not answer in time")
    node = Rehearsal.NodeResult.judged(node)

    rehearsal = %Rehearsal{
      patch: "x",
      outcome: Rehearsal.Outcome.combine([node.outcome, unknown.outcome]),
      nodes: [node, unknown],
      effective: [%{module: "Elixir.B", function: "code_change/3", calls: ["sends a message"]}],
      started_at: DateTime.utc_now()
    }

    html = rehearsal |> Page.Rehearsals.findings() |> HTML.to_iodata() |> IO.iodata_to_binary()
    table = to_string(rehearsal)

    for text <- [
          "badmatch {_, _}",
          "a.ex:1: A.b/2",
          "would be late: who",
          "did not answer in time",
          "sends a message",
          "larger than max_state_bytes"
        ] do
      assert html =~ text
      assert table |> String.split() |> Enum.join(" ") =~ text
    end

    assert html =~ "%{&lt;b&gt;}"
    assert Rehearsal.failure(rehearsal) =~ "the new code of A failed for 2 processes"
  end

  test "a plan says once what it says of several nodes" do
    node = fn name, pid ->
      %Plan.NodePlan{
        node: name,
        status: :ok,
        order: [replace: "A"],
        risks: [
          %Plan.Risk{
            message: "A is run by 1 process: not paused",
            about: "A",
            processes: ["#PID<0.#{pid}.0>"]
          }
        ]
      }
    end

    plan = %Plan{patch: "x", status: :ok, nodes: [node.(:a@h, 1), node.(:b@h, 2)]}

    assert %{
             risks: [{"A is run by 1 process: not paused", [:a@h, :b@h]}],
             orders: [{[:a@h, :b@h], _}]
           } = Plans.digest(plan)

    assert %{risks: [{"A is run by 1 process: not paused (#PID<0.1.0>)", [:a@h]}]} =
             Plans.digest(%{plan | nodes: [node.(:a@h, 1)]})

    # What names processes in its message is that of one node, as is why a node could not be asked.
    away = %{node.(:c@h, 3) | risks: [%Plan.Risk{message: "held by #PID<0.3.0>"}], error: "late"}

    assert %{
             risks: [
               {"A is run by 1 process: not paused", [:a@h, :b@h]},
               {"held by #PID<0.3.0>", [:c@h]},
               {"late", [:c@h]}
             ]
           } = Plans.digest(%{plan | nodes: plan.nodes ++ [away]})

    found = fn name, severity, processes ->
      %Finding{
        name: name,
        severity: severity,
        module: "A",
        items: [],
        message: "m",
        processes: processes
      }
    end

    analysis =
      &%Analysis{
        modules: [],
        order: [],
        stateless?: false,
        findings: [
          found.(:on_load, :warning, &1),
          found.(:cycle, :info, 0),
          found.(:role_changed, :danger, 1)
        ]
      }

    nodes = [
      %{node.(:a@h, 1) | analysis: analysis.(1)},
      %{node.(:b@h, 2) | analysis: analysis.(2)}
    ]

    assert %{findings: findings} = Plans.digest(%{plan | nodes: nodes})

    assert [{:role_changed, [:a@h, :b@h]}, {:on_load, [:a@h, :b@h]}, {:cycle, _}] =
             for({finding, at} <- findings, do: {finding.name, at})

    assert {Plans.range([2, 2]), Plans.range([3, 1])} == {"2", "1 to 3"}
  end

  describe "pictures" do
    alias HotPatch.Console.Page.Pictures
    alias HotPatch.Composition
    alias HotPatch.Report

    defp drawn({:safe, svg}), do: IO.iodata_to_binary(svg)
    defp many(text, part), do: length(String.split(text, part)) - 1

    test "what a pause went into: a bar for each phase, of the node that took longest first" do
      phases = fn factor ->
        for {name, from, until} <- [{:suspend, 0, 200}, {:load, 300, 320}, {:resume, 320, 500}],
            do: %Report.Phase{phase: name, from_us: from * factor, until_us: until * factor}
      end

      nodes =
        for {name, factor} <- [{:a@h, 1}, {:"<b>@h", 2}],
            do: %Report.NodeResult{node: name, status: :ok, phases: phases.(factor)}

      report = %Report{
        operation: :apply,
        patch: "p",
        status: :ok,
        nodes: nodes,
        started_at: DateTime.utc_now()
      }

      svg = report |> Pictures.timeline() |> drawn()
      assert many(svg, ~s(<rect class="ph-suspend")) == 2
      assert [_, first | _] = String.split(svg, ~s(class="name"))
      assert first =~ "&lt;b&gt;@h" and first =~ ~s(<title>suspend: 0.4 ms</title>)
      refute svg =~ "style="
      assert Pictures.timeline(%{report | nodes: Enum.map(nodes, &%{&1 | phases: []})}) == nil
    end

    test "which modules call which: an arc for each pair, and a circle around those that call each other" do
      file = fn name, calls ->
        %{beam: %{module: name, imports: for(called <- calls, do: {called, "f", 1})}}
      end

      composition =
        struct!(Composition, %{
          Map.from_struct(struct(Composition))
          | files: [
              file.("Elixir.Shop.Cart", ["Elixir.Shop.Price", "Elixir.Shop.Price", "lists"]),
              file.("Elixir.Shop.Price", ["shop_tax"]),
              file.("shop_tax", ["Elixir.Shop.Price"])
            ]
        })

      analysis = %Analysis{
        modules: [],
        order: [["Elixir.Shop.Price", "shop_tax"], ["Elixir.Shop.Cart"]],
        findings: [],
        stateless?: true
      }

      order = [replace: "Shop.Price", replace: ":shop_tax", add: "Shop.Cart"]
      node = %Plan.NodePlan{node: :a@h, status: :ok, order: order, analysis: analysis}
      plan = %Plan{patch: "p", status: :ok, nodes: [node]}

      svg = plan |> Pictures.calls(composition) |> drawn()
      assert many(svg, "<path ") == 3
      assert [_, to_later] = String.split(svg, ~s(<path class="later"))
      assert to_later =~ "Elixir.Shop.Price calls shop_tax"
      assert many(svg, ~s(<rect class="circle")) == 1
      assert svg =~ "3. Shop.Cart"

      one = %{plan | nodes: [%{node | order: [replace: "Shop.Price"]}]}
      assert Pictures.calls(one, composition) == nil
    end
  end
end
