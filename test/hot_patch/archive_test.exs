defmodule HotPatch.ArchiveTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Archives
  import HotPatch.Test.Tools

  alias HotPatch.Archive
  alias HotPatch.Composition
  alias HotPatch.Refusal
  alias HotPatch.Test.Builds

  @moduletag :tmp_dir

  # Tools that write zips, and how each is asked to by default: `out.zip` of two folders. Those that a machine
  # lacks are left out, and it is said.
  @tools [
    {"zip", "Info-ZIP without folders of their own", "zip -q -D -r out.zip exchange-1.0.0 a"},
    {"7z", "p7zip", "7z a -bd out.zip exchange-1.0.0 a"},
    {"7zz", "7-Zip", "7zz a -bd out.zip exchange-1.0.0 a"},
    {"bsdtar", "libarchive", "bsdtar --format zip -cf out.zip exchange-1.0.0 a"},
    {"bsdtar", "libarchive that stores",
     "bsdtar --format zip --options zip:compression=store -cf out.zip exchange-1.0.0 a"},
    {"bsdtar", "libarchive by the file's name", "bsdtar -acf out.zip exchange-1.0.0 a"},
    {"jar", "Java's jar", "jar cMf out.zip exchange-1.0.0 a"},
    {"python3", "Python's zipfile on the command line",
     "python3 -m zipfile -c out.zip exchange-1.0.0 a"},
    {"python3", "Python's shutil",
     "mkdir in && mv exchange-1.0.0 a in && python3 -c 'import shutil; shutil.make_archive(\"out\", \"zip\", \"in\")'"},
    {"python3", "Python's zipfile that stores into a pipe",
     "python3 stored.py $(find exchange-1.0.0 a -type f) | cat > out.zip"},
    {"perl:Archive::Zip", "Perl's Archive::Zip",
     "perl -MArchive::Zip -e '$z = Archive::Zip->new; $z->addTree($_, $_) for @ARGV; $z->writeToFileNamed(\"out.zip\")' exchange-1.0.0 a"},
    {"perl:IO::Compress::Zip", "Perl's IO::Compress::Zip",
     "perl -MIO::Compress::Zip=zip -e 'zip [@ARGV] => \"out.zip\" or die' $(find exchange-1.0.0 a -type f)"},
    {"php", "PHP",
     "php -r '$z = new ZipArchive; $z->open(\"out.zip\", ZipArchive::CREATE); foreach (array_slice($argv, 1) as $f) $z->addFile($f);' -- $(find exchange-1.0.0 a -type f)"},
    {"minizip", "minizip", "minizip out.zip $(find exchange-1.0.0 a -type f)"}
  ]

  # Files a batch: enough to use all cores, few enough to stay below the archive limit.
  @batch 40

  describe "every .beam file of this machine's OTP and Elixir" do
    # Every function of every module is judged.
    @tag :slow
    @tag timeout: 300_000
    test "reads as beam_lib and the VM read it" do
      files = system_beams()
      # A machine without OTP's files would make this test say nothing.
      assert length(files) > 500

      read =
        files
        |> Enum.chunk_every(@batch)
        |> Task.async_stream(&compare_batch/1, timeout: 120_000)
        |> Enum.map(fn {:ok, count} -> count end)
        |> Enum.sum()

      assert read == length(files)
      IO.puts("\n#{read} .beam files read as beam_lib reads them")
    end
  end

  describe "archives of other tools are accepted:" do
    setup %{tmp_dir: dir} do
      files = [
        {"exchange-1.0.0/ebin/lists.txt", "some text"},
        Builds.changed("patched", "Call"),
        {"a/empty", ""}
      ]

      for {path, bytes} <- files do
        File.mkdir_p!(Path.dirname(Path.join(dir, path)))
        File.write!(Path.join(dir, path), bytes)
      end

      %{files: Map.new(files), names: Enum.map(files, &elem(&1, 0))}
    end

    @stored """
    import sys, zipfile
    with zipfile.ZipFile(sys.stdout.buffer, "w") as z:
        for name in sys.argv[1:]:
            z.write(name)
    """

    for {tool, title, command} <- @tools do
      @tag skip: lacking(tool)
      test "#{title}", %{tmp_dir: dir, files: files} do
        File.write!(Path.join(dir, "stored.py"), @stored)

        assert {_said, 0} =
                 System.cmd("sh", ["-ec", unquote(command)], cd: dir, stderr_to_stdout: true)

        assert_holds(File.read!(Path.join(dir, "out.zip")), files)
      end
    end

    @tag skip: lacking("jar")
    test "Java's jar with its own manifest", %{tmp_dir: dir, files: files} do
      {_said, 0} = System.cmd("jar", ["cf", "out.zip", "exchange-1.0.0", "a"], cd: dir)
      {:ok, composition} = Archive.read(File.read!(Path.join(dir, "out.zip")), "tool")
      paths = for entry <- composition.files, do: entry.path
      assert Enum.sort(paths) == Enum.sort(["META-INF/MANIFEST.MF" | Map.keys(files)])
    end

    test "Erlang's zip", %{files: files} do
      assert_holds(files |> Enum.to_list() |> zip(), files)
    end

    for {title, options} <- [
          {"", []},
          {" without compression", ["-0"]},
          {" without extra fields", ["-X"]}
        ] do
      test "Info-ZIP#{title}", %{tmp_dir: dir, files: files, names: names} do
        {_, 0} = System.cmd("zip", unquote(options) ++ ["-r", "out.zip" | names], cd: dir)
        assert_holds(File.read!(Path.join(dir, "out.zip")), files)
      end
    end

    test "Info-ZIP with folders of their own", %{tmp_dir: dir, files: files} do
      {_, 0} = System.cmd("zip", ["-r", "out.zip", "exchange-1.0.0", "a"], cd: dir)
      assert_holds(File.read!(Path.join(dir, "out.zip")), files)
    end

    test "Info-ZIP that streams, with data descriptors", %{tmp_dir: dir, files: files} do
      {_, 0} =
        System.cmd("sh", ["-c", "zip -q -fd -r - exchange-1.0.0 a | cat > out.zip"], cd: dir)

      assert_holds(File.read!(Path.join(dir, "out.zip")), files)
    end

    test "Python's zipfile", %{tmp_dir: dir, files: files, names: names} do
      code = """
      import sys, zipfile
      with zipfile.ZipFile("out.zip", "w", zipfile.ZIP_DEFLATED) as z:
          for name in sys.argv[1:]:
              z.write(name)
      """

      {_, 0} = System.cmd("python3", ["-c", code | names], cd: dir)
      assert_holds(File.read!(Path.join(dir, "out.zip")), files)
    end

    test "Python's zipfile that streams to a pipe", %{tmp_dir: dir, files: files, names: names} do
      code = """
      import sys, zipfile
      with zipfile.ZipFile(sys.stdout.buffer, "w", zipfile.ZIP_DEFLATED) as z:
          for name in sys.argv[1:]:
              z.write(name)
      """

      script = Path.join(dir, "stream.py")
      File.write!(script, code)

      {_, 0} =
        System.cmd("sh", ["-c", "python3 stream.py \"$@\" | cat > out.zip", "sh" | names], cd: dir)

      assert_holds(File.read!(Path.join(dir, "out.zip")), files)
    end
  end

  test "what the Mac adds to an archive is left out by name, and told" do
    {path, bytes} = Builds.changed("patched", "Call")
    double = Path.join("__MACOSX", Path.join(Path.dirname(path), "._" <> Path.basename(path)))
    added = [{"a/.DS_Store", "Bud1"}, {double, "Mac OS X"}, {"a/ebin/._b.beam", "Mac OS X"}]

    assert {:ok, composition} = Archive.read(zip([{path, bytes} | added]), "mac")
    assert [%{path: ^path, kind: :beam}] = composition.files
    assert composition.left_out == Enum.map(added, &elem(&1, 0))
    text = to_string(composition)
    assert text =~ "1 files, 1 modules"
    assert text =~ "left out, as the Mac has added it: a/.DS_Store, #{double}, a/ebin/._b.beam"
    assert {:ok, json} = HotPatch.to_json(composition)
    assert json =~ ~s("left_out":["a/.DS_Store",)

    # Nothing else is said where nothing is left out; nor is a patch made of nothing else.
    assert {:ok, %{left_out: []} = plain} = Archive.read(zip([{path, bytes}]), "plain")
    refute to_string(plain) =~ "left out"
    assert {:error, %Refusal{rule: :empty_archive}} = Archive.read(zip(added), "mac")
  end

  describe "a refusal" do
    test "names rule and entry, in words" do
      assert {:error, %Refusal{} = refusal} =
               Archive.read(zip([{"../../etc/passwd", "x"}]), "bad")

      assert refusal.rule == :name_parent
      assert refusal.entry == "../../etc/passwd"
      assert Exception.message(refusal) =~ "../../etc/passwd"
    end

    test "is given for what is no zip at all" do
      for bytes <- [
            "",
            "PK",
            "not a zip",
            :crypto.strong_rand_bytes(10_000),
            String.duplicate(<<0>>, 100)
          ] do
        assert {:error, %Refusal{rule: rule}} = Archive.read(bytes, "bad")
        assert rule in Archive.rules()
      end
    end

    test "has a rule that both sides know" do
      source = File.read!(Path.expand("../../native/core/src/refusal.rs", __DIR__))

      names =
        Regex.scan(~r/^\s+[A-Z][A-Za-z0-9]+, "([a-z0-9_]+)",/m, source, capture: :all_but_first)

      assert length(names) > 40

      assert names |> List.flatten() |> Enum.sort() ==
               Archive.rules() |> Enum.map(&Atom.to_string/1) |> Enum.sort()
    end

    @tag :capped
    test "comes before anything large is made" do
      bomb = zip([{"a/bomb", String.duplicate(<<0>>, 200 * 1024 * 1024)}])
      assert byte_size(bomb) < 1024 * 1024
      :erlang.garbage_collect()

      # The kernel's own account of the most memory this process ever had, begun anew.
      File.write!("/proc/self/clear_refs", "5")
      before = resident("VmRSS")
      assert {:error, %Refusal{rule: :unpacked_too_big}} = Archive.read(bomb, "bomb")
      assert resident("VmHWM") - before < 50 * 1024
    end

    # In kB.
    defp resident(what) do
      [[kilobytes]] =
        Regex.scan(~r/#{what}:\s+(\d+) kB/, File.read!("/proc/self/status"),
          capture: :all_but_first
        )

      String.to_integer(kilobytes)
    end

    @tag :slow
    test "is given for any truncation and any changed byte that matters" do
      good = zip([Builds.changed("patched", "Tariff")])
      {:ok, %Composition{files: [%{bytes: bytes}]}} = Archive.read(good, "good")

      for at <- 0..(byte_size(good) - 1) do
        assert {:error, %Refusal{}} = Archive.read(binary_part(good, 0, at), "cut")
        {head, <<byte, tail::binary>>} = :erlang.split_binary(good, at)

        case Archive.read(<<head::binary, Bitwise.bxor(byte, 0x55), tail::binary>>, "changed") do
          {:error, %Refusal{}} -> :ok
          {:ok, %Composition{files: [file]}} -> assert file.bytes == bytes
        end
      end
    end
  end

  test "no atom is made of anything in an archive" do
    module = "hot_patch_never_an_atom_#{System.unique_integer([:positive])}"
    function = "function_of_" <> module

    # Compiled elsewhere, so that its names are not atoms here already.
    {beam, 0} =
      System.cmd("erl", [
        "-noshell",
        "-eval",
        """
        {ok, T, _} = erl_scan:string("-module(#{module}). -export([#{function}/0]). #{function}() -> #{module}_x."),
        Split = fun S([]) -> []; S(Ts) -> {F, [D | R]} = lists:splitwith(fun(X) -> element(1, X) =/= dot end, Ts), [F ++ [D] | S(R)] end,
        Forms = [begin {ok, P} = erl_parse:parse_form(F), P end || F <- Split(T)],
        {ok, _, B} = compile:forms(Forms, []),
        io:put_chars(base64:encode(B)), halt().
        """
      ])

    bytes = Base.decode64!(beam)

    assert {:ok, %Composition{files: [file]}} =
             Archive.read(zip([{"a-1/ebin/#{module}.beam", bytes}]), "atoms")

    assert file.beam.module == module
    assert {function, 0} in file.beam.exports
    assert_raise ArgumentError, fn -> String.to_existing_atom(module) end
    assert_raise ArgumentError, fn -> String.to_existing_atom(function) end
  end

  describe "a file called .beam that is none" do
    test "is damaged, with a reason, and does not refuse the archive" do
      {path, bytes} = Builds.changed("patched", "Call")
      cut = binary_part(bytes, 0, byte_size(bytes) - 100)
      assert {:ok, %Composition{files: [file]}} = Archive.read(zip([{path, cut}]), "cut")
      assert file.kind == :damaged
      assert is_binary(file.reason)
      assert file.bytes == cut
    end

    test "is damaged when it holds another module than it is named for" do
      {_path, bytes} = Builds.changed("patched", "Call")

      assert {:ok, %{files: [file]}} =
               Archive.read(zip([{"exchange-1.0.0/ebin/Elixir.Other.beam", bytes}]), "other")

      assert file.kind == :damaged
      assert file.reason =~ "Elixir.Exchange.Call"
    end
  end

  test "facts about modules: behaviours, on_load, NIFs, compiler" do
    text = """
    -module(hot_patch_test_facts).
    -behaviour(gen_server).
    -on_load(load/0).
    -export([load/0]).
    load() -> erlang:load_nif("nowhere", 0).
    """

    path = "a-1/ebin/hot_patch_test_facts.beam"
    assert {:ok, %{files: [file]}} = Archive.read(zip([{path, Builds.erlang(text)}]), "facts")

    assert %{on_load: true, load_nif: true, behaviours: ["gen_server"], compressed: false} =
             file.beam

    assert is_binary(file.beam.compiler)
    assert {"erlang", "load_nif", 2} in file.beam.imports
    assert {"Code", size} = List.keyfind(file.beam.chunks, "Code", 0)
    assert size > 0
  end

  defp assert_holds(bytes, files) do
    assert {:ok, %Composition{} = composition} = Archive.read(bytes, "tool")
    assert Map.new(composition.files, &{&1.path, &1.bytes}) == files
    assert composition.sha256 == :crypto.hash(:sha256, bytes)

    for file <- composition.files do
      assert file.sha256 == :crypto.hash(:sha256, file.bytes)
      assert file.crc32 == :erlang.crc32(file.bytes)
      assert file.size == byte_size(file.bytes)
    end
  end

  defp system_beams do
    for root <- [:code.root_dir(), :code.lib_dir(:elixir) |> Path.join("..")],
        path <- Path.wildcard(Path.join([root, "**", "*.beam"])),
        uniq: true,
        do: Path.expand(path)
  end

  defp compare_batch(paths) do
    # The folder keeps two applications' modules of one name apart.
    named =
      for {path, n} <- Enum.with_index(paths),
          do: {"#{n}/" <> Path.basename(path), File.read!(path)}

    {:ok, composition} = Archive.read(zip(named), "batch")

    Enum.zip_with([composition.files, named], fn [file, {name, bytes}] ->
      compare(file, name, bytes)
    end)

    length(paths)
  end

  defp compare(file, name, bytes) do
    assert file.path == name
    assert file.kind == :beam, "#{name}: #{file.reason}"
    assert file.bytes == bytes

    {:ok, {module, chunks}} = :beam_lib.chunks(bytes, [:imports, :exports, :attributes])
    beam = file.beam
    assert beam.module == Atom.to_string(module)
    assert beam.md5 == :code.module_md5(bytes), name
    assert Enum.sort(beam.imports) == chunks[:imports] |> Enum.map(&names/1) |> Enum.sort(), name
    assert Enum.sort(beam.exports) == chunks[:exports] |> Enum.map(&names/1) |> Enum.sort(), name
    assert beam.attributes |> :erlang.binary_to_term() |> merge() == chunks[:attributes], name
    {:ok, {^module, version}} = :beam_lib.version(bytes)
    assert :erlang.binary_to_term(beam.vsn) == version
    assert beam.on_load == on_load?(module, bytes), name
    assert Enum.map(beam.chunks, &elem(&1, 0)) == chunk_ids(bytes), name
  end

  # As beam_lib gives them: sorted by key, values of one key joined.
  defp merge(attributes) do
    attributes
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.map(fn {key, values} -> {key, Enum.concat(values)} end)
    |> Enum.sort()
  end

  defp names({name, arity}), do: {Atom.to_string(name), arity}
  defp names({module, name, arity}), do: {Atom.to_string(module), Atom.to_string(name), arity}

  # The VM's own word: it refuses to prepare such modules.
  defp on_load?(module, bytes) do
    prepared = :erlang.prepare_loading(module, bytes)
    is_reference(prepared) and :erlang.has_prepared_code_on_load(prepared)
  end

  defp chunk_ids(bytes) do
    {:ok, _module, chunks} = :beam_lib.all_chunks(bytes)
    Enum.map(chunks, fn {id, _data} -> List.to_string(id) end)
  end
end
