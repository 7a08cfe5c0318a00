defmodule HotPatch.ConsoleTest do
  # The console as the function that it is, without a server.
  use ExUnit.Case, async: false

  alias HotPatch.Console
  alias HotPatch.Console.Request
  alias HotPatch.Console.Sessions
  alias HotPatch.Console.User
  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Declared

  import HotPatch.Test.Console

  defmodule HostLogin do
    @behaviour HotPatch.Console.Login

    @impl true
    def user(request) do
      case Request.cookie(request, "host") do
        nil -> :error
        name -> {:ok, %User{name: name, role: role(Request.cookie(request, "role"))}}
      end
    end

    defp role("viewer"), do: :viewer
    defp role(_none), do: :admin

    @impl true
    def login_path(_request), do: "https://host.test/sign-in"
  end

  setup do
    on_exit(fn ->
      for patch <- HotPatch.list(), patch.kept_on != [], do: HotPatch.delete(patch.id)
    end)
  end

  defp header(response, name) do
    case List.keyfind(response.headers, name, 0) do
      {_name, value} -> value
      nil -> nil
    end
  end

  defp text(response), do: IO.iodata_to_binary(response.body)

  defp get(target, headers), do: Console.call(request("GET", target, headers: headers))

  defp post(target, form, headers),
    do: Console.call(request("POST", target, headers: headers, body: URI.encode_query(form)))

  defp zip(name), do: Archives.zip([{"priv/#{name}", "text"}])

  defp upload(headers, bytes \\ zip("a"), file \\ "fix.zip") do
    Console.call(
      request("POST", "/api/patches?" <> URI.encode_query(file: file),
        headers: headers,
        body: bytes
      )
    )
  end

  defp uploaded do
    %{status: 201} = response = upload(token("deploy"))
    [_, id] = Regex.run(~r/"id":"([^"]+)"/, text(response))
    id
  end

  describe "who may" do
    setup do
      start!()
      :ok
    end

    test "nobody sees anything without a login" do
      for path <- ["/", "/patch", "/patch/x", "/nodes", "/journal", "/live", "/patch/x/apply"] do
        response = get(path, %{})
        assert response.status == 303
        assert header(response, "location") =~ "/login"
      end

      for path <- ["/api/patches", "/api/nodes", "/api/events", "/api/journal"] do
        response = get(path, %{})
        assert response.status == 401
        assert header(response, "content-type") == "application/problem+json"
        assert header(response, "www-authenticate") =~ "Bearer"
      end

      assert %{status: 401} = get("/api/nodes", %{"authorization" => "Bearer token-of-nobody"})
      assert %{status: 401} = get("/api/nodes", %{"authorization" => "Basic YWxpY2U6eA=="})
      assert %{status: 303} = get("/nodes", %{"cookie" => "hot_patch=guess"})
    end

    test "after the login one is where one wanted to go, if that is here" do
      assert header(get("/patch/a%20b", %{}), "location") == "/login?next=%2Fpatch%2Fa%2520b"
      body = &URI.encode_query(name: "alice", password: password(), next: &1)

      to = fn next ->
        header(Console.call(request("POST", "/login", body: body.(next))), "location")
      end

      assert to.("/nodes") == "/nodes"
      assert to.("//evil.test") == "/patch"
      assert to.("https://evil.test") == "/patch"
      assert to.("/nodes\r\nx: y") == "/patch"
    end

    test "a wrong password is refused as a wrong name is, and then one has to wait" do
      try_one = fn name, password ->
        Console.call(
          request("POST", "/login",
            peer: "192.0.2.9",
            body: URI.encode_query(name: name, password: password)
          )
        )
      end

      assert %{status: 401} = try_one.("nobody", "x")
      for _ <- 1..3, do: assert(%{status: 401} = try_one.("alice", "x"))
      assert %{status: 401} = try_one.("alice", "x") |> wait_out(fn -> try_one.("alice", "x") end)
      assert %{status: 429} = response = try_one.("alice", password())
      assert header(response, "retry-after")
      # From elsewhere she can.
      assert %{"cookie" => _} = log_in("alice")
    end

    # The first of the delays is a second, and may be over or not.
    defp wait_out(%{status: 429}, fun) do
      response = fun.()
      if response.status == 429, do: wait_out(response, fun), else: response
    end

    defp wait_out(response, _fun), do: response

    test "a viewer sees and does not act" do
      id = uploaded()

      for headers <- [token("monitor"), log_in("eve")] do
        assert %{status: 200} = get("/patch/#{id}", headers)
        assert %{status: 200} = get("/api/patches", headers)
        assert %{status: 403} = get("/patch/#{id}/apply", headers)
        assert %{status: 403} = upload(headers)
        assert %{status: 403} = post("/api/patches/#{id}/apply", [], headers)
        assert %{status: 403} = post("/patch/#{id}/delete", [], headers)
        assert %{status: 403} = post("/nodes/#{node()}/restart", [reason: "x"], headers)

        assert %{status: 403} =
                 Console.call(request("DELETE", "/api/patches/#{id}", headers: headers))
      end

      refute text(get("/patch", log_in("eve"))) =~ ~s(id="upload")
      assert %{items: [%{state: :uploaded}]} = HotPatch.list()
    end

    test "the cookie is for this host and its own pages only, and for TLS under TLS" do
      cookie = fn fields ->
        body = URI.encode_query(name: "alice", password: password())
        header(Console.call(request("POST", "/login", [body: body] ++ fields)), "set-cookie")
      end

      assert cookie.([]) =~ ~r"\Ahot_patch=[\w-]{43}; Path=/; HttpOnly; SameSite=Strict\z"

      assert cookie.(secure?: true) =~
               ~r"\A__Host-hot_patch=[\w-]+; Path=/; HttpOnly; SameSite=Strict; Secure\z"

      assert cookie.(base: "/admin") =~ "Path=/admin;"

      assert header(
               Console.call(request("GET", "/login", secure?: true)),
               "strict-transport-security"
             )
    end

    test "logging out ends the session itself, the user's others, and nobody else's" do
      [headers, elsewhere, eve] = [log_in("alice"), log_in("alice"), log_in("eve")]
      form = form_token(get("/nodes", headers).body, "/logout")
      assert %{status: 303} = post("/logout", [form: form], headers)
      assert %{status: 303} = get("/nodes", headers)
      assert %{status: 303} = get("/nodes", elsewhere)
      assert %{status: 200} = get("/nodes", eve)
    end

    test "a token's scheme is the same in small letters; another one is none" do
      for scheme <- ["Bearer", "bearer", "BEARER", "Bearer  "],
          do: assert(%{status: 200} = get("/api/nodes", authorization(scheme)))

      for header <- ["Basic token-of-deploy", "token-of-deploy", "Bearer", "Bearer ", ""],
          do: assert(%{status: 401} = get("/api/nodes", %{"authorization" => header}))
    end

    defp authorization(scheme), do: %{"authorization" => scheme <> " token-of-monitor"}

    test "a viewer's thousand logins leave the admin's session alone, and are few" do
      alice = log_in("alice")
      eve = %User{name: "eve", role: :viewer}
      cookies = for _ <- 1..1_100, do: eve |> Sessions.begin() |> elem(0)
      assert %{status: 200} = get("/nodes", alice)
      alive = Enum.filter(cookies, &match?({:ok, _session}, Sessions.fetch(&1)))
      # The latest of hers.
      assert alive == Enum.take(cookies, -20)
    end

    @tag :slow
    test "others' failures behind the same proxy lock nobody out" do
      try_one = fn name, password ->
        body = URI.encode_query(name: name, password: password)
        Console.call(request("POST", "/login", peer: "198.51.100.1", body: body)).status
      end

      for n <- 1..15, do: assert(try_one.("nobody#{n}", "x") == 401)
      assert try_one.("nobody1", "x") == 429
      assert try_one.("nobody16", "x") == 401
      assert try_one.("eve", "wrong") == 401
      assert try_one.("eve", password()) == 429
      assert try_one.("alice", password()) == 303
    end

    test "the log tells from where a login came, and no name that is not an account's" do
      log = fn name, password ->
        ExUnit.CaptureLog.capture_log(fn ->
          body = URI.encode_query(name: name, password: password)
          Console.call(request("POST", "/login", peer: "203.0.113.5", body: body))
        end)
      end

      assert log.("alice", "wrong") =~
               "a login as alice at the console from 203.0.113.5 has failed"

      unknown = log.("my password\e[2J", "x")
      assert unknown =~ "a login at the console from 203.0.113.5 has failed"
      refute unknown =~ "my password"
      assert log.("eve", password()) =~ "eve has logged in at the console from 203.0.113.5"
    end
  end

  describe "a stream of events" do
    # Runs the stream in a process of its own; what it sends comes here, and its end.
    defp stream!(headers, target \\ "/api/events") do
      %{status: 200, body: {:stream, run}} = get(target, headers)
      test = self()
      send_out = fn data -> send(test, {self(), IO.iodata_to_binary(data)}) && :ok end

      {pid, monitor} =
        spawn_monitor(fn ->
          run.(send_out)
          send(test, {self(), :over})
        end)

      assert_receive {^pid, "event: progress" <> _}
      {pid, monitor}
    end

    defp ended!({pid, monitor}) do
      assert_receive {^pid, "event: ended\ndata:\n\n"}
      assert_receive {^pid, :over}
      assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}
    end

    defp goes_on!({pid, _monitor}) do
      # It has looked again, and sent a sign of life.
      assert_receive {^pid, ": \n\n"}
      refute_received {^pid, "event: ended" <> _}
      Process.exit(pid, :kill)
    end

    defp configure(options) do
      Application.put_env(:hot_patch, :console, options)

      on_exit(fn ->
        Application.delete_env(:hot_patch, :console)
        # Read anew by `reload/0`, it would be there for the tests that follow.
        :ok = HotPatch.Host.Config.load()
      end)
    end

    @tag :slow
    test "ends with the logout of its user" do
      start!()
      headers = log_in("alice")
      mine = stream!(log_in("alice"))
      page = stream!(Map.put(log_in("alice"), "accept", "text/event-stream"), "/live")
      others = [stream!(log_in("eve")), stream!(token("deploy"))]
      form = form_token(get("/nodes", headers).body, "/logout")
      assert %{status: 303} = post("/logout", [form: form], headers)
      ended!(mine)
      ended!(page)
      Enum.each(others, &goes_on!/1)
    end

    @tag :slow
    test "ends with a role that is taken away, and so do sessions, forms and tokens" do
      start!()
      [alice, eve] = [log_in("alice"), log_in("eve")]
      id = uploaded()
      form = form_token(get("/patch/#{id}/delete", alice).body, "/patch/#{id}/delete\"")
      gone = [stream!(alice), stream!(token("monitor"))]
      stay = [stream!(eve), stream!(token("deploy"))]

      %{accounts: accounts, tokens: tokens} = HotPatch.Console.Config.current()

      configure(
        accounts:
          Enum.map(accounts, &if(&1.name == "alice", do: %{&1 | role: :viewer}, else: &1)),
        tokens: Enum.reject(tokens, &(&1.name == "monitor"))
      )

      # As a release upgrade and a patch's `config:` do.
      assert :ok = HotPatch.Application.config_change([console: []], [], [])
      Enum.each(gone, &ended!/1)
      Enum.each(stay, &goes_on!/1)
      assert %{status: 303} = get("/nodes", alice)
      assert %{status: 200} = get("/nodes", eve)
      assert %{status: status} = post("/patch/#{id}/delete", [form: form, reason: "x"], alice)
      assert status in [401, 403]
      assert %{items: [%{id: ^id}]} = HotPatch.list()
      assert %{status: 401} = get("/api/nodes", token("monitor"))
      # She can log in again, as what she is now.
      alice = log_in("alice")
      assert %{status: 403} = get("/patch/#{id}/delete", alice)
    end

    test "ends where the host's login no longer knows its user, or by another role" do
      start!(login: HostLogin)
      carol = stream!(%{"cookie" => "host=carol"})
      :ok = Console.log_out("carol")
      ended!(carol)

      response = get("/nodes", %{"cookie" => "host=dave"})
      [session | _] = header(response, "set-cookie") |> String.split(";")
      dave = stream!(%{"cookie" => "host=dave; #{session}"})
      # The host tells of it with the next request, whichever that is.
      assert %{status: 200} = get("/nodes", %{"cookie" => "host=dave; role=viewer; #{session}"})
      ended!(dave)
    end

    @tag :slow
    test "a configuration that is wrong changes nothing; one that is gone ends it all" do
      start!()
      alice = log_in("alice")
      configure(accounts: :none)
      assert {:error, text} = Console.reload()
      assert text =~ "accounts"
      assert %{status: 200} = get("/nodes", alice)

      stream = stream!(alice)
      configure(false)
      assert :ok = Console.reload()
      assert %{status: 404} = get("/nodes", alice)
      ended!(stream)
    end

    test "one user has some at a time, not all there are" do
      start!()
      streams = for _ <- 1..20, do: stream!(token("monitor"))
      %{body: {:stream, run}} = get("/api/events", token("monitor"))
      test = self()
      run.(fn data -> send(test, {:full, IO.iodata_to_binary(data)}) && :ok end)
      assert_received {:full, "event: full" <> _}
      for {pid, _monitor} <- streams ++ [stream!(token("deploy"))], do: Process.exit(pid, :kill)
    end
  end

  describe "the name under which a request comes" do
    setup do
      start!(hosts: ["console.test"])
      :ok
    end

    test "is one of the console's, or nothing is answered" do
      id = uploaded()
      evil = &Map.put(&1, "host", "evil.test")
      assert %{status: 200} = get("/nodes", token("monitor"))

      for {method, target} <- [
            {"GET", "/login"},
            {"POST", "/login"},
            {"GET", "/nodes"},
            {"GET", "/assets/console.js"},
            {"GET", "/api/nodes"},
            {"GET", "/api/events"},
            {"POST", "/api/patches"},
            {"POST", "/api/patches/#{id}/apply"},
            {"DELETE", "/api/patches/#{id}"}
          ] do
        request = request(method, target, headers: evil.(token("deploy")))
        assert {:refuse, %{status: 421}} = Console.head(request)
        response = Console.call(request)
        assert response.status == 421
        assert text(response) =~ ~r/does not answer as \\?"evil.test/
        assert text(response) =~ "hosts:"
        assert text(response) =~ "urn:hot_patch:host" == String.starts_with?(target, "/api")
        refute text(response) =~ Atom.to_string(node())
      end

      assert %{items: [%{id: ^id}]} = HotPatch.list()

      # A right password is of no use there, either.
      body = URI.encode_query(name: "alice", password: password())
      response = Console.call(request("POST", "/login", headers: evil.(%{}), body: body))
      assert {response.status, header(response, "set-cookie")} == {421, nil}
    end
  end

  describe "forms" do
    setup do
      start!()
      %{id: uploaded(), alice: log_in("alice")}
    end

    test "a form is good once, in its session, and from our own pages", %{id: id, alice: alice} do
      page = get("/patch/#{id}/delete", alice)
      form = form_token(page.body, "/patch/#{id}/delete\"")
      path = "/patch/#{id}/delete"

      assert %{status: 403} = post(path, [reason: "x"], alice)
      assert %{status: 403} = post(path, [form: "x"], alice)
      assert %{status: 403} = post(path, [form: form], log_in("alice"))

      assert %{status: 403} =
               post(path, [form: form], Map.put(alice, "origin", "https://evil.test"))

      assert %{status: 403} = post(path, [form: form], Map.put(alice, "origin", "null"))

      assert %{status: 403} =
               post(path, [form: form], Map.put(alice, "sec-fetch-site", "cross-site"))

      assert %{status: 403} =
               post(path, [form: form], Map.put(alice, "sec-fetch-site", "same-site"))

      assert %{items: [%{id: ^id}]} = HotPatch.list()

      ours =
        Map.merge(alice, %{"origin" => "http://console.test", "sec-fetch-site" => "same-origin"})

      assert %{status: 303} = post(path, [form: form], ours)
      assert %{items: []} = HotPatch.list()
      assert %{status: 409} = response = post(path, [form: form], ours)
      assert text(response) =~ "sent already"
    end

    test "another site's page does not log anybody in", %{} do
      body = URI.encode_query(name: "alice", password: password())
      headers = %{"origin" => "https://evil.test"}

      assert %{status: 403} =
               Console.call(request("POST", "/login", headers: headers, body: body))
    end

    test "an upload needs a form's token too, before its body is read, and gets the next", %{
      alice: alice
    } do
      form = form_token(get("/patch", alice).body, ~s(id="upload"))

      head = fn headers ->
        Console.head(
          request("POST", "/api/patches",
            headers: Map.merge(headers, %{"content-length" => "100"})
          )
        )
      end

      assert {:refuse, %{status: 403}} = head.(alice)
      assert {:read, _} = head.(Map.put(alice, "x-form-token", form))
      assert %{status: 201} = response = upload(Map.put(alice, "x-form-token", form), zip("b"))
      assert %{status: 409} = upload(Map.put(alice, "x-form-token", form), zip("c"))

      assert %{status: 201} =
               upload(Map.put(alice, "x-form-token", header(response, "x-form-token")), zip("c"))
    end
  end

  describe "the head of a request" do
    setup do
      start!()
      :ok
    end

    test "is enough to refuse it" do
      head = fn method, target, headers ->
        Console.head(request(method, target, headers: headers))
      end

      admin = token("deploy")
      large = %{"content-length" => "#{11 * 1024 * 1024}"}
      assert {:refuse, %{status: 413}} = head.("POST", "/api/patches", Map.merge(admin, large))

      assert {:refuse, %{status: 413}} =
               head.("POST", "/api/patches/x/apply", Map.merge(admin, large))

      assert {:refuse, %{status: 413}} = head.("GET", "/api/nodes", Map.merge(admin, large))

      assert {:refuse, %{status: 401}} =
               head.("POST", "/api/patches", %{"content-length" => "100"})

      assert {:refuse, %{status: 403}} =
               head.(
                 "POST",
                 "/api/patches",
                 Map.merge(token("monitor"), %{"content-length" => "100"})
               )

      assert {:refuse, %{status: 411}} =
               head.("POST", "/api/patches", Map.merge(admin, %{"content-length" => "many"}))

      assert {:refuse, %{status: 411}} =
               head.(
                 "POST",
                 "/api/patches",
                 Map.merge(admin, %{"transfer-encoding" => "chunked"})
               )

      assert {:refuse, %{status: 404}} = head.("POST", "/no/such", admin)
      assert {:refuse, %{status: 405} = refusal} = head.("DELETE", "/api/nodes", admin)
      assert header(refusal, "allow") == "GET"

      assert {:read, limit} =
               head.("POST", "/api/patches", Map.merge(admin, %{"content-length" => "100"}))

      assert limit == 10 * 1024 * 1024
    end
  end

  describe "the JSON interface" do
    setup do
      start!()
      %{admin: token("deploy")}
    end

    test "does what the functions do", %{admin: admin} do
      assert %{status: 201} = response = upload(admin, zip("a"), "../../etc/Fix (1).zip")
      assert %{items: [%{id: id, by: "deploy", name: "Fix-1"}]} = HotPatch.list()
      assert header(response, "location") == "/api/patches/#{id}"
      assert text(get("/api/patches", admin)) =~ id
      assert text(get("/api/patches/#{id}", admin)) =~ ~s("path":"priv/a")
      assert text(get("/api/patches/#{id}/check", admin)) =~ ~s("operation":"check")

      assert text(get("/api/patches/#{id}/plan?operation=apply&timeout=5000", admin)) =~
               ~s("suspended":0)

      assert text(get("/api/nodes", admin)) =~ Atom.to_string(node())
      assert text(get("/api/stragglers", admin)) =~ ~s("failed":[],"items":[],"missing":[])
      assert text(get("/api/releases", admin)) =~ ~s("this node runs without a release)
      assert text(get("/nodes/compared", admin)) =~ "this node runs without a release"
      assert text(get("/api/progress", admin)) == "[]"
      assert text(get("/api/journal?last=1", admin)) =~ ~s("from":"192.0.2.7")

      assert %{status: 204} =
               Console.call(request("DELETE", "/api/patches/#{id}?reason=done", headers: admin))

      assert %{items: []} = HotPatch.list()

      assert {:ok,
              %{items: [%{what: :delete, reason: "done", by: "deploy", from: "192.0.2.7"} | _]}} =
               HotPatch.journal(patch: id)
    end

    test "gives text where text is asked for", %{admin: admin} do
      plain = Map.put(admin, "accept", "text/plain")
      assert %{status: 201} = response = upload(plain)
      assert header(response, "content-type") =~ "text/plain"
      id = response |> header("location") |> Path.basename()
      assert text(get("/api/patches", plain)) =~ id
      assert text(get("/api/nodes", plain)) =~ "#{node()}"

      for {call, said} <- [{"check", "check #{id}: "}, {"plan", "plan"}, {"", "priv/a"}],
          do: assert(text(get("/api/patches/#{id}/#{call}", plain)) =~ said)

      for {headers, path, status, said} <- [
            {plain, "/api/patches/no-such", 404, "no-such"},
            {plain, "/api/patches/#{id}/plan?sideways=1", 422, "sideways"},
            {%{"accept" => "text/plain"}, "/api/nodes", 401, "log in, or send a token"}
          ] do
        response = get(path, headers)
        assert response.status == status
        assert header(response, "content-type") =~ "text/plain"
        assert text(response) =~ said
      end

      response = post("/api/patches/#{id}/apply", %{}, Map.put(plain, "prefer", "respond-async"))

      assert response.status == 202
      place = header(response, "location")

      ended =
        HotPatch.Test.Until.until(
          fn ->
            response = get(place, plain)
            if response.status != 202, do: response
          end,
          "the operation ends"
        )

      # It ends with a line's end, as what is written to a terminal does.
      for response <- [get("/api/nodes", plain), ended],
          do: assert(text(response) =~ ~r/[^\n]\n\z/)

      # This node has no place for such a file: what is wrong, and then the report.
      assert ended.status == 409
      assert [why, report] = String.split(text(ended), "\n\n", parts: 2)
      assert why =~ "priv/a names no application's folder"
      assert report =~ "apply #{id}: "
    end

    test "tells an admin which build runs, and gives what is in it but for settings", %{
      admin: admin
    } do
      assert %{status: 403} = get("/api/build", token("monitor"))
      response = get("/api/build", Map.put(admin, "accept", "text/plain"))
      assert header(response, "content-disposition") =~ ~r/filename="unreleased-.+\.sha256"/

      sums =
        for line <- String.split(text(response), "\n", trim: true), do: String.split(line, "  ")

      [_digest, path] = sum = Enum.find(sums, fn [_, path] -> path =~ "hot_patch.app" end)
      assert %{^path => digest} = HotPatch.build_digests()
      assert sum == [digest, path]
      assert text(get("/api/build", admin)) =~ ~s("#{path}":"#{digest}")

      form =
        URI.encode_query([{"path", path}, {"path", "../../etc/passwd"}, {"path", "/etc/passwd"}])

      response = Console.call(request("POST", "/api/build/files", headers: admin, body: form))
      assert header(response, "content-type") == "application/zip"
      {:ok, files} = :zip.unzip(text(response), [:memory])
      assert [{name, bytes}] = files
      assert to_string(name) == path
      assert Base.encode16(:crypto.hash(:sha256, bytes), case: :lower) == digest
    end

    test "carries operations out, waits for them or does not", %{admin: admin} do
      %{status: 201} =
        upload(
          admin,
          Archives.zip([
            {"no_such-1.0.0/ebin/hot_patch_test_none.beam",
             Builds.versioned(:hot_patch_test_none, 1)}
          ])
        )

      %{items: [%{id: id}]} = HotPatch.list()
      response = post("/api/patches/#{id}/apply", [reason: "now"], admin)
      assert {response.status, text(response) =~ ~s("operation":"apply")} == {200, true}

      response =
        post("/api/patches/#{id}/rollback", [], Map.put(admin, "prefer", "respond-async"))

      assert response.status == 202

      assert {:ok, %{ended_at: %DateTime{}}} =
               header(response, "location")
               |> String.split("/")
               |> List.last()
               |> Console.Operations.await()

      assert text(get(header(response, "location"), admin)) =~ ~s("state":"done")
    end

    test "rehearses, and so do the pages, which show what was found", %{admin: admin} do
      %{status: 201} =
        upload(
          admin,
          Archives.zip([
            {"no_such-1.0.0/ebin/hot_patch_test_none.beam",
             Builds.versioned(:hot_patch_test_none, 1)}
          ])
        )

      %{items: [%{id: id}]} = HotPatch.list()
      response = post("/api/patches/#{id}/rehearse", [sample: "10"], admin)
      assert response.status == 200
      assert text(response) =~ ~s("outcome":"ok") and text(response) =~ ~s("sample":10)
      assert post("/api/patches/#{id}/rehearse", [sample: "0"], admin).status == 422
      assert {:ok, %{items: [%{what: :rehearse, outcome: :ok} | _]}} = HotPatch.journal(patch: id)

      html = text(get("/patch/#{id}/rehearse", admin))

      for name <- ~w(sample effects max_state_bytes reason),
          do: assert(html =~ ~s(name="#{name}"))

      answer = post("/patch/#{id}/rehearse", [], admin)
      assert answer.status == 303
      run = header(answer, "location") |> String.split("/") |> List.last()
      assert {:ok, %{kind: :rehearse}} = Console.Operations.await(run)
      assert text(get(header(answer, "location"), admin)) =~ ~s(data-outcome="ok")
      assert text(get("/patch/#{id}/results", admin)) =~ "rehearse"
    end

    test "and the pages know a patch by as much of its id as only one has", %{admin: admin} do
      [one, other] =
        for name <- ["prefixed", "prefixes"] do
          {:ok, patch} = HotPatch.upload(zip(name), name: name)
          patch.id
        end

      assert text(get("/patch/prefixed", admin)) =~ one
      assert text(get("/patch/#{binary_part(other, 0, 12)}", admin)) =~ other
      assert text(get("/api/patches/prefixes", admin)) =~ other
      assert text(get("/patch/prefix", admin)) =~ "say which of"
      assert get("/patch/prefixx", admin).status == 404

      # What is begun is found again by the whole id.
      answer = post("/patch/prefixed/apply", [reason: "x"], admin)

      assert {answer.status, header(answer, "location") =~ "/patch/prefixed/results/"} ==
               {303, true}

      assert get(header(answer, "location"), admin).status == 200
    end

    test "tells errors as problem details", %{admin: admin} do
      for {response, status, reason} <- [
            {get("/api/patches/none", admin), 404, "unknown_patch"},
            {get("/api/patches/none/check?speed=1", admin), 422, "invalid_option"},
            {post("/api/patches/none/apply", [transition: "sideways"], admin), 422,
             "invalid_option"},
            {post("/api/nodes/none@nowhere/restart", [], admin), 404, "unknown_node"},
            {post("/api/nodes/#{node()}/restart", [], admin), 409, "refused"},
            {upload(admin, "/etc/passwd"), 422, "archive_refused"},
            {upload(admin, Archives.zip([{"../x", "x"}])), 422, "archive_refused"},
            {get("/api/nothing", admin), 404, "no_such_page"},
            {get("/api/operations/none", admin), 404, "unknown_operation"},
            {Console.call(request("POST", "/api/patches/x/apply", headers: admin, body: <<255>>)),
             400, "form_text"}
          ] do
        assert response.status == status
        assert header(response, "content-type") == "application/problem+json"
        assert text(response) =~ ~s("status":#{status})
        assert text(response) =~ ~s("type":"urn:hot_patch:#{reason}")
        assert text(response) =~ ~s("detail":")
      end

      # No path of the node was read, and none is told.
      refute text(upload(admin, "/etc/passwd")) =~ "passwd"
    end

    test "streams progress: what is under way at once, then each change", %{admin: admin} do
      %{body: {:stream, run}} = response = get("/api/events", admin)
      assert header(response, "content-type") == "text/event-stream"
      test = self()

      task =
        Task.async(fn ->
          run.(fn data ->
            send(test, {:data, IO.iodata_to_binary(data)})
            receive(do: (:go_on -> :ok), after: (0 -> :ok))
            if Process.get(:closed), do: :closed, else: :ok
          end)
        end)

      assert_receive {:data, "event: progress\ndata: []\n\n"}

      event = %HotPatch.Event{
        operation: "1",
        kind: :apply,
        patch: "fix-1",
        by: "x",
        phase: :ended,
        state: :done,
        at: DateTime.utc_now()
      }

      send(task.pid, {HotPatch, event})
      assert_receive {:data, "event: progress\ndata: [{" <> rest}
      assert rest =~ ~s("patch":"fix-1")
      Task.shutdown(task, :brutal_kill)
    end
  end

  describe "pages" do
    setup do
      start!()
      %{admin: token("deploy")}
    end

    test "have a strict policy and nothing from elsewhere", %{admin: admin} do
      id = uploaded()

      for path <- [
            "/login",
            "/patch",
            "/patch/#{id}",
            "/patch/#{id}/check",
            "/patch/#{id}/plan",
            "/patch/#{id}/rehearse",
            "/patch/#{id}/apply",
            "/patch/#{id}/results",
            "/patch/#{id}/delete",
            "/nodes",
            "/nodes/compared",
            "/nodes/#{node()}/restart",
            "/journal",
            "/nothing",
            "/patch/none"
          ] do
        response = get(path, admin)
        assert header(response, "content-security-policy") =~ "default-src 'none'"
        assert header(response, "cache-control") == "no-store"
        html = text(response)
        refute html =~ ~r/(src|href|action)="(https?:)?\/\//
        refute html =~ ~r/<script(?! defer src=")/
        refute html =~ ~r/ (style|on\w+)="/
        assert html =~ "</html>"
      end
    end

    test "escape what an archive says", %{admin: admin} do
      hostile = ~s|<script>alert("1")</script>|

      # Brackets are in no name that is taken, but what a page would make of it is.
      %{status: 422} = upload(admin, Archives.zip([{"priv/<script>", "x"}]))
      %{status: 201} = upload(admin, Archives.zip([{"priv/&lt;i&gt;'", "x"}]), hostile <> ".zip")

      %{items: [%{id: id}]} = HotPatch.list()

      for path <- [
            "/patch/#{id}",
            "/patch/#{id}/check",
            "/patch/#{id}/plan",
            "/patch/#{id}/apply"
          ] do
        html = text(get(path, admin))
        refute html =~ "<script>"
      end

      assert text(get("/patch/#{id}", admin)) =~ "priv/&amp;lt;i&amp;gt;&#39;"

      for path <- [
            "/patch/" <> URI.encode_www_form(hostile),
            "/journal?by=" <> URI.encode_www_form(hostile)
          ],
          do: refute(text(get(path, admin)) =~ "<script>")
    end

    test "say what the author of a patch says of it, and who has signed it", %{admin: admin} do
      said = %{"author" => "alice", "text" => "rounds <b>down</b>", "transition" => "none"}
      %{status: 201} = upload(admin, Declared.zip([{"priv/a", "text"}], said))
      %{items: [%{id: id}]} = HotPatch.list()
      html = text(get("/patch/#{id}", admin))
      assert html =~ "manifest: fix by alice"
      assert html =~ "rounds &lt;b&gt;down&lt;/b&gt;"
      assert html =~ "transition none"
      assert html =~ "not signed"
    end

    test "below a path of the host all links stay below it", %{admin: admin} do
      id = uploaded()

      for path <- ["/patch", "/patch/#{id}", "/nodes", "/journal"] do
        html = text(Console.call(request("GET", path, headers: admin, base: "/admin/patches")))

        for [_, link] <- Regex.scan(~r/(?:href|src|action|data-\w+)="(\/[^"]*)"/, html),
            do: assert(String.starts_with?(link, "/admin/patches/"))
      end
    end

    test "assets are kept by browsers, and are nothing but those two and the icon", %{
      admin: admin
    } do
      html = text(get("/login", %{}))

      for [_, path] <- Regex.scan(~r/(?:href|src)="(\/assets\/[^"]+)"/, html) do
        response = get(path, %{})
        assert response.status == 200
        assert header(response, "cache-control") =~ "immutable"
      end

      for path <- [
            "/assets/console.css",
            "/assets/..%2f..%2fmix.exs",
            "/assets/%2fetc%2fpasswd",
            "/assets/x/y"
          ],
          do: assert(get(path, admin).status == 404)
    end
  end

  test "a host's own login is asked, and its users get forms of their own" do
    start!(login: HostLogin)
    assert header(get("/patch", %{}), "location") == "https://host.test/sign-in"
    response = get("/nodes", %{"cookie" => "host=carol"})
    assert text(response) =~ "carol"
    [session | _] = header(response, "set-cookie") |> String.split(";")
    headers = %{"cookie" => "host=carol; #{session}"}
    id = uploaded()
    form = form_token(get("/patch/#{id}/delete", headers).body, "/patch/#{id}/delete\"")
    # The form is hers alone.
    assert %{status: 403} =
             post("/patch/#{id}/delete", [form: form], %{"cookie" => "host=mallory; #{session}"})

    assert %{status: 303} = post("/patch/#{id}/delete", [form: form, reason: "x"], headers)
    assert {:ok, %{items: [%{by: "carol"} | _]}} = HotPatch.journal(patch: id)
  end

  test "one that is not configured says so, and nothing else" do
    key = {HotPatch.Console.Config, :current}
    :persistent_term.erase(key)
    assert {:refuse, %{status: 404}} = Console.head(request("POST", "/api/patches"))
    response = get("/patch", token("deploy"))
    assert {response.status, text(response) =~ "not configured"} == {404, true}
  end

  test "a configuration that is wrong leaves the console off, and the system on" do
    assert :ignore = Console.start_link(console: [port: "x"])
    assert :ignore = Console.start_link(console: false)
    assert :ignore = Console.start_link([])
  end
end
