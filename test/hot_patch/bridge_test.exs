defmodule HotPatch.BridgeTest do
  # Not async: it ends the process that other tests' archives go through.
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Settings
  import HotPatch.Test.Until

  alias HotPatch.Analysis
  alias HotPatch.Bridge
  alias HotPatch.Bridge.OSProcess.Server
  alias HotPatch.Error
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Hostile

  @moduletag :tmp_dir
  @chunks ["Atom", "AtU8", "Code", "StrT", "ImpT", "ExpT", "FunT", "LitT", "Meta"]
  @load {65_536, 200_000, 65_536, 200_000, 16_777_216, 1000, 10_000, 268_435_456, 536_870_912}
  @limits {10 * 1024 * 1024, 10_000, 100 * 1024 * 1024, 1024, @load, @chunks}

  describe "both bridges give the same bytes for" do
    @tag :slow
    test "all modules of this machine's OTP and Elixir" do
      batches = Enum.chunk_every(system_beams(), 60)
      assert length(batches) > 8

      batches
      |> Enum.with_index(&archive/2)
      |> Task.async_stream(
        fn zip -> assert <<131, 104, 2, 119, 2, "ok", _::binary>> = same(zip) end,
        max_concurrency: 2,
        timeout: 60_000
      )
      |> Enum.each(&assert {:ok, _} = &1)
    end

    test "archives that break a rule" do
      rules =
        for {rule, bytes} <- Hostile.cases() do
          assert {:refused, refusal} = :erlang.binary_to_term(same(bytes), [:safe])
          assert refusal.rule == rule
          rule
        end

      assert length(Enum.uniq(rules)) > 40
    end

    test "archives that are cut or changed anywhere" do
      {path, bytes} = Builds.changed("patched", "Tariff")
      good = zip([{path, bytes}, {"a/text", "some text"}])

      for at <- 0..(byte_size(good) - 1)//3 do
        same(binary_part(good, 0, at))
        {head, <<byte, tail::binary>>} = :erlang.split_binary(good, at)
        same(<<head::binary, Bitwise.bxor(byte, 0x41), tail::binary>>)
      end
    end

    test "copies of modules, JSON, and what cannot be asked" do
      modules = for {_path, bytes} <- Builds.changed("patched"), do: bytes
      same("shadow", modules, HotPatch.Swap.DynamicCalls.naming())
      same("shadow", ["no module", hd(modules)], HotPatch.Swap.DynamicCalls.naming())
      same("shadow", modules, :no_text)
      same("encode_json", [:erlang.term_to_binary(%{"a" => [1, 2.5, nil, "ü"]})], [])
      same("encode_json", [:erlang.term_to_binary({:no, :json})], [])
      same("encode_json", [<<131>>], [])
      same("no_such_request", [], [])
      same("read_archive", [], @limits)
      same("read_archive", ["", ""], @limits)
    end

    test "funs of two versions" do
      file = File.read!(Path.join(Builds.ebin("patched"), "Elixir.Exchange.Call.beam"))
      files = [file, file]

      assert [{:ok, [_ | _] = old, [_ | _], [_ | _]}, {:error, why}] =
               :erlang.binary_to_term(same("funs", files ++ ["", hd(files)], []), [:safe])

      assert Enum.all?(old, &match?({_index, _uniq, _arity, _free}, &1))
      assert is_binary(why)
      assert [] = :erlang.binary_to_term(same("funs", [], []), [:safe])

      assert {:failed, :bad_request, _why} =
               :erlang.binary_to_term(same("funs", [hd(files)], []), [:safe])
    end

    test "analyses, appups and the names of findings" do
      # Atoms of an analysis are those of its structs.
      _ = Analysis.vocabulary()

      before =
        for file <- HotPatch.Support.Folder.files(Builds.ebin("shipped"), ".beam"),
            do: File.read!(file)

      later = for {_path, bytes} <- Builds.changed("patched"), do: bytes
      count = length(before)
      pairs = [{"Elixir.Exchange.Call", "Elixir.Exchange.Tariff"}]

      for options <- [
            {count, [], [], false},
            {count, :rest, [], true},
            {count, ["Elixir.Exchange.Trunk"], pairs, false},
            {0, [], [], false}
          ] do
        reply = same("analyse", before ++ later, options)
        assert %{modules: [_ | _]} = :erlang.binary_to_term(reply, [:safe])
      end

      same("analyse", ["no module", hd(later)], {1, [], [], false})
      assert text(same("appup", before ++ later, appup(count))) =~ "load_module"
      assert [{_, _, _, _} | _] = :erlang.binary_to_term(same("finding_names", [], []), [:safe])

      for {name, options} <- [
            {"analyse", {count + 1000, [], [], false}},
            {"analyse", {-1, [], [], false}},
            {"analyse", {count, :all, [], false}},
            {"analyse", {count, [], ["no pair"], false}},
            {"analyse", {count, [], [], 1}},
            {"analyse", []},
            {"appup", {count, "exchange", "1.0.0", false}},
            {"appup", appup(count + 1000)}
          ] do
        reply = same(name, before ++ later, options)
        assert {:failed, :bad_request, why} = :erlang.binary_to_term(reply, [:safe])
        assert why =~ name
      end
    end

    test "manifests and signatures" do
      # A composition's atoms are those of the module that decodes it.
      _ = HotPatch.Archive.vocabulary()

      manifest = manifest([{"a/text", "some text"}])
      patch = zip([{"hot_patch.json", manifest}, {"a/text", "some text"}])
      assert {:ok, %{manifest: %{bytes: ^manifest}, signature: nil}} = term(same(patch))
      assert {:ok, signed} = term(same("sign", [patch, signature()], @limits))
      assert {:ok, %{signature: %{"name" => "somebody"}}} = term(same(signed))

      assert {:error, _} = term(same("sign", [patch, "{}"], @limits))
      assert {:error, _} = term(same("sign", ["no zip", signature()], @limits))
      unsaid = zip([{"a/text", "some text"}])
      assert {:error, why} = term(same("sign", [unsaid, signature()], @limits))
      assert why =~ "no manifest"
      assert {:failed, :bad_request, _} = term(same("sign", [patch], @limits))
      assert {:failed, :bad_request, _} = term(same("sign", [patch, signature()], []))
      assert {:refused, %{rule: :manifest_digest}} = term(same(altered(manifest)))
    end

    test "a path and the bytes at it", %{tmp_dir: dir} do
      bytes = zip([{"a/text", "some text"}])
      path = Path.join(dir, "a.zip")
      File.write!(path, bytes)
      expected = same(bytes)
      assert same("read_archive", [{:path, path, 1_000_000}], @limits) == expected
      same("read_archive", [{:path, path, 10}], @limits)

      for missing <- [path <> "x", dir, "/dev/zero"] do
        assert {:error, %Error{reason: :file} = error} =
                 Bridge.request("read_archive", [{:path, missing, 10}], @limits, "a.zip")

        assert Exception.message(error) =~ "a.zip: cannot be read on #{node()}: "
        [nif, port] = answers("read_archive", [{:path, missing, 10}], @limits)
        assert :erlang.binary_to_term(nif) == :erlang.binary_to_term(port)
      end
    end
  end

  describe "the port" do
    test "answers many at a time" do
      1..200
      |> Task.async_stream(
        fn n ->
          name = "f#{n}"

          assert {:ok, reply} =
                   Bridge.OSProcess.request("read_archive", [zip([{name, name}])], limits(), "a")

          assert {:ok, %{files: [%{path: ^name, bytes: ^name}]}} = :erlang.binary_to_term(reply)
        end,
        max_concurrency: 50
      )
      |> Enum.each(&assert {:ok, _} = &1)
    end

    test "that is killed is replaced, and its request answered with the archive's name" do
      server = start_supervised!({Server, []})
      stop(program(server))
      task = Task.async(fn -> read(server, "billing") end)
      other = Task.async(fn -> read(server, "rates") end)
      until(fn -> map_size(:sys.get_state(server).running) == 2 end, "the program has both")
      kill("KILL", program(server, :known))

      assert {:error, %Error{reason: :reader} = error} = Task.await(task)
      assert Exception.message(error) =~ ~r/\Abilling: .*signal 9.*reading rates at the same time/
      assert {:error, %Error{reason: :reader, details: %{cause: :ended}}} = Task.await(other)

      # Nobody has tried again: a program is started for the next one.
      assert %{program: nil, running: running} = :sys.get_state(server)
      assert running == %{}
      assert {:ok, _} = read(server, "billing")
    end

    @tag :capped
    test "whose memory is used up ends, and nothing else does" do
      server = start_supervised!({Server, [memory: 100_000_000]})
      assert {:ok, _} = read(server, "small")

      wide = <<131, 108, 4_000_000::32, :binary.copy("j", 4_000_001)::binary>>

      case GenServer.call(server, {:request, "encode_json", [wide], <<131, 106>>, "wide"}) do
        {:error, %Error{reason: :reader} = error} -> assert Exception.message(error) =~ "wide: "
        {:ok, reply} -> assert {:error, _no_memory} = :erlang.binary_to_term(reply)
      end

      assert {:ok, _} = read(server, "small")
    end

    test "is not sent more than it takes, and goes on" do
      for limit <- [:max_archive_bytes, :max_unpacked_bytes], do: configure(limit, 1_000_000)

      server = start_supervised!({Server, []})
      os = program(server)
      large = :binary.copy("x", 20_000_000)

      assert {:error, %Error{reason: :reader, details: %{cause: :too_large}} = error} =
               GenServer.call(server, {:request, "shadow", [large], <<131, 106>>, "large"})

      assert Exception.message(error) =~ "large: "
      assert {:ok, _} = read(server, "small")
      assert program(server, :known) == os
    end

    test "that does not answer in time is given up" do
      server = start_supervised!({Server, [timeout: 300, grace: 100]})
      assert {:ok, _} = read(server, "first")
      first = program(server)
      stop(first)

      assert {:error, %Error{reason: :reader} = error} = read(server, "slow")
      assert Exception.message(error) =~ "slow: "
      assert Exception.message(error) =~ "within 300 ms"
      until(fn -> :sys.get_state(server).program == nil end, "it is given up")
      assert {:ok, _} = read(server, "next")
      refute program(server) == first
      kill("KILL", first)
    end

    test "drops what a dead caller has asked for" do
      server = start_supervised!({Server, [grace: 60_000]})
      os = stop(program(server))
      callers = for n <- 1..5, do: spawn(fn -> read(server, "dead #{n}") end)
      until(fn -> :queue.len(:sys.get_state(server).waiting) == 3 end, "three wait")
      Enum.each(callers, &Process.exit(&1, :kill))
      until(fn -> :queue.is_empty(:sys.get_state(server).waiting) end, "none waits")
      kill("CONT", os)
      assert {:ok, _} = read(server, "alive")
      until(fn -> :sys.get_state(server).running == %{} end, "none is left")
    end

    test "is not started before it is needed, and ends with the process that owns it" do
      server = start_supervised!({Server, []})
      assert :sys.get_state(server).program == nil
      os = program(server)
      assert File.exists?("/proc/#{os}")
      :ok = stop_supervised(Server)
      until(fn -> ended?(os) end, "it ends by itself")
    end
  end

  @tag :slow
  test "the bridge's end, however often, leaves the agent alone" do
    agent = Process.whereis(HotPatch.NodeAgent.Server)
    application = Process.whereis(HotPatch.Supervisor)

    for _ <- 1..50 do
      server = until(fn -> Process.whereis(Server) end, "it is started again")
      Process.exit(server, :kill)
      until(fn -> Process.whereis(Server) not in [server, nil] end, "it is another")
    end

    assert Process.whereis(HotPatch.NodeAgent.Server) == agent
    assert Process.whereis(HotPatch.Supervisor) == application
  end

  # To pack takes longer than to read: one of four is enough to have both kinds.
  defp archive(files, n) when rem(n, 4) == 0, do: zip(files)

  defp archive(files, _n),
    do: files |> Enum.map(fn {p, b} -> Hostile.entry(p, b) end) |> Hostile.zip()

  # The reply of both, which is the same to the byte.
  defp same(bytes), do: same("read_archive", [bytes], @limits)

  defp same(name, blobs, options) do
    [nif, port] = answers(name, blobs, options)
    assert nif == port
    nif
  end

  defp term(reply), do: :erlang.binary_to_term(reply, [:safe])
  defp text(reply), do: reply |> term() |> tap(&assert(is_binary(&1)))

  defp appup(count), do: {count, "exchange", {"1.0.0", "1.0.1"}, false}

  defp manifest(files) do
    files =
      for {path, bytes} <- files do
        sha256 = :sha256 |> :crypto.hash(bytes) |> Base.encode16(case: :lower)
        %{path: path, sha256: sha256}
      end

    {:ok, json} = HotPatch.JSON.encode(%{schema: 1, name: "fix", files: files})
    json
  end

  # Well formed; nobody asks here whether it is genuine.
  defp signature do
    {:ok, json} =
      HotPatch.JSON.encode(%{
        algorithm: "ed25519",
        key: Base.encode64(<<1::256>>),
        name: "somebody",
        signature: Base.encode64(<<2::512>>)
      })

    json
  end

  defp altered(manifest), do: zip([{"hot_patch.json", manifest}, {"a/text", "other text"}])

  defp answers(name, blobs, options) do
    for bridge <- [Bridge.Nif, Bridge.OSProcess] do
      assert {:ok, reply} =
               bridge.request(name, blobs, :erlang.term_to_binary(options), "an archive")

      reply
    end
  end

  defp limits, do: :erlang.term_to_binary(@limits)

  defp read(server, about) do
    GenServer.call(server, {:request, "read_archive", [zip([{"a", "a"}])], limits(), about})
  end

  # The program's number, once it has started.
  defp program(server) do
    assert {:ok, _} = read(server, "start")
    program(server, :known)
  end

  defp program(server, :known) do
    {:os_pid, os} = Port.info(:sys.get_state(server).program, :os_pid)
    os
  end

  defp stop(os) do
    kill("STOP", os)
    os
  end

  defp kill(signal, os), do: {_, 0} = System.cmd("kill", ["-#{signal}", "#{os}"])

  # Gone, or waiting for its parent to take notice.
  defp ended?(os) do
    case File.read("/proc/#{os}/stat") do
      {:ok, stat} -> stat =~ ~r/\) Z /
      {:error, _} -> true
    end
  end

  defp system_beams do
    for root <- [:code.root_dir(), :code.lib_dir(:elixir) |> Path.join("..")],
        {path, n} <- [root, "**", "*.beam"] |> Path.join() |> Path.wildcard() |> Enum.with_index() do
      {"#{n}/" <> Path.basename(path), File.read!(path)}
    end
  end
end
