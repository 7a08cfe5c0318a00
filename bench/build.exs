# Building a patch between two releases of 2,000 modules: HotPatch against the same in Elixir with
# OTP's beam_lib and zip, in the same run.
#
#     MIX_ENV=prod mix run bench/build.exs [ROUNDS]
#
# The modules are real ones of this machine's OTP and Elixir, in ten applications. In the second
# release 50 have another vsn. The others are the same byte for byte, as a compiler makes them that
# is told to be deterministic; or all differ in what does not run (the compiler's notes), as after
# a build in another folder, so that each has to be looked into.
#
# The way in Elixir gives the archive and the digests but no manifest. All ways read files that are
# in the system's cache; they take turns; figures are medians.

Code.require_file("table.exs", __DIR__)

defmodule Bench.Build do
  alias Bench.Table

  @modules 2_000
  @changed 50
  @applications 10

  def run(rounds) do
    root = Path.join(System.tmp_dir!(), "hot_patch_bench-#{System.pid()}")

    try do
      IO.puts(
        "OTP #{System.otp_release()}, Elixir #{System.version()}, #{System.schedulers_online()} schedulers, #{rounds} rounds, #{@modules} modules, #{@changed} changed\n"
      )

      IO.puts(line(["the others", "way", "median ms", "min ms", "ratio"]))
      make(Path.join(root, "from"), fn _n, bytes -> bytes end)
      make(Path.join(root, "same"), &changed/2)
      make(Path.join(root, "rebuilt"), fn n, bytes -> changed(n, without_notes(bytes)) end)
      for to <- ["same", "rebuilt"], do: compare(root, to, rounds)
    after
      File.rm_rf!(root)
    end
  end

  defp compare(root, to, rounds) do
    sides = [Path.join(root, "from"), Path.join(root, to)]
    out = Path.join(root, "fix.zip")

    ways = [
      {"beam_lib", fn -> elixir(sides, out, 1) end},
      {"beam_lib, all schedulers", fn -> elixir(sides, out, System.schedulers_online()) end},
      {"HotPatch", fn -> hot_patch(sides, out) end}
    ]

    # Once unmeasured, and to see that all find the same.
    [same] = ways |> Enum.map(fn {_name, way} -> Enum.sort(way.()) end) |> Enum.uniq()
    @changed = length(same)

    times =
      for _round <- 1..rounds, {name, way} <- ways do
        :erlang.garbage_collect()
        {us, _result} = :timer.tc(way)
        {name, us / 1000}
      end
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

    base = Table.median(times["beam_lib"])

    for {name, _way} <- ways do
      ms = Table.median(times[name])

      IO.puts(
        line([
          to,
          name,
          Table.decimal(ms),
          Table.decimal(Enum.min(times[name])),
          Table.decimal(base / ms)
        ])
      )
    end

    IO.puts("")
  end

  defp hot_patch([from, to], out) do
    {:ok, built} = HotPatch.Build.run(from: from, to: to, out: out)
    for file <- built.composition.files, do: file.path
  end

  defp elixir([from, to], out, processes) do
    paths = Path.wildcard(Path.join(to, "lib/*/ebin/*.beam"))

    files =
      paths
      |> Task.async_stream(&changed_file(&1, from, to),
        max_concurrency: processes,
        ordered: false,
        timeout: :infinity
      )
      |> Enum.flat_map(fn {:ok, found} -> found end)
      |> Enum.sort()

    entries = for {path, bytes, _facts} <- files, do: {String.to_charlist(path), bytes}
    {:ok, {_name, zip}} = :zip.create(~c"fix.zip", entries, [:memory])
    File.write!(out, zip)
    for {path, _bytes, _facts} <- files, do: path
  end

  defp changed_file(path, from, to) do
    relative = Path.relative_to(path, to)
    {:ok, old} = File.read(Path.join(from, relative))
    {:ok, new} = File.read(path)

    with true <- old != new,
         {before, now} when before != now <- {version(old), version(new)} do
      [{Path.relative_to(relative, "lib"), new, {before, now, :crypto.hash(:sha256, new)}}]
    else
      _same -> []
    end
  end

  defp version(bytes) do
    {:ok, {_module, md5}} = :beam_lib.md5(bytes)
    {:ok, {_module, vsn}} = :beam_lib.version(bytes)
    {md5, vsn}
  end

  # Files of one application have names of their own; those of several may share theirs.
  defp make(root, change) do
    for {{name, bytes}, n} <-
          beams() |> Stream.cycle() |> Stream.take(@modules) |> Stream.with_index() do
      folder = Path.join(root, "lib/bench#{div(n * @applications, @modules)}-1.0.0/ebin")
      File.mkdir_p!(folder)
      File.write!(Path.join(folder, name), change.(n, bytes))
    end
  end

  # Another vsn, as a changed module has one.
  defp changed(n, bytes) when rem(n, div(@modules, @changed)) == 0 do
    rebuilt(bytes, fn
      {~c"Attr", attributes} ->
        attributes = attributes |> :erlang.binary_to_term() |> Keyword.put(:vsn, [n])
        [{~c"Attr", :erlang.term_to_binary(attributes)}]

      chunk ->
        [chunk]
    end)
  end

  defp changed(_n, bytes), do: bytes

  defp without_notes(bytes) do
    rebuilt(bytes, fn
      {~c"CInf", _notes} -> [{~c"CInf", :erlang.term_to_binary(version: ~c"0")}]
      chunk -> [chunk]
    end)
  end

  defp rebuilt(bytes, change) do
    {:ok, _module, chunks} = :beam_lib.all_chunks(bytes)
    {:ok, bytes} = :beam_lib.build_module(Enum.flat_map(chunks, change))
    bytes
  end

  defp beams do
    for root <- [:code.root_dir(), Path.join(:code.lib_dir(:elixir), "..")],
        path <- Path.wildcard(Path.join([root, "**", "*.beam"])),
        %{size: size} = File.stat!(path),
        size < 100_000 do
      {Path.basename(path), path}
    end
    |> Map.new()
    # A fixed shuffle, so that each application is a mix of all kinds.
    |> Enum.sort_by(fn {name, _path} -> :erlang.phash2(name) end)
    |> Enum.map(fn {name, path} -> {name, plain(File.read!(path))} end)
  end

  defp plain(<<31, 139, _::binary>> = packed), do: :zlib.gunzip(packed)
  defp plain(bytes), do: bytes

  defp line(cells), do: Table.line([10, 25, 10, 8, 6], cells)
end

rounds =
  case System.argv() do
    [text] -> String.to_integer(text)
    [] -> 9
  end

Bench.Build.run(rounds)
