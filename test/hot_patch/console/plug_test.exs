defmodule HotPatch.Console.PlugTest do
  # Plug is no dependency of ours, and is not here: these are the few functions of it that the adapter
  # calls, with their contracts, over a connection that is a struct.
  use ExUnit.Case, async: false

  import HotPatch.Test.Console

  alias HotPatch.Test.Archives

  @stand_in """
  defmodule Plug do
    @callback init(term()) :: term()
    @callback call(term(), term()) :: term()
  end

  defmodule Plug.Conn.Unfetched do
    defstruct [:aspect]
  end

  defmodule Plug.Conn do
    defstruct method: "GET", path_info: [], script_name: [], query_string: "", req_headers: [], remote_ip: {192, 0, 2, 7},
              scheme: :http, body_params: %Plug.Conn.Unfetched{aspect: :body_params}, resp_headers: [], status: nil,
              resp_body: nil, halted: false, unread: [], chunks: 2

    # As of Plug: `length` bounds what one call gives, the rest is `:more`.
    def read_body(%{unread: []} = conn, _options), do: {:ok, "", conn}
    def read_body(%{unread: [:never | _]}, _options), do: {:error, :timeout}
    def read_body(%{unread: [last]} = conn, _options), do: {:ok, last, %{conn | unread: []}}
    def read_body(%{unread: [piece | rest]} = conn, _options), do: {:more, piece, %{conn | unread: rest}}

    def put_resp_header(conn, name, value), do: %{conn | resp_headers: List.keystore(conn.resp_headers, name, 0, {name, value})}
    def send_resp(conn, status, body), do: %{conn | status: status, resp_body: IO.iodata_to_binary(body)}
    def send_chunked(conn, status), do: %{conn | status: status}
    def chunk(conn, data) do
      send(self(), {:chunk, IO.iodata_to_binary(data)})
      if Process.put(:chunks, Process.get(:chunks, 0) + 1) == 1, do: {:error, :closed}, else: {:ok, conn}
    end
    def halt(conn), do: %{conn | halted: true}
  end
  """

  @adapter Path.expand("../../../lib/hot_patch/console/plug.ex", __DIR__)

  setup_all do
    if Code.ensure_loaded?(Plug.Conn), do: flunk("Plug is here: test the adapter with it")
    modules = Code.compile_string(@stand_in) ++ Code.compile_file(@adapter)

    on_exit(fn ->
      for {module, _beam} <- modules do
        :code.purge(module)
        :code.delete(module)
      end
    end)
  end

  setup do
    start!()

    on_exit(fn ->
      for patch <- HotPatch.list(), patch.kept_on != [], do: HotPatch.delete(patch.id)
    end)
  end

  defp plug(fields, options \\ []) do
    adapter = HotPatch.Console.Plug
    adapter.call(struct!(Plug.Conn, fields), adapter.init(options))
  end

  defp header(conn, name), do: :proplists.get_value(name, conn.resp_headers, nil)

  test "is mounted below a path, and leaves all others alone" do
    assert %{status: nil, halted: false} = plug([path_info: ["other"]], at: "/admin/patches")
    conn = plug([path_info: ["admin", "patches", "login"]], at: "/admin/patches")
    assert %{status: 200, halted: true} = conn
    assert conn.resp_body =~ ~s(href="/admin/patches/assets/console-)
    assert header(conn, "content-security-policy") =~ "default-src 'none'"

    forwarded = plug(path_info: ["nodes"], script_name: ["admin"])

    assert {forwarded.status, header(forwarded, "location")} ==
             {303, "/admin/login?next=%2Fnodes"}
  end

  test "logs in, with a cookie for its path that is secure under TLS" do
    body = URI.encode_query(name: "alice", password: password())
    headers = [{"content-length", "#{byte_size(body)}"}, {"host", "x"}]

    conn =
      plug(
        method: "POST",
        path_info: ["login"],
        script_name: ["admin"],
        scheme: :https,
        req_headers: headers,
        unread: [body]
      )

    assert conn.status == 303

    assert header(conn, "set-cookie") =~
             ~r"\Ahot_patch=\S+; Path=/admin; HttpOnly; SameSite=Strict; Secure\z"
  end

  test "uploads in pieces; what is refused by its head is not read" do
    zip = Archives.zip([{"priv/a", :crypto.strong_rand_bytes(200_000)}])
    <<one::binary-size(100_000), two::binary>> = zip

    headers = [
      {"authorization", "Bearer token-of-deploy"},
      {"content-length", "#{byte_size(zip)}"}
    ]

    upload =
      &plug(
        method: "POST",
        path_info: ["api", "patches"],
        query_string: "file=a.zip",
        req_headers: &1,
        unread: &2
      )

    assert upload.(headers, [one, two]).status == 201
    assert %{items: [%{name: "a", by: "deploy", id: id}]} = HotPatch.list()
    assert {:ok, %{items: [%{from: "192.0.2.7"}]}} = HotPatch.journal(patch: id)

    assert %{status: 401, unread: [^one, ^two]} =
             upload.([{"content-length", "200000"}], [one, two])

    # One that sends more than it has said it would.
    assert upload.(headers, List.duplicate(:binary.copy("x", 1_000_000), 12)).status == 413
    assert upload.(headers, [one, :never]).status == 408
  end

  test "streams until the client is gone" do
    headers = [{"authorization", "Bearer token-of-monitor"}, {"accept", "text/event-stream"}]
    conn = plug(path_info: ["api", "events"], req_headers: headers)
    assert header(conn, "content-type") == "text/event-stream"
    assert_received {:chunk, "event: progress\ndata: []\n\n"}
  end

  test "a form that a parser has taken is an error that says what to do, not an empty form" do
    conn = [
      method: "POST",
      path_info: ["login"],
      body_params: %{"name" => "alice"},
      req_headers: [{"content-length", "5"}]
    ]

    assert_raise RuntimeError, ~r/before Plug.Parsers/, fn -> plug(conn) end
  end

  test "hostile paths and queries are refused" do
    assert plug(path_info: ["..", "x"]).status == 400
    assert plug(path_info: ["%ff"]).status == 400
    assert plug(path_info: ["nodes"], query_string: "%zz").status == 400
  end
end
