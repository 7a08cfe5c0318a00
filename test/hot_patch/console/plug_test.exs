defmodule HotPatch.Console.PlugTest do
  # Plug is an optional dependency of ours, and is not here: these are the few functions of it that the adapter
  # calls, with their contracts, over a connection with its fields (Plug 1.19).
  use ExUnit.Case, async: false

  import HotPatch.Test.Console

  alias HotPatch.Test.Archives

  @moduletag :tmp_dir

  @stand_in """
  defmodule Plug do
    @callback init(term()) :: term()
    @callback call(term(), term()) :: term()
  end

  defmodule Plug.Conn.Unfetched do
    defstruct [:aspect]
  end

  defmodule Plug.Upload do
    defstruct [:path, :content_type, :filename]
  end

  # The token of a session lies in the process that answers.
  defmodule Plug.CSRFProtection do
    def get_csrf_token, do: Process.get(:plug_masked_csrf_token, "one<made>for-now")
  end

  defmodule Plug.Conn do
    defstruct method: "GET", path_info: [], script_name: [], query_string: "", req_headers: [], remote_ip: {192, 0, 2, 7},
              scheme: :http, body_params: %Plug.Conn.Unfetched{aspect: :body_params}, resp_headers: [], status: nil,
              params: %Plug.Conn.Unfetched{aspect: :params}, host: "www.example.com", port: 80, private: %{}, assigns: %{},
              resp_body: nil, halted: false, unread: []

    def put_private(conn, key, value), do: put_in(conn.private[key], value)

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

  setup_all do
    if Code.ensure_loaded?(Plug.Conn), do: flunk("Plug is here: test the adapter with it")
    modules = Code.compile_string(@stand_in)

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

  @tag :slow
  test "streams until the client is gone" do
    headers = [{"authorization", "Bearer token-of-monitor"}, {"accept", "text/event-stream"}]
    conn = plug(path_info: ["api", "events"], req_headers: headers)
    assert header(conn, "content-type") == "text/event-stream"
    assert_received {:chunk, "event: progress\ndata: []\n\n"}
  end

  @tag :slow
  test "streams to the page, which says that it takes HTML: `plug :accepts, [\"html\"]` wants that" do
    accept = {"accept", "text/event-stream, text/html;q=0.5"}
    headers = [{"authorization", "Bearer token-of-monitor"}, accept]
    conn = plug(path_info: ["live"], req_headers: headers)
    assert header(conn, "content-type") == "text/event-stream"
    assert_received {:chunk, "event: progress\ndata: " <> _}
  end

  describe "behind the plugs of an application" do
    # As Plug.Parsers leaves a request: its body is read, and what it was is in the parameters.
    defp parsed(path, params, more \\ []) do
      fields = [method: "POST", path_info: path, body_params: params, params: params]
      plug(Keyword.merge(fields ++ [req_headers: [{"content-length", "5"}]], more))
    end

    defp by_token(more), do: [req_headers: [{"authorization", "Bearer token-of-deploy"} | more]]

    test "forms come from Plug.Parsers, and archives from Plug.Upload", %{tmp_dir: dir} do
      assert parsed(["login"], %{"name" => "alice", "password" => password()}).status == 303
      assert parsed(["login"], %{"name" => "alice", "password" => "wrong"}).status == 401

      zip = Path.join(dir, "plug-1")
      File.write!(zip, Archives.zip([{"priv/a", "a"}]))

      upload = %{
        __struct__: Plug.Upload,
        path: zip,
        filename: "fix.zip",
        content_type: "application/zip"
      }

      length = [{"content-length", "400"}]
      conn = parsed(["api", "patches"], %{"file" => upload}, by_token(length))
      assert conn.status == 201
      assert %{items: [%{name: "fix", id: id}]} = HotPatch.list()

      # Both, or an error: never one of two nodes.
      act = &parsed(["api", "patches", id, "apply"], &1, by_token(length))
      conn = act.(%{"nodes" => "b@host"})
      assert {conn.status, conn.resp_body =~ "write nodes[]= for each"} == {400, true}
      assert act.(%{"nodes" => %{"a" => "b"}}).status == 400
      assert %{status: 422, resp_body: body} = act.(%{"nodes" => ["a@host", "b@host"]})
      assert body =~ "a@host"

      # The same goes for files of the build, of which the last would be taken for all.
      files = &parsed(["api", "build", "files"], &1, by_token(length))
      conn = files.(%{"path" => "lib/a/ebin/a.beam"})
      assert {conn.status, conn.resp_body =~ "write path[]= for each"} == {400, true}
      assert files.(%{"path" => ["lib/a/ebin/a.beam"]}).status == 200

      # As far as the call itself: this archive goes nowhere.
      conn = act.(%{"reason" => "ticket", "_csrf_token" => "x"})
      assert {conn.status, conn.resp_body =~ ~s("reason":"refused")} == {409, true}
    end

    test "a body that was read and is nowhere is an error that says so" do
      conn = parsed(["login"], %{})
      assert {conn.status, conn.resp_body =~ "has read the body"} == {400, true}
    end

    test "its forms carry the application's token too, and its script goes to everybody" do
      form = ~s(name="_csrf_token" value="one&lt;made&gt;for-now")
      assert plug(path_info: ["login"]).resp_body =~ form
      headers = [{"cookie", cookie()}, {"host", "www.example.com"}]

      for path <- [["patch"], ["nodes"], ["nodes", "#{node()}", "restart"]] do
        page = plug(path_info: path, req_headers: headers)
        posts = length(String.split(page.resp_body, ~s(method="post"))) - 1
        uploads = length(String.split(page.resp_body, ~s(id="upload"))) - 1

        assert {page.status, posts + uploads} ==
                 {200, length(String.split(page.resp_body, form)) - 1}
      end

      [_, script] =
        Regex.run(~r{src="/assets/(console-[^"]+)"}, plug(path_info: ["login"]).resp_body)

      asset = plug(path_info: ["assets", script])
      assert {asset.status, asset.private} == {200, %{plug_skip_csrf_protection: true}}
      assert plug(path_info: ["login"]).private == %{}
    end

    defp cookie do
      conn = parsed(["login"], %{"name" => "alice", "password" => password()})
      conn |> header("set-cookie") |> String.split(";") |> hd()
    end

    test "what the application has said in its own headers stays" do
      own = [{"set-cookie", "app=1"}, {"strict-transport-security", "max-age=9; preload"}]
      fields = [resp_headers: own ++ [{"content-security-policy", "x"}], scheme: :https]
      conn = parsed(["login"], %{"name" => "alice", "password" => password()}, fields)
      assert [_ours, "app=1"] = for({"set-cookie", value} <- conn.resp_headers, do: value)
      assert header(conn, "strict-transport-security") == "max-age=9; preload"
      assert header(conn, "content-security-policy") =~ "default-src 'none'"
    end

    test "the name and scheme that a proxy tells (Plug.RewriteOn) are the browser's" do
      log_in = fn origin, fields ->
        headers = [{"host", "10.0.0.3:4000"}, {"origin", origin}, {"content-length", "5"}]
        form = %{"name" => "alice", "password" => password()}
        parsed(["login"], form, [req_headers: headers, script_name: ["system"]] ++ fields)
      end

      rewritten = [host: "patch.example.com", scheme: :https, port: 443]
      assert %{status: 303} = conn = log_in.("https://patch.example.com", rewritten)
      assert header(conn, "set-cookie") =~ "Secure"
      assert log_in.("https://evil.example.com", rewritten).status == 403
      assert log_in.("http://10.0.0.3:4000", host: "10.0.0.3", port: 4000).status == 303

      for host <- ["patch.example.com", "patch.example.com:8443"] do
        other = [host: host, scheme: :https, port: 8443]
        assert log_in.("https://patch.example.com:8443", other).status == 303
      end
    end
  end

  defmodule HostLogin do
    @behaviour HotPatch.Console.Login

    @impl true
    def user(%{conn: %{assigns: %{current_user: name}}}),
      do: {:ok, %HotPatch.Console.User{name: name, role: :admin}}

    def user(_request), do: :error

    @impl true
    def login_path(_request), do: "/sign-in"
  end

  test "the application's own login gets the conn" do
    :ok = stop_supervised(HotPatch.Console)
    start!(login: HostLogin)

    assert %{status: 200, resp_body: page} =
             plug(path_info: ["nodes"], assigns: %{current_user: "carol"})

    assert page =~ "carol"
    conn = plug(path_info: ["nodes"])
    assert {conn.status, header(conn, "location")} == {303, "/sign-in"}
  end

  test "hostile paths and queries are refused" do
    assert plug(path_info: ["..", "x"]).status == 400
    assert plug(path_info: ["%ff"]).status == 400
    assert plug(path_info: ["nodes"], query_string: "%zz").status == 400
  end
end
