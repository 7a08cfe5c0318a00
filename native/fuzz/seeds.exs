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

# Pairs for the analysis: the length of the first, and both. Their literals are not packed, so that
# what is changed in them is still read.
plain = fn bytes ->
  {:ok, _module, chunks} = :beam_lib.all_chunks(bytes)

  chunks =
    for {id, data} <- chunks, id not in [~c"Dbgi", ~c"Docs", ~c"Line", ~c"CInf"] do
      case {id, data} do
        {~c"LitT", <<size::32, packed::binary>>} when size > 0 ->
          {id, <<0::32, :zlib.uncompress(packed)::binary>>}

        other ->
          other
      end
    end

  {:ok, built} = :beam_lib.build_module(chunks)
  built
end

pair = fn before, later -> <<byte_size(before)::32, before::binary, later::binary>> end

compiled = fn source ->
  {:ok, tokens, _} = :erl_scan.string(to_charlist(source))

  forms =
    tokens
    |> Enum.chunk_while([], fn
      {:dot, _} = dot, acc -> {:cont, Enum.reverse([dot | acc]), []}
      token, acc -> {:cont, [token | acc]}
    end, fn [] -> {:cont, []} end)
    |> Enum.map(fn tokens -> {:ok, form} = :erl_parse.parse_form(tokens); form end)

  {:ok, :m, bytes} = :compile.forms(forms, [:binary, :nowarn_unused_function])
  plain.(bytes)
end

versions = [
  {"-module(m). -export([init/1, code_change/3]). init(A) -> {ok, {state, A}}. code_change(_, S, _) -> {ok, S}.",
   "-module(m). -export([init/1, code_change/3]). init(A) -> {ok, {state, A, 1}}. code_change({down, _}, {state, A, _}, _) -> {ok, {state, A}}; code_change(_, {state, A}, _) -> {ok, {state, A, n:f()}}."},
  {"-module(m). -export([init/1, handle_call/3]). init(A) -> X = {ok, {A}}, try n:f(A, X) catch throw:R -> R end. handle_call(_, _, S) -> {reply, S, S}.",
   "-module(m). -export([init/1, handle_call/3]). init(A) -> {ok, \#{a => A, b => \"x\"}}. handle_call(_, _, S) -> {reply, [Y || Y <- S], S}."},
  {"-module(m). -export(['__struct__'/0, f/1]). '__struct__'() -> \#{'__struct__' => m, a => 1, b => fun lists:map/2}. f(\#{a := A} = X) -> X\#{b => A}.",
   "-module(m). -export(['__struct__'/0, f/2]). '__struct__'() -> \#{'__struct__' => m, a => 1}. f(<<A:8, \"tail\">>, B) -> <<A:16, \"more\", B/binary>>; f(A, B) -> fun(C) -> {A, B, C} end."},
  {"-module(m). -behaviour(supervisor). -export([init/1]). init(_) -> {ok, {\#{strategy => one_for_one}, [\#{id => n, start => {n, start_link, []}}]}}.",
   "-module(m). -behaviour(supervisor). -export([init/1]). init(_) -> {ok, {\#{strategy => one_for_all}, []}}."}
]

for {{before, later}, n} <- Enum.with_index(versions) do
  {before, later} = {compiled.(before), compiled.(later)}
  save.("analysis", "versions-#{n}", pair.(before, later))
  save.("analysis", "back-#{n}", pair.(later, before))
end

for {path, n} <- beams |> Enum.sort_by(&File.stat!(&1).size) |> Enum.take(60) |> Enum.with_index() do
  {:ok, {_module, stripped}} = :beam_lib.strip(File.read!(path))
  bytes = plain.(stripped)
  # Another byte in its code: most are read to the end all the same.
  {at, _size} = :binary.match(bytes, "Code")
  place = at + 40
  <<head::binary-size(place), byte, rest::binary>> = bytes
  save.("analysis", "#{n}", pair.(bytes, <<head::binary, Bitwise.bxor(byte, 16), rest::binary>>))
end

appups = [
  ~S({"2", [{"1", [{update, m, {advanced, []}, [n]}, {load_module, n}]}], [{<<"1\\..*">>, []}]}.),
  ~S({"1", [], []}. % nothing),
  ~S({update, m, static, 500, {advanced, {'A b', "x", <<1, "y">>, 1.5e3, -7, \#{a => [b | c]}}}, soft_purge, brutal_purge, [n]}),
  ~S({apply, {m, f, [16#ff, $a, "\x{e9}"]}}),
  ~S([{add_application, a, temporary}, restart_new_emulator])
]

for {text, n} <- Enum.with_index(appups), do: save.("appup", "#{n}", text)

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
