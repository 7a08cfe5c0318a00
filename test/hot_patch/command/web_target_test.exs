defmodule HotPatch.Command.WebTargetTest do
  # The interface behind an application's own parser of forms, as Plug.Parsers is one: of a name that does not say that it
  # may have several values, the last one counts.
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias HotPatch.Build.Running
  alias HotPatch.Command.Target.WebTarget
  alias HotPatch.Support.Hex

  @moduletag :tmp_dir

  @files %{
    "lib/shop-1.0.0/priv/a.css" => "a",
    "lib/shop-1.0.0/priv/b.css" => "b",
    "releases/1.0.0/sys.config" => "[]."
  }

  # Answers each connection's one request by the function, which gets method, path and body.
  defp serve(answer) do
    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, packet: :http_bin, active: false, ip: {127, 0, 0, 1}])

    {:ok, port} = :inet.port(listener)
    spawn_link(fn -> accept(listener, answer) end)
    "http://127.0.0.1:#{port}/patch-api"
  end

  defp accept(listener, answer) do
    {:ok, socket} = :gen_tcp.accept(listener)
    {:ok, {:http_request, method, {:abs_path, path}, _version}} = :gen_tcp.recv(socket, 0)
    length = headers(socket, 0)
    :ok = :inet.setopts(socket, packet: :raw)
    {:ok, body} = if length > 0, do: :gen_tcp.recv(socket, length), else: {:ok, ""}
    {status, type, text} = answer.(method, path, body)

    head =
      "HTTP/1.1 #{status} X\r\ncontent-type: #{type}\r\ncontent-length: #{byte_size(text)}\r\nconnection: close\r\n\r\n"

    :ok = :gen_tcp.send(socket, head <> text)
    :gen_tcp.close(socket)
    accept(listener, answer)
  end

  defp headers(socket, length) do
    case :gen_tcp.recv(socket, 0) do
      {:ok, {:http_header, _, :"Content-Length", _, text}} ->
        headers(socket, String.to_integer(text))

      {:ok, {:http_header, _, _name, _, _text}} ->
        headers(socket, length)

      {:ok, :http_eoh} ->
        length
    end
  end

  defp interface(:GET, "/patch-api/api/nodes", _, _), do: {200, "text/plain", "none\n"}

  defp interface(:GET, "/patch-api/api/build", _, _) do
    sums =
      for {path, text} <- @files, do: [Hex.encode(:crypto.hash(:sha256, text)), "  ", path, "\n"]

    {200, "text/plain", IO.iodata_to_binary(sums)}
  end

  # Settings are never handed out; `lost` by a fault.
  defp interface(:POST, "/patch-api/api/build/files", form, lost) do
    paths =
      Enum.reduce(URI.query_decoder(form), [], fn
        {"path[]", path}, paths -> [path | paths]
        {"path", path}, _paths -> [path]
      end)

    files =
      for path <- paths,
          path not in lost,
          not String.starts_with?(path, "releases/"),
          do: {String.to_charlist(path), @files[path]}

    {:ok, {_name, zip}} = :zip.create(~c"build.zip", files, [:memory])
    {200, "application/zip", zip}
  end

  defp mirror(dir, lost) do
    {:ok, target} = WebTarget.open(serve(&interface(&1, &2, &3, lost)), "token", nil)
    near = Path.join(dir, "near")
    File.mkdir_p!(Path.join(near, "lib/shop-1.0.0/priv"))
    Running.mirror(WebTarget.source(target), near, Path.join(dir, "mirror"))
  end

  test "every file that is asked for comes, and settings are said not to", %{tmp_dir: dir} do
    assert {["lib/shop-1.0.0/priv/a.css", "lib/shop-1.0.0/priv/b.css"],
            ["releases/1.0.0/sys.config"]} = mirror(dir, [])

    for name <- ~w(a b),
        do: assert(File.read!("#{dir}/mirror/lib/shop-1.0.0/priv/#{name}.css") == name)
  end

  test "one that is not handed out is no file that is the same", %{tmp_dir: dir} do
    assert_raise RuntimeError, ~r/told of 1 file that it did not hand out, .*b\.css/, fn ->
      mirror(dir, ["lib/shop-1.0.0/priv/b.css"])
    end
  end

  test "what is told of an apply on its way says nothing to the terminal" do
    asked = :counters.new(1, [])

    answer = fn
      :GET, "/patch-api/api/nodes", _body ->
        {200, "text/plain", "none\n"}

      :POST, "/patch-api/api/patches/fix/apply", _form ->
        {202, "text/plain\r\nlocation: /patch-api/api/operations/7", "begun\n"}

      :GET, "/patch-api/api/operations/7", _body ->
        :ok = :counters.add(asked, 1, 1)

        if :counters.get(asked, 1) == 1,
          do: {202, "text/plain", "a\e[2J@host\u009B2J: prepared\n"},
          else: {200, "text/plain\r\nx-everywhere: yes", "done\n"}
    end

    {:ok, target} = WebTarget.open(serve(answer), "token", nil)
    test = self()

    shown = capture_io(:stderr, fn -> send(test, WebTarget.apply(target, "fix", [], true)) end)

    assert_received {:ok, %{text: "done\n", everywhere?: true}}
    assert shown =~ "a\\u{1b}[2J@host\\u{9b}2J: prepared\n"
  end

  test "who is sent to a login gets told which mount is meant" do
    url = serve(fn _, _, _ -> {302, "text/html", "go to /users/log-in"} end)
    assert {:error, text} = WebTarget.open(url, "token", nil)
    assert text =~ "answers with 302" and text =~ "mount for scripts"
  end
end
