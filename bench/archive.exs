# Reading an archive: HotPatch's reader, by its two bridges, against OTP's own modules, in the
# same run.
#
#     MIX_ENV=prod mix run bench/archive.exs [ROUNDS]
#
# Both get the same zip of real modules of this machine's OTP and Elixir, stripped as a
# release strips them, and give the files, each module's MD5, imports, exports and
# attributes. HotPatch besides verifies the archive's rules and every file's SHA-256.
# The ways take turns; figures are medians.

Code.require_file("table.exs", __DIR__)

defmodule Bench.Archive do
  alias Bench.Table

  def run(rounds) do
    beams = beams()

    IO.puts(
      "OTP #{System.otp_release()}, Elixir #{System.version()}, #{System.schedulers_online()} schedulers, #{rounds} rounds\n"
    )

    header = ["modules", "zip", "way", "median ms", "min ms", "ratio"]
    IO.puts(line(header))
    Enum.each([50, 1_000], &compare(Enum.take(beams, &1), rounds))
  end

  defp compare(beams, rounds) do
    {:ok, {_name, zip}} = :zip.create(~c"bench.zip", beams, [:memory])

    ways = [
      {"zip:unzip + beam_lib", fn -> otp(zip, &Enum.map/2) end},
      {"the same, two processes", fn -> otp(zip, &halves/2) end},
      {"HotPatch, bridge: :nif", fn -> read(:nif, zip) end},
      {"HotPatch, bridge: :port", fn -> read(:port, zip) end}
    ]

    # Once unmeasured: code is loaded, caches are warm.
    Enum.each(ways, fn {_name, way} -> way.() end)

    times =
      for _round <- 1..rounds, {name, way} <- ways do
        :erlang.garbage_collect()
        {us, _result} = :timer.tc(way)
        {name, us / 1000}
      end
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

    base = Table.median(times["zip:unzip + beam_lib"])

    for {name, _way} <- ways do
      ms = Table.median(times[name])

      row = [
        length(beams),
        "#{div(byte_size(zip), 1024)} kB",
        name,
        Table.decimal(ms),
        Table.decimal(Enum.min(times[name])),
        Table.decimal(base / ms)
      ]

      IO.puts(line(row))
    end

    IO.puts("")
  end

  defp read(bridge, zip) do
    Application.put_env(:hot_patch, :bridge, bridge)
    :ok = HotPatch.Host.Config.load()
    {:ok, _} = HotPatch.Archive.read(zip, "bench")
  end

  defp otp(zip, map) do
    {:ok, files} = :zip.unzip(zip, [:memory])

    map.(files, fn {_name, bytes} ->
      {:ok, md5} = :beam_lib.md5(bytes)
      {:ok, chunks} = :beam_lib.chunks(bytes, [:imports, :exports, :attributes])
      {md5, chunks}
    end)
  end

  defp halves(files, fun) do
    {left, right} = Enum.split(files, div(length(files), 2))
    task = Task.async(fn -> Enum.map(right, fun) end)
    Enum.map(left, fun) ++ Task.await(task, :infinity)
  end

  # Stripped from bytes: given a file's name, beam_lib:strip would write to the file.
  defp beams do
    for root <- [:code.root_dir(), Path.join(:code.lib_dir(:elixir), "..")],
        path <- Path.wildcard(Path.join([root, "**", "*.beam"])) do
      {Path.basename(path), path}
    end
    |> Map.new()
    |> Enum.sort()
    # A fixed shuffle, so that a few modules are of all applications.
    |> Enum.sort_by(fn {name, _path} -> :erlang.phash2(name) end)
    |> Enum.map(fn {name, path} ->
      {String.to_charlist("bench-1.0.0/ebin/" <> name), strip(File.read!(path))}
    end)
    |> Enum.filter(fn {_name, bytes} -> byte_size(bytes) < 100_000 end)
  end

  defp strip(bytes) do
    {:ok, {_module, stripped}} = :beam_lib.strip(bytes, [~c"Attr", ~c"Line"])
    if match?(<<31, 139, _::binary>>, stripped), do: :zlib.gunzip(stripped), else: stripped
  end

  defp line(cells), do: Table.line([8, 9, 25, 10, 8, 6], cells)
end

rounds =
  case System.argv() do
    [text] -> String.to_integer(text)
    [] -> 15
  end

Bench.Archive.run(rounds)
