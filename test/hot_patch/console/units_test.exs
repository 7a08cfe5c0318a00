defmodule HotPatch.Console.UnitsTest do
  use ExUnit.Case, async: true

  alias HotPatch.Analysis
  alias HotPatch.Analysis.Finding
  alias HotPatch.Console.Act
  alias HotPatch.Console.Config
  alias HotPatch.Console.HTML
  alias HotPatch.Console.Lockout
  alias HotPatch.Console.Page.Plans
  alias HotPatch.Console.Params
  alias HotPatch.Console.Password
  alias HotPatch.Console.Request
  alias HotPatch.Console.User
  alias HotPatch.Console.View
  alias HotPatch.Plan

  doctest Request
  doctest User
  doctest Act

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
      # Nor do many names at one address go on for ever.
      many = Enum.reduce(1..20, %{}, &Lockout.failed(&2, "n#{&1}", "1.1.1.1", 100))
      assert Lockout.wait(many, "another", "1.1.1.1", 100) > 60
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
            {:on, "keyword"}
          ] do
        assert {:error, message} = Config.new(options)
        assert message =~ text
        refute message =~ "secret"
      end
    end

    test "what is logged of it has no hashes" do
      account = %{name: "alice", role: :admin, password: Password.hash("x", 1)}
      {:ok, config} = Config.new(port: 1, accounts: [account])
      refute inspect(config) =~ "pbkdf2"
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

    test "every option that a form can hold is one of the call" do
      for {call, names} <- [
            apply:
              ~w(transition pause_timeout on_load drift purge cumulative again canary max_concurrency watch on_failure nodes reason),
            rollback: ~w(transition pause_timeout on_load purge nodes reason),
            delete: ~w(reason),
            restart: ~w(force reason)
          ],
          name <- names do
        {_error, text} = Params.options(call, %{name => ["?", "?"]})
        refute text =~ "not known", "#{call} #{name}"
      end
    end
  end

  describe "HTML" do
    test "every value is escaped, once" do
      hostile = ~s|<img src=x onerror='alert(1)'>&"|

      assert IO.iodata_to_binary(HTML.escape(hostile)) ==
               "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&quot;"

      assert IO.iodata_to_binary(HTML.escape([hostile, {:safe, "<b>"}, nil, 1, :ok])) =~
               "&quot;<b>1ok"

      # What is no text is shown as what it is.
      assert IO.iodata_to_binary(HTML.escape(<<255, "<">>)) == "&lt;&lt;255, 60&gt;&gt;"
    end

    test "the seven statuses differ in symbol and word" do
      shapes =
        for {status, _meaning} <- View.meanings() do
          text = View.status(status) |> HTML.to_iodata() |> IO.iodata_to_binary()

          assert text =~ "s-#{status}" and
                   text =~ String.replace("#{status}", "_", " ") <> "</span>"

          [_, shape] = Regex.run(~r/<svg[^>]*>(.*)<\/svg>/, text)
          shape
        end

      assert length(Enum.uniq(shapes)) == 7
    end
  end

  test "a plan says once what it says of several nodes" do
    node = fn name, pid ->
      %Plan.Node{
        node: name,
        status: :ok,
        order: [replace: "A"],
        risks: ["A is run by 1 process (#PID<0.#{pid}.0>): not paused"]
      }
    end

    plan = %Plan{patch: "x", status: :ok, nodes: [node.(:a@h, 1), node.(:b@h, 2)]}

    assert %{
             risks: [{"A is run by 1 process: not paused", [:a@h, :b@h]}],
             orders: [{[:a@h, :b@h], _}]
           } = Plans.digest(plan)

    assert %{risks: [{"A is run by 1 process (#PID<0.1.0>): not paused", [:a@h]}]} =
             Plans.digest(%{plan | nodes: [node.(:a@h, 1)]})

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
end
