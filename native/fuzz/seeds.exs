# Makes the seeds of the fuzz targets out of the files of this machine's OTP and Elixir:
#
#     elixir native/fuzz/seeds.exs FOLDER
#
# Small files first: a fuzzer gets further with many small inputs than with a few large ones.

[folder] = System.argv()

save = fn target, name, bytes ->
  path = Path.join([folder, target, name])
  File.mkdir_p!(Path.dirname(path))
  File.write!(path, bytes)
end

beams =
  for root <- [:code.root_dir(), Path.join(:code.lib_dir(:elixir), "..")],
      path <- Path.wildcard(Path.join([root, "**", "*.beam"])),
      %{size: size} = File.stat!(path),
      size < 12_000,
      do: path

beams = beams |> Enum.sort_by(&:erlang.phash2(Path.basename(&1))) |> Enum.take(150)

for {path, n} <- Enum.with_index(beams) do
  bytes = File.read!(path)
  save.("beam", "#{n}.beam", bytes)
  # Given a file's name, beam_lib:strip would write to the file.
  {:ok, {_module, stripped}} = :beam_lib.strip(bytes)
  save.("beam", "#{n}-stripped.beam", stripped)
end

# The target calls its module `m`: only one of that name is read to the end.
sources = [
  "-module(m). -vsn(1). -behaviour(gen_server). -export([f/0, g/1]). f() -> g({1, [a, \"b\"]}). g(X) -> X.",
  "-module(m). -on_load(l/0). -export([l/0]). l() -> erlang:load_nif(\"x\", 0).",
  "-module(m). -export([f/1]). f(X) -> fun(Y) -> X + Y end. g() -> try exit(a) catch _:_ -> \#{k => 1.5} end. -compile(nowarn_unused_function).",
  "-module(m). -export([f/1]). f(<<A:16, B:3, R/bits>>) -> {A, B, R, 1 bsl 200}; f(_) -> fun m:f/1."
]

for {source, n} <- Enum.with_index(sources), options <- [[], [:debug_info]] do
  path = Path.join(System.tmp_dir!(), "hot_patch_seed_#{System.pid()}/m.erl")
  File.mkdir_p!(Path.dirname(path))
  File.write!(path, String.replace(source, ". -", ".\n-"))
  {:ok, :m, bytes} = :compile.file(to_charlist(path), [:binary | options])
  File.rm_rf!(Path.dirname(path))
  save.("beam", "m#{n}-#{length(options)}.beam", bytes)
end

small = beams |> Enum.sort_by(&File.stat!(&1).size) |> Enum.take(24)
files = for path <- small, do: {~c"a-1.0.0/ebin/" ++ to_charlist(Path.basename(path)), File.read!(path)}

for {chunk, n} <- files |> Enum.chunk_every(3) |> Enum.with_index(),
    {kind, options} <- [{"deflated", [:memory]}, {"stored", [:memory, {:uncompress, :all}]}] do
  {:ok, {_name, zip}} = :zip.create(~c"seed.zip", chunk, options)
  save.("archive", "#{n}-#{kind}.zip", zip)

  options = {1_048_576, 256, 4_194_304, 1024, ["AtU8", "Code", "StrT", "ImpT", "ExpT", "FunT", "LitT"]}
  request = {:request, n, "read_archive", :erlang.term_to_binary(options), [zip]}
  save.("protocol", "#{n}-#{kind}.request", :erlang.term_to_binary(request))
end

{:ok, {_name, zip}} = :zip.create(~c"seed.zip", [{~c"a", ""}, {~c"b/c.txt", "text"}], [:memory])
save.("archive", "tiny.zip", zip)

terms = [
  [],
  {:ok, %{"a" => 1, b: nil, c: [1.5, -7, 1_000_000_000_000, 2 ** 200]}},
  %{status: :ok, nodes: [%{node: :a@b, files: [%{path: "x", reason: nil}]}], list: 'text'},
  {1, 2, 3, 4, ["AtU8", "Code"]},
  "@hot_patch",
  <<1::3>>,
  [1 | 2]
]

for {term, n} <- Enum.with_index(terms) do
  save.("etf", "#{n}", :erlang.term_to_binary(term))
  save.("protocol", "#{n}.json", :erlang.term_to_binary({:request, n, "encode_json", <<131, 106>>, [:erlang.term_to_binary(term)]}))
end

for {path, n} <- Enum.with_index(small) do
  {:ok, {_module, chunks}} = :beam_lib.chunks(File.read!(path), [~c"Attr", ~c"CInf"], [:allow_missing_chunks])
  for {id, bytes} <- chunks, is_binary(bytes), do: save.("etf", "#{n}-#{id}", bytes)
end

save.("protocol", "cancel", :erlang.term_to_binary({:cancel, 7}))
save.("protocol", "path", :erlang.term_to_binary({:request, 1, "shadow", <<131, 106>>, [{:path, "/a", 9_000_000_000}]}))

md5 = String.duplicate("0", 32)
sha256 = String.duplicate("0", 64)

manifests = [
  ~s({}),
  ~s({"schema": 1, "name": "fix", "files": []}),
  ~s({"schema": 1, "name": "fix", "files": [{"path": "a-1/ebin/m.beam", "sha256": "#{sha256}", "module": {"name": "m", "change": "replace", "replaces": {"md5": "#{md5}", "vsn": "[1]"}, "brings": {"md5": "#{md5}"}}}]}),
  ~s({"schema": 1, "name": "fix", "release": {"name": "a", "version": "1"}, "built_with": {"otp": "25"}, "author": "me", "text": "ü", "cumulative": true, "transition": "none", "on_load": "load", "files": [], "removed": [{"path": "a-1/ebin/n.beam", "module": {"name": "n", "replaces": {"md5": "#{md5}"}}}], "load_order": ["m"], "instructions": {"up": ["{load_module,m}"], "down": []}, "config": [{"application": "a", "key": "k", "value": "[1,{b,<<2>>}]"}], "accepted_findings": [{"rule": "cycle", "module": "m", "reason": "so"}]}),
  ~s({"algorithm": "ed25519", "key": "#{Base.encode64(<<1::256>>)}", "name": "k", "signature": "#{Base.encode64(<<2::512>>)}"})
]

for {json, n} <- Enum.with_index(manifests), do: save.("manifest", "#{n}.json", json)
