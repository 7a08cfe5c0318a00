defmodule Bench.Cluster.Patch do
  # What is sent and loaded: modules of about 50 kB, nearly all of it a literal that cannot
  # be compressed. Some of them are gen_servers whose state's format has the version in it.

  @app "bench_app-1.0.0"
  @size 49_000
  # Stands in the compiled module for the literal, which the compiler would take a second for.
  @marker String.duplicate("literal ", 16)

  def app, do: @app
  def servers(modules), do: for(n <- 1..min(10, modules), do: name(n))

  @doc "The modules of a version, with their code."
  def build(modules, version) do
    1..modules
    |> Task.async_stream(&{name(&1), beam(&1, version)}, timeout: :infinity)
    |> Enum.map(fn {:ok, built} -> built end)
  end

  @doc "A zip of them, under the paths of their application."
  def zip(beams) do
    files =
      for {module, beam} <- beams,
          do: {String.to_charlist("#{@app}/ebin/#{module}.beam"), beam}

    {:ok, {_name, bytes}} = :zip.create(~c"patch.zip", files, [:memory])
    bytes
  end

  defp name(n), do: :"bench_#{n}"

  defp beam(n, version) do
    n
    |> text(version)
    |> Bench.Erlang.compile([:deterministic])
    |> fill(:crypto.strong_rand_bytes(@size))
  end

  defp fill(beam, bytes) do
    {:ok, _module, chunks} = :beam_lib.all_chunks(beam)
    {~c"LitT", <<_size::32, packed::binary>>} = List.keyfind(chunks, ~c"LitT", 0)

    <<count::32, literals::binary>> = :zlib.uncompress(packed)
    filled = IO.iodata_to_binary([<<count::32>> | literals(literals, bytes)])
    table = <<byte_size(filled)::32, :zlib.compress(filled)::binary>>
    {:ok, beam} = :beam_lib.build_module(List.keystore(chunks, ~c"LitT", 0, {~c"LitT", table}))
    beam
  end

  defp literals(<<>>, _bytes), do: []

  defp literals(<<size::32, literal::binary-size(size), rest::binary>>, bytes) do
    literal =
      if :erlang.binary_to_term(literal) == @marker,
        do: :erlang.term_to_binary(bytes),
        else: literal

    [<<byte_size(literal)::32>>, literal | literals(rest, bytes)]
  end

  defp text(n, version) when n <= 10 do
    """
    -module(#{name(n)}).
    -vsn(#{version}).
    -behaviour(gen_server).
    -export([version/0, data/0, init/1, handle_call/3, handle_cast/2, code_change/3]).
    version() -> #{version}.
    data() -> <<"#{@marker}">>.
    init([]) -> {ok, {s, #{version}}}.
    handle_call(get, _From, {s, V} = S) -> {reply, V, S}.
    handle_cast(_, S) -> {noreply, S}.
    code_change(_Vsn, {s, _}, _Extra) -> {ok, {s, #{version}}}.
    """
  end

  defp text(n, version) do
    """
    -module(#{name(n)}).
    -vsn(#{version}).
    -export([version/0, data/0]).
    version() -> #{version}.
    data() -> <<"#{@marker}">>.
    """
  end
end
