defmodule HotPatch.Console.InetsTest do
  # The embedded server over raw sockets: what a browser would never send. Each is refused, and none
  # stops the node or keeps others from being served.
  use ExUnit.Case, async: false

  alias HotPatch.Console
  alias HotPatch.Test.Archives

  import HotPatch.Test.Console
  import HotPatch.Test.Until

  @patient 10_000

  setup context do
    [port: free_port(), request_seconds: 1, upload_seconds: 2, max_connections: 30]
    |> Keyword.merge(Map.get(context, :console, []))
    |> start!()

    port = until(fn -> Console.port() end, "the console listens")
    agent = Process.whereis(HotPatch.NodeAgent.Server)

    on_exit(fn ->
      # Whatever was sent, the node and its agent are as they were.
      assert Process.whereis(HotPatch.NodeAgent.Server) == agent
      for patch <- HotPatch.list(), patch.kept_on != [], do: HotPatch.delete(patch.id)
    end)

    %{port: port}
  end

  # With port 0 the server goes another way than it does in earnest.
  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, reuseaddr: true)
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  defp connect(port) do
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false])
    socket
  end

  # Sends pieces, and gives all that comes until the server closes. One that it does not take
  # any more is no matter.
  defp exchange(port, pieces) do
    socket = connect(port)
    for piece <- List.wrap(pieces), do: :gen_tcp.send(socket, piece)
    answer = read(socket, "")
    :gen_tcp.close(socket)
    answer
  end

  defp read(socket, got) do
    case :gen_tcp.recv(socket, 0, @patient) do
      {:ok, data} -> read(socket, got <> data)
      {:error, :timeout} -> flunk("neither answered nor closed: #{inspect(got)}")
      {:error, _closed} -> got
    end
  end

  defp status(answer) do
    case Regex.run(~r"\AHTTP/1\.1 (\d+)", answer) do
      [_, status] -> String.to_integer(status)
      nil -> :closed
    end
  end

  defp head(method, target, headers) do
    [
      "#{method} #{target} HTTP/1.1\r\nhost: 127.0.0.1\r\n",
      for({name, value} <- headers, do: "#{name}: #{value}\r\n"),
      "\r\n"
    ]
  end

  defp logged_in(name), do: log_in(name, headers: %{"host" => "127.0.0.1"})

  defp served!(port) do
    answer = exchange(port, head("GET", "/api/nodes", token("monitor")))
    assert status(answer) == 200
    assert answer =~ Atom.to_string(node())
  end

  test "serves pages, uploads of many pieces, and streams", %{port: port} do
    served!(port)
    answer = exchange(port, head("GET", "/login", []))
    assert status(answer) == 200
    assert answer =~ "content-security-policy: default-src 'none'"

    zip = Archives.zip([{"priv/large", :crypto.strong_rand_bytes(3_000_000)}])
    headers = Map.merge(token("deploy"), %{"content-length" => byte_size(zip)})
    pieces = for <<piece::binary-size(100_000) <- zip>>, do: piece
    rest = binary_part(zip, length(pieces) * 100_000, rem(byte_size(zip), 100_000))

    answer =
      exchange(port, [head("POST", "/api/patches?file=large.zip", headers)] ++ pieces ++ [rest])

    assert status(answer) == 201
    assert %{items: [%{id: id, size: size}]} = HotPatch.list()
    assert size == byte_size(zip)

    {:ok, %{items: [%{from: "127.0.0.1", by: "deploy"} | _]}} = HotPatch.journal(patch: id)

    socket = connect(port)

    :ok =
      :gen_tcp.send(
        socket,
        head("GET", "/live", Map.put(token("monitor"), "accept", "text/event-stream"))
      )

    assert {:ok, "HTTP/1.1 200" <> _} = :gen_tcp.recv(socket, 0, @patient)
    :gen_tcp.close(socket)
  end

  test "no login, wrong role, no form: refused before the body is read", %{port: port} do
    body = :binary.copy("x", 200_000)
    length = %{"content-length" => byte_size(body)}

    refused = fn target, headers ->
      status(exchange(port, [head("POST", target, Map.merge(headers, length)), body]))
    end

    assert refused.("/api/patches", %{}) == 401
    assert refused.("/api/patches", token("monitor")) == 403
    assert refused.("/api/patches", logged_in("alice")) == 403
    assert refused.("/patch/x/apply", logged_in("alice")) == 413
    assert refused.("/login", %{}) == 413

    # It is the head that is judged: the rest never comes, and the answer does.
    socket = connect(port)

    :ok =
      :gen_tcp.send(socket, [
        head("POST", "/api/patches", %{"content-length" => 5_000_000}),
        :binary.copy("x", 70_000)
      ])

    assert {:ok, "HTTP/1.1 401" <> _} = :gen_tcp.recv(socket, 0, @patient)
    :gen_tcp.close(socket)
    served!(port)
  end

  test "a replayed form and a foreign origin are refused", %{port: port} do
    cookie = logged_in("alice")
    page = exchange(port, head("GET", "/nodes", cookie))
    body = URI.encode_query(form: form_token(page, "/logout"))

    headers =
      Map.merge(cookie, %{
        "content-length" => byte_size(body),
        "content-type" => "application/x-www-form-urlencoded"
      })

    post = fn more ->
      status(exchange(port, [head("POST", "/logout", Map.merge(headers, more)), body]))
    end

    assert post.(%{"origin" => "https://evil.test"}) == 403
    assert post.(%{"origin" => "http://127.0.0.1:1"}) == 403
    assert post.(%{"sec-fetch-site" => "cross-site"}) == 403
    assert post.(%{"origin" => "http://127.0.0.1"}) == 303
    # The session has ended with it, and the form with the session.
    assert post.(%{"origin" => "http://127.0.0.1"}) in [401, 403]
  end

  @tag :slow
  test "a body of 11 MB is refused, whether it is announced, sent, or both", %{port: port} do
    megabyte = :binary.copy(<<0>>, 1024 * 1024)
    large = Map.merge(token("deploy"), %{"content-length" => 11 * 1024 * 1024})
    answer = exchange(port, [head("POST", "/api/patches", large) | List.duplicate(megabyte, 11)])
    assert status(answer) == 413
    assert answer =~ "application/problem+json"

    # As the tarball of a release it may be larger, and is none.
    tarball = "/api/patches?file=shop-1.1.0.tar.gz"
    answer = exchange(port, [head("POST", tarball, large) | List.duplicate(megabyte, 11)])
    assert status(answer) == 422

    larger = Map.merge(token("deploy"), %{"content-length" => 101 * 1024 * 1024})
    assert status(exchange(port, [head("POST", tarball, larger), megabyte])) == 413

    # One that says it is far larger, one that lies, one in chunks, one that has no length.
    huge = Map.merge(token("deploy"), %{"content-length" => 900_000_000})
    assert status(exchange(port, head("POST", "/api/patches", huge))) == 413
    endless = Map.merge(token("deploy"), %{"content-length" => String.duplicate("9", 40)})
    assert status(exchange(port, head("POST", "/api/patches", endless))) == 413
    lying = Map.merge(token("deploy"), %{"content-length" => 10})
    assert status(exchange(port, [head("POST", "/api/patches", lying), megabyte])) in [408, 422]
    negative = Map.merge(token("deploy"), %{"content-length" => -1})
    assert status(exchange(port, head("POST", "/api/patches", negative))) in 400..499
    chunked = Map.merge(token("deploy"), %{"transfer-encoding" => "chunked"})
    chunk = ["100000\r\n", megabyte, "\r\n"]

    assert status(
             exchange(port, [head("POST", "/api/patches", chunked) | List.duplicate(chunk, 12)])
           ) in [408, 411, 413]

    assert status(exchange(port, head("POST", "/api/patches", token("deploy")))) in [411, 422]
    assert HotPatch.list().items == []
    served!(port)
  end

  @tag :slow
  test "slow heads, slow bodies and slow uploads are not waited for; others are served meanwhile",
       %{port: port} do
    slow =
      for text <- [
            "",
            "GET /login HT",
            "GET /login HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ",
            head("POST", "/login", %{"content-length" => 100}),
            [head("POST", "/login", %{"content-length" => 100}), "name=alice"],
            [
              head(
                "POST",
                "/api/patches",
                Map.merge(token("deploy"), %{"content-length" => 1_000_000})
              ),
              :binary.copy("x", 70_000)
            ]
          ] do
        socket = connect(port)
        :ok = :gen_tcp.send(socket, text)
        socket
      end

    served!(port)
    for socket <- slow, do: assert(status(read(socket, "")) in [:closed, 408])
    served!(port)
  end

  test "a request line that comes letter by letter is not waited for", %{port: port} do
    socket = connect(port)
    assert letters(socket, 100) == :closed
    served!(port)
  end

  # One for each time that nothing comes back.
  defp letters(_socket, 0), do: :waited_for

  defp letters(socket, left) do
    _ = :gen_tcp.send(socket, "G")

    case :gen_tcp.recv(socket, 0, 100) do
      {:error, :timeout} -> letters(socket, left - 1)
      {:error, _closed} -> :closed
      {:ok, _answer} -> letters(socket, left)
    end
  end

  test "path tricks in URLs lead nowhere", %{port: port} do
    for target <- [
          "/../../../../etc/passwd",
          "/..%2f..%2f..%2fetc/passwd",
          "/%2e%2e/%2e%2e/etc/passwd",
          "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
          "/assets/%2fetc%2fpasswd",
          "/assets/....//....//etc/passwd",
          "//etc/passwd",
          "/assets/console.css%00.html",
          "/patch/%00",
          "/patch/%ff%fe",
          "/patch/%",
          "/patch/..;/..;/etc/passwd",
          "http://127.0.0.1/etc/passwd",
          "http://evil.test/../etc/passwd",
          "*",
          "/patch/" <> String.duplicate("a", 3_000),
          "/api/patches/..%5c..%5cmix.exs"
        ] do
      answer = exchange(port, head("GET", target, token("deploy")))
      assert status(answer) in [303, 400, 404, 405], "#{target}: #{answer}"
      refute answer =~ "root:"
    end

    assert status(exchange(port, head("GET", "/" <> String.duplicate("a", 100_000), []))) in [
             414,
             :closed
           ]

    served!(port)
  end

  @tag :slow
  test "floods of headers, and what is no HTTP at all", %{port: port} do
    # Who goes on sending may lose the answer with the connection.
    many = for n <- 1..20_000, do: {"x-#{n}", "y"}
    assert status(exchange(port, head("GET", "/login", many))) in [413, :closed]

    assert status(exchange(port, head("GET", "/login", [{"x", :binary.copy("y", 5_000_000)}]))) in [
             413,
             :closed
           ]

    assert status(exchange(port, ["GET /login HTTP/1.1\r\n", :binary.copy("a", 1_000_000)])) in [
             413,
             :closed
           ]

    for text <- [
          :crypto.strong_rand_bytes(10_000),
          "\r\n\r\n\r\n",
          "GET\r\n\r\n",
          "GET /login\r\n\r\n",
          "GET /login HTTP/9.9\r\n\r\n",
          "GET /login HTTP/1.1\r\n\r\n",
          "BREW /login HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
          "POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
          "POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: ten\r\n\r\nab",
          <<22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3>>,
          ["GET /patch HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: ", <<255, 254, 0>>, "\r\n\r\n"],
          [
            "GET /patch HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer ",
            <<255, 254>>,
            "\r\n\r\n"
          ],
          [
            "POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 12\r\n\r\nname=",
            <<255>>,
            "&x=%zz"
          ]
        ] do
      assert status(exchange(port, text)) in [
               :closed,
               303,
               400,
               401,
               408,
               411,
               413,
               414,
               500,
               501,
               505
             ]
    end

    served!(port)
  end

  test "a flood of connections is turned away, and passes", %{port: port} do
    sockets = for _ <- 1..200, do: connect(port)
    # They idle, and are closed when their time is over.
    for socket <- sockets, do: _ = :gen_tcp.recv(socket, 0, @patient)
    served!(port)
  end

  describe "connections that say nothing, more than there may be" do
    @describetag console: [request_seconds: 600, max_connections: 30]

    defp open?(socket), do: :gen_tcp.recv(socket, 0, 0) == {:error, :timeout}

    test "keep nobody out, and the newest of them go", %{port: port} do
      silent = for _ <- 1..200, do: connect(port)
      for _ <- 1..20, do: served!(port)
      until(fn -> Enum.count(silent, &open?/1) <= 30 end, "the others have gone")
      # Those that came first are still there.
      assert Enum.all?(Enum.take(silent, 20), &open?/1)
      refute Enum.any?(Enum.take(silent, -150), &open?/1)
      served!(port)
    end

    test "nor do such as begin a request and do not end it", %{port: port} do
      begun =
        for n <- 1..200 do
          socket = connect(port)

          text =
            case rem(n, 3) do
              0 -> "GET /login HTTP/1.1\r\nhost: 127.0.0.1\r\n"
              1 -> [head("POST", "/login", %{"content-length" => 100}), "name=alice"]
              2 -> "GET /"
            end

          _ = :gen_tcp.send(socket, text)
          socket
        end

      for _ <- 1..20, do: served!(port)
      gone? = &match?({:error, why} when why != :timeout, :gen_tcp.recv(&1, 0, 0))
      until(fn -> Enum.count(begun, gone?) >= 165 end, "the others have gone")
    end

    test "are those of the address that has the most of them", %{port: port} do
      {:ok, alone} =
        :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false, ip: {127, 0, 0, 9}])

      first = for _ <- 1..100, do: connect(port)
      until(fn -> Enum.count(first, &open?/1) < 30 end, "there were too many")

      {:ok, late} =
        :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false, ip: {127, 0, 0, 8}])

      more = for _ <- 1..100, do: connect(port)
      until(fn -> Enum.count(first ++ more, &open?/1) < 30 end, "there were too many")
      assert open?(alone) and open?(late)
      :ok = :gen_tcp.send(late, head("GET", "/login", []))
      assert {:ok, "HTTP/1.1 200" <> _} = :gen_tcp.recv(late, 0, @patient)
    end
  end

  test "a request under another name than the console's is refused", %{port: port} do
    for host <- ["evil.test", "evil.test:#{port}", "127.0.0.1.evil.test", "[::2]", "a b"] do
      answer =
        exchange(port, [
          "GET /api/nodes HTTP/1.1\r\nhost: #{host}\r\n",
          "authorization: Bearer token-of-monitor\r\n\r\n"
        ])

      assert status(answer) in [400, 421], host
      refute answer =~ Atom.to_string(node())
    end

    for host <- ["localhost:#{port}", "127.0.0.1:#{port}", "LOCALHOST"] do
      answer =
        exchange(port, [
          "GET /api/nodes HTTP/1.1\r\nhost: #{host}\r\n",
          "authorization: bearer token-of-monitor\r\n\r\n"
        ])

      assert status(answer) == 200, host
    end
  end

  test "a stream's connection ends with the logout", %{port: port} do
    cookie = logged_in("alice")
    socket = connect(port)
    :ok = :gen_tcp.send(socket, head("GET", "/api/events", cookie))
    {:ok, "HTTP/1.1 200" <> _} = :gen_tcp.recv(socket, 0, @patient)
    :ok = Console.log_out("alice")
    assert read(socket, "") =~ "event: ended"
    served!(port)
  end

  test "a new configuration leaves the server alone, or lets it listen anew", %{port: port} do
    on_exit(fn ->
      Application.delete_env(:hot_patch, :console)
      :ok = HotPatch.Host.Config.load()
    end)

    alice = logged_in("alice")
    nodes = fn port -> status(exchange(port, head("GET", "/nodes", alice))) end
    server = Process.whereis(Console.Inets)
    former = Map.from_struct(HotPatch.Console.Config.current())
    options = former |> Enum.reject(&match?({:tls, nil}, &1)) |> Keyword.new()

    Application.put_env(:hot_patch, :console, Keyword.put(options, :hosts, ["patch.test"]))
    assert :ok = Console.reload()
    assert Process.whereis(Console.Inets) == server
    assert nodes.(port) == 200

    other = free_port()
    Application.put_env(:hot_patch, :console, Keyword.put(options, :port, other))
    assert :ok = Console.reload()
    assert until(fn -> Console.port() end, "it listens") == other
    assert nodes.(other) == 200
    assert {:error, :econnrefused} = :gen_tcp.connect({127, 0, 0, 1}, port, [])
  end

  @tag :slow
  test "streams have a bound, and go when the client goes", %{port: port} do
    head = head("GET", "/api/events", token("monitor"))

    sockets =
      for _ <- 1..10 do
        socket = connect(port)
        :ok = :gen_tcp.send(socket, head)
        {:ok, "HTTP/1.1 200" <> _} = :gen_tcp.recv(socket, 0, @patient)
        socket
      end

    counter = :persistent_term.get({HotPatch.Console.EventStream, :counter})
    assert until(fn -> :atomics.get(counter, 1) == 10 end, "ten streams are open")
    Enum.each(sockets, &:gen_tcp.close/1)
    assert until(fn -> :atomics.get(counter, 1) == 0 end, "none is")
  end

  test "a port that is taken is tried again" do
    stop_supervised!(Console)
    {:ok, socket} = :gen_tcp.listen(0, reuseaddr: true, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    start!(port: port)
    assert Console.port() == nil
    :gen_tcp.close(socket)
    # Not to wait for the server's own next look.
    send(Process.whereis(Console.Inets), :listen)
    assert Console.port() == port
    served!(port)
  end

  describe "with TLS" do
    @describetag :tls

    defp start_tls!(more) do
      stop_supervised!(Console)
      key = [digest: :sha256, key: {:rsa, 2048, 65_537}]

      %{server_config: tls} =
        :public_key.pkix_test_data(%{
          server_chain: %{root: key, intermediates: [], peer: key},
          client_chain: %{root: key, intermediates: [], peer: key}
        })

      start!([port: free_port(), tls: Keyword.take(tls, [:cert, :key])] ++ more)
      until(fn -> Console.port() end, "the console listens")
    end

    defp connect_tls(port) do
      {:ok, socket} =
        :ssl.connect({127, 0, 0, 1}, port, [:binary, active: false, verify: :verify_none])

      socket
    end

    test "the cookie is secure, and browsers are told to stay with it" do
      socket = start_tls!([]) |> connect_tls()
      body = URI.encode_query(name: "alice", password: password())

      :ok =
        :ssl.send(socket, [head("POST", "/login", %{"content-length" => byte_size(body)}), body])

      {:ok, answer} = :ssl.recv(socket, 0, @patient)

      assert answer =~
               ~r"set-cookie: __Host-hot_patch=\S+; Path=/; HttpOnly; SameSite=Strict; Secure"

      assert answer =~ "strict-transport-security"
    end

    @tag :slow
    test "who does not even begin to speak it goes too, and keeps nobody out" do
      port = start_tls!(max_connections: 5, request_seconds: 600)
      silent = for _ <- 1..60, do: connect(port)
      # After the handshake, too.
      spoken = for _ <- 1..10, do: connect_tls(port)

      socket = connect_tls(port)
      :ok = :ssl.send(socket, head("GET", "/api/nodes", token("monitor")))
      assert {:ok, "HTTP/1.1 200" <> _} = :ssl.recv(socket, 0, @patient)

      for one <- spoken do
        :ssl.setopts(one, active: true)
        assert_receive {:ssl_closed, ^one}, @patient
      end

      until(fn -> Enum.count(silent, &open?/1) <= 5 end, "the others have gone")
    end
  end
end
