defmodule HotPatch.Bridge.HostileModulesTest do
  # Modules that are small and mean much, through both bridges: an answer comes, and the VM goes on.
  use ExUnit.Case, async: false

  import HotPatch.Test.Until

  alias HotPatch.Bridge
  alias HotPatch.Bridge.OSProcess.Server
  alias HotPatch.Native

  # The module m with the function f/0 of these instructions.
  defp module(instructions, strings, literals) do
    code = <<16::32, 0::32, 180::32, 3::32, 1::32>>
    # label 1; func_info m f 0; label 2; ...; return; int_code_end
    code = [code, <<1, 0x10, 2, 0x12, 0x22, 0, 1, 0x20>>, instructions, <<19, 3>>]

    body =
      for {id, data} <- [
            {"AtU8", <<2::32, 1, "m", 1, "f">>},
            {"Code", code},
            {"StrT", strings},
            {"ImpT", <<0::32>>},
            {"ExpT", <<1::32, 2::32, 0::32, 2::32>>},
            {"LitT", literals}
          ] do
        size = IO.iodata_length(data)
        [id, <<size::32>>, data, <<0::size(rem(4 - rem(size, 4), 4))-unit(8)>>]
      end

    IO.iodata_to_binary(["FOR1", <<IO.iodata_length(body) + 4::32>>, "BEAM", body])
  end

  defp literal(bytes) do
    term = <<131, 109, byte_size(bytes)::32, bytes::binary>>
    table = <<1::32, byte_size(term)::32, term::binary>>
    <<byte_size(table)::32, :zlib.compress(table)::binary>>
  end

  # move literal 0, x0
  @move <<64, 0x47, 0x00, 0x03>>

  defp named_often, do: module(:binary.copy(@move, 8_000), "", literal(<<0::8_000_000>>))
  defp plain, do: module(@move, "", literal("x"))

  # Hashes a string of megabytes, again and again from another place: minutes of work.
  defp endless do
    strings = <<0::32_000_000>>
    number = fn n -> <<0x58, n::32>> end
    # bs_put_string size from
    put = for from <- 1..200_000, do: [92, number.(3_000_000), number.(from)]
    module(put, strings, literal("x"))
  end

  defp options, do: :erlang.term_to_binary({1, [], [], false})

  test "a large literal that is named often is hashed once" do
    modules = [plain(), named_often()]
    # In an archive it is less than a kilobyte.
    {:ok, {_name, zip}} =
      :zip.create(~c"x.zip", [{~c"a-1/ebin/m.beam", named_often()}], [:memory])

    assert byte_size(zip) < 1_000
    assert {:ok, %{files: [%{kind: :beam}]}} = HotPatch.Archive.read(zip, "fix")

    replies =
      for bridge <- [Bridge.OSProcess, Bridge.Nif] do
        {:ok, reply} = bridge.request("analyse", modules, options(), "hostile")
        :erlang.binary_to_term(reply)
      end

    assert [%{modules: [%{functions: %{changed: ["f/0"]}}]} = one, one] = replies
  end

  test "an analysis for which nobody waits any more is stopped, and costs others nothing" do
    # A program that goes on after a cancel is given up after the grace.
    server = start_supervised!({Server, [grace: 600_000]})
    ask = &GenServer.call(server, {:request, "analyse", &1, options(), "hostile"}, :infinity)
    assert {:ok, _} = ask.([plain(), plain()])
    {:os_pid, os} = Port.info(:sys.get_state(server).program, :os_pid)
    before = ticks(os)
    caller = spawn(fn -> ask.([plain(), endless()]) end)
    until(fn -> ticks(os) > before + 20 end, "the program is at work")
    Process.exit(caller, :kill)
    until(fn -> :sys.get_state(server).running == %{} end, "it has stopped")
    assert {:ok, _} = ask.([plain(), plain()])
    assert {:os_pid, os} == Port.info(:sys.get_state(server).program, :os_pid)
  end

  # The time of the processor that a program has taken, in hundredths of a second.
  defp ticks(os) do
    [_name, numbers] = String.split(File.read!("/proc/#{os}/stat"), ") ", parts: 2)
    [user, system] = numbers |> String.split() |> Enum.slice(11, 2)
    String.to_integer(user) + String.to_integer(system)
  end

  test "a request whose caller was killed leaves its scheduler" do
    modules = [plain(), endless()]
    count = :erlang.system_info(:dirty_cpu_schedulers_online)

    callers =
      for _ <- 1..count do
        spawn(fn -> Native.request("analyse", modules, options()) end)
      end

    busy? = fn pid ->
      Process.info(pid, :current_function) == {:current_function, {Native, :request, 3}}
    end

    until(fn -> Enum.all?(callers, busy?) end, "all dirty schedulers are at work")
    for pid <- callers, do: Process.exit(pid, :kill)

    # All schedulers were taken: this waits until one is free again.
    assert {:ok, reply} = Bridge.Nif.request("analyse", [plain(), plain()], options(), "plain")
    assert %{modules: []} = :erlang.binary_to_term(reply)
  end
end
