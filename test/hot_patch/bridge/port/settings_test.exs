defmodule HotPatch.Bridge.Port.SettingsTest do
  # Not async: it changes what is configured for all.
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Settings

  alias HotPatch.Archive
  alias HotPatch.Bridge
  alias HotPatch.Bridge.Port.Server
  alias HotPatch.Error

  @nonsense [
    port_timeout: [0, -1, 1.5, "60000", nil, :infinity, {1}, 0x1_0000_0000],
    port_memory: [0, -1, 1.5, "1", nil, :all, {1}, 1, 1_000_000, 0x1_0000_0000_0000_0000],
    max_archive_bytes: [0, "1", :infinity, 0x1_0000_0000],
    max_unpacked_bytes: [0, 0x1_0000_0000],
    max_entries: [0, 0x1_0000_0000],
    max_name_bytes: [0, 0x1_0000_0000],
    max_atoms: [0, nil],
    max_module_memory: ["1", 0x1_0000_0000]
  ]

  for {option, values} <- @nonsense do
    test "#{option}: that makes no sense is named, and ends nothing" do
      option = unquote(option)
      server = start_supervised!({Server, []})

      for value <- unquote(Macro.escape(values)) do
        configure(option, value)

        assert {:error, %Error{reason: :invalid_option} = error} =
                 GenServer.call(server, {:request, "finding_names", [], <<131, 106>>, "names"})

        message = Exception.message(error)
        assert message =~ "config :hot_patch, #{option}: must be "
        assert message =~ "got: #{inspect(value)}"
      end
    end
  end

  test "counts from the next request on" do
    server = start_supervised!({Server, []})
    request = {:request, "finding_names", [], <<131, 106>>, "names"}
    configure(:port_timeout, -1)
    assert {:error, %Error{}} = GenServer.call(server, request)
    configure(:port_timeout, 60_000)
    assert {:ok, _names} = GenServer.call(server, request)
  end

  test "that makes no sense is told through the bridge" do
    configure(:port_memory, "much")
    Process.exit(Process.whereis(Server), :kill)
    assert {:error, %Error{reason: :invalid_option}} = Archive.read(zip([{"a", "a"}]), "a")
  end

  test "without the application, the call ends with the answer all the same" do
    configure(:port_timeout, :soon)
    :ok = Supervisor.terminate_child(Bridge.Supervisor, Server)
    on_exit(fn -> Supervisor.restart_child(Bridge.Supervisor, Server) end)
    assert {:error, %Error{reason: :invalid_option}} = Archive.read(zip([{"a", "a"}]), "a")
  end
end
