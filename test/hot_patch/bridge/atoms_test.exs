defmodule HotPatch.Bridge.AtomsTest do
  # Not async: it counts the atoms of the whole VM.
  use ExUnit.Case, async: false

  import HotPatch.Test.Settings, only: [configure: 2]

  alias HotPatch.Archive
  alias HotPatch.Bridge.OSProcess.Server
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Hostile

  @moduletag :long
  @moduletag timeout: 600_000

  # HOT_PATCH_ROUNDS=100000 takes as many for each bridge.
  @counts (case System.get_env("HOT_PATCH_ROUNDS") do
             nil -> [port: 10_000, nif: 25_000]
             rounds -> [port: String.to_integer(rounds), nif: String.to_integer(rounds)]
           end)
  @warm 2_000
  # Of the VM, and of the program beside it: a leak of 2 kB an archive would be more, and of 200 bytes in the longer run.
  @slack 20 * 1024 * 1024

  # Every name in it has this in it, and gets another for each archive.
  @mark "000000000"

  for {bridge, count} <- @counts do
    test "#{count} hostile archives leave no atom and no memory behind (#{bridge})" do
      configure(:bridge, unquote(bridge))
      module = module()
      read(module, 1..@warm)
      memory = memory()
      atoms = :erlang.system_info(:atom_count)

      outcomes = read(module, (@warm + 1)..(@warm + unquote(count)))

      assert :erlang.system_info(:atom_count) == atoms
      for {before, now} <- Enum.zip(memory, memory()), do: assert(now - before < @slack)

      # Were they what they are meant to be? Read, refused, and damaged.
      assert outcomes |> Map.values() |> Enum.sum() == unquote(count)
      assert %{beam: _, damaged: _, other: _, name_parent: _, bad_crc: _, not_a_zip: _} = outcomes
    end
  end

  # As many at a time as there are processors; how they ended, counted.
  defp read(module, first..last) do
    lanes = System.schedulers_online()

    1..lanes
    |> Task.async_stream(
      fn lane ->
        for n <- (first + lane - 1)..last//lanes, reduce: %{} do
          outcomes -> Map.update(outcomes, outcome(archive(module, n)), 1, &(&1 + 1))
        end
      end,
      timeout: 120_000
    )
    |> Enum.reduce(%{}, fn {:ok, more}, all -> Map.merge(all, more, fn _, a, b -> a + b end) end)
  end

  defp outcome(bytes) do
    case Archive.read(bytes, "hostile") do
      {:ok, %{files: [file]}} -> file.kind
      {:error, %HotPatch.Refusal{rule: rule}} -> rule
    end
  end

  # No two are the same, and each is full of names that no VM has seen.
  defp archive(module, n) do
    number = n |> Integer.to_string() |> String.pad_leading(byte_size(@mark), "0")
    name = "hot_patch_never_#{number}"
    bytes = :binary.replace(module, @mark, number, [:global])
    entry = Hostile.entry("a/#{name}.beam", bytes)

    case rem(n, 6) do
      0 -> Hostile.zip([entry])
      1 -> Hostile.zip([%{entry | name: "#{number}/other.beam"}])
      2 -> Hostile.zip([%{entry | name: "../" <> entry.name}])
      3 -> Hostile.zip([%{entry | crc: n}])
      4 -> Hostile.zip([Hostile.entry("a/#{name}", number)])
      5 -> bytes
    end
  end

  defp module do
    bytes =
      Builds.erlang("""
      -module(hot_patch_never_#{@mark}).
      -behaviour(behaviour_#{@mark}).
      -attribute_#{@mark}([value_#{@mark}]).
      -export([function_#{@mark}/0]).
      function_#{@mark}() -> module_#{@mark}:call_#{@mark}(atom_#{@mark}).
      """)

    {:ok, {_module, stripped}} = :beam_lib.strip(bytes, [~c"Attr"])
    if match?(<<31, 139, _::binary>>, stripped), do: :zlib.gunzip(stripped), else: stripped
  end

  # Of the VM by its own account, of the VM and of the program by the kernel's.
  defp memory do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    [:erlang.memory(:total), resident("self") | program()]
  end

  defp program do
    case :sys.get_state(Server).program do
      nil ->
        [0]

      port ->
        {:os_pid, os} = Port.info(port, :os_pid)
        [resident(os)]
    end
  end

  defp resident(process) do
    status = File.read!("/proc/#{process}/status")
    [[kilobytes]] = Regex.scan(~r/VmRSS:\s+(\d+) kB/, status, capture: :all_but_first)
    String.to_integer(kilobytes) * 1024
  end
end
