defmodule HotPatch.BuildTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Archives

  alias HotPatch.Archive
  alias HotPatch.Build
  alias HotPatch.Host.Keys
  alias HotPatch.Signature
  alias HotPatch.Support.VsnText
  alias HotPatch.Test.Builds

  doctest HotPatch.Build

  @moduletag :tmp_dir

  defp build(name), do: Path.join([Builds.tmp(), "builds", name])

  defp build!(dir, more \\ []) do
    options = [from: build("shipped"), to: build("patched"), out: Path.join(dir, "fix.zip")]
    {:ok, built} = Build.run(Keyword.merge(options, more))
    built
  end

  defp key!(dir, name) do
    path = Path.join(dir, name)
    {:ok, _public} = Keys.generate(path, name)
    path
  end

  describe "a build" do
    test "holds the modules that differ, with what they replace", %{tmp_dir: dir} do
      built = build!(dir, text: "new rates", transition: :none, config: ["exchange.limit={a,1}"])
      files = Map.new(built.composition.files, &{&1.path, &1.bytes})
      # Compiled apart, some differ in their bytes that do not in their code.
      changed = for {path, new} <- Builds.changed("patched"), changed?(path, new), do: {path, new}
      assert files == Map.new(changed)
      assert File.read!(built.out) == built.zip

      manifest = built.composition.manifest
      assert {manifest.name, manifest.text, manifest.transition} == {"fix", "new rates", :none}
      assert [%{application: "exchange", key: "limit", value: "{a,1}"}] = manifest.config

      for {name, %{change: :replace} = module} <- manifest.modules do
        shipped = File.read!(Path.join(Builds.ebin("shipped"), name <> ".beam"))
        assert module.replaces.md5 == hex(:code.module_md5(shipped))
        assert module.replaces.vsn == VsnText.text(vsn(shipped))
        patched = files["exchange-1.0.0/ebin/#{name}.beam"]

        assert {module.brings.md5, module.brings.vsn} ==
                 {hex(:code.module_md5(patched)), VsnText.text(vsn(patched))}
      end

      assert manifest.modules["Elixir.Exchange.Tariff"].change == :add
    end

    # The same code, configured in two ways.
    defp configured(dir, name, sys_config, runtime \\ "import Config") do
      root = Path.join(dir, name)
      File.mkdir_p!(Path.join(root, "releases/1.0.0"))
      File.mkdir_p!(Path.join(root, "lib"))
      File.cp_r!(build("shipped"), Path.join(root, "lib"))
      File.write!(Path.join(root, "releases/start_erl.data"), "13.1 1.0.0")
      rel = ~s({release,{"exchange","1.0.0"},{erts,"13.1"},[{exchange,"1.0.0"}]}.)
      File.write!(Path.join(root, "releases/1.0.0/exchange.rel"), rel)
      File.write!(Path.join(root, "releases/1.0.0/sys.config"), sys_config)
      File.write!(Path.join(root, "releases/1.0.0/runtime.exs"), runtime)
      root
    end

    test "offers what is configured otherwise, and takes it along when told", %{tmp_dir: dir} do
      from =
        configured(dir, "from", """
        [{elixir,[{config_provider_init,one}]},
         {exchange,[{limit,1},{gone,1},{'Elixir.Web.Endpoint',[{salt,<<"s3cret">>},{url,[{host,"a"},{port,80}]}]}]}].
        """)

      to =
        configured(dir, "to", """
        [{elixir,[{config_provider_init,two}]},
         {exchange,[{limit,2},{new,on},{'Elixir.Web.Endpoint',[{salt,<<"s3cret">>},{url,[{host,"b"},{port,80}]}]}]}].
        """)

      options = [from: from, to: to, out: Path.join(dir, "fix.zip")]
      assert {:error, %{reason: :build} = error} = Build.run(options)
      message = Exception.message(error)

      assert message =~
               "exchange: :limit, exchange: Web.Endpoint, exchange: :new: --config-differences"

      assert message =~ "exchange: :gone has lost something"
      refute message =~ "s3cret"
      refute message =~ "runtime.exs"

      assert {:ok, built} =
               Build.run([config_differences: true, config: ["exchange.limit=7"]] ++ options)

      assert [
               %{application: "exchange", key: "limit", value: "7"},
               %{key: "Elixir.Web.Endpoint", value: "[{url,[{host,[98]}]}]"},
               %{key: "new", value: "on"}
             ] = built.composition.manifest.config

      assert Enum.any?(built.notes, &(&1 =~ ":gone"))
      refute Enum.any?(built.notes, &(&1 =~ "--config-differences"))
    end

    test "reads settings in a tar too, and says that a script differs", %{tmp_dir: dir} do
      from = configured(dir, "from", "[{exchange,[{limit,1}]}].")

      to =
        configured(
          dir,
          "to",
          "[{exchange,[{limit,2}]}].",
          "import Config\nconfig :exchange, x: 1"
        )

      tar = Path.join(dir, "to.tar.gz")
      files = for name <- ["lib", "releases"], do: {~c"#{name}", ~c"#{Path.join(to, name)}"}
      :ok = :erl_tar.create(~c"#{tar}", files, [:compressed])
      options = [from: from, to: tar, out: Path.join(dir, "fix.zip"), config_differences: true]
      assert {:ok, built} = Build.run(options)
      assert [%{key: "limit", value: "2"}] = built.composition.manifest.config
      assert Enum.any?(built.notes, &(&1 =~ "runtime.exs differs: what it sets"))
    end

    test "is the same for the same inputs, byte for byte", %{tmp_dir: dir} do
      key = key!(dir, "alice")
      assert build!(dir, sign: key).zip == build!(dir, sign: key).zip
    end

    test "names the removed modules", %{tmp_dir: dir} do
      # The shipped build converts no state of the patched one.
      accept = ["state_changed_without_code_change"]
      built = build!(dir, from: build("patched"), to: build("shipped"), accept: accept)

      assert [%{path: "exchange-1.0.0/ebin/Elixir.Exchange.Tariff.beam", module: module}] =
               built.composition.manifest.removed

      assert module.name == "Elixir.Exchange.Tariff"
      assert to_string(built) =~ "removes exchange-1.0.0/ebin/Elixir.Exchange.Tariff.beam"
    end

    test "loads each module behind those that it calls", %{tmp_dir: dir} do
      built = build!(dir)
      order = built.composition.manifest.load_order
      assert Enum.sort(order) == Enum.sort(Map.keys(built.composition.manifest.modules))
      place = fn name -> Enum.find_index(order, &(&1 == name)) end
      circles = HotPatch.Analysis.cycles(built.analysis)

      calls =
        for %{module: caller, calls: called} <- built.analysis.modules,
            name <- called,
            not Enum.any?(circles, &(caller in &1 and name in &1)),
            do: {name, caller}

      assert {"Elixir.Exchange.Tariff", "Elixir.Exchange.Billing"} in calls
      for {name, caller} <- calls, do: assert(place.(name) < place.(caller))
      # Not that of the names.
      refute order == Enum.sort(order)
    end

    test "says what is to be done on the way up and back", %{tmp_dir: dir} do
      instructions = build!(dir).composition.manifest.instructions
      [up, down] = for texts <- [instructions.up, instructions.down], do: Enum.map(texts, &term/1)
      assert hd(up) == {:add_module, Exchange.Tariff}
      assert {:load_module, Exchange.Billing, [Exchange.Tariff]} in up
      assert {:update, Exchange.Trunk, {:advanced, []}} in up
      assert List.last(down) == {:delete_module, Exchange.Tariff}
      assert {:update, Exchange.Trunk, {:advanced, []}} in down
      modules = fn instructions -> instructions |> Enum.map(&elem(&1, 1)) |> Enum.sort() end
      assert modules.(up) == modules.(down)
    end

    test "that looks dangerous is made only if that is accepted by name", %{tmp_dir: dir} do
      options = [from: build("shipped"), to: without_code_change!(dir)]
      out = Path.join(dir, "fix.zip")
      name = "state_changed_without_code_change"
      assert {:error, error} = Build.run([out: out] ++ options)
      assert %{reason: :dangerous, details: %{findings: [finding]}} = error
      assert %{name: :state_changed_without_code_change, module: "Elixir.Exchange.Call"} = finding
      text = Exception.message(error)
      assert text =~ finding.message |> String.split(". ") |> hd()

      {_name, :danger, what, next} =
        List.keyfind(HotPatch.Analysis.Finding.table(), finding.name, 0)

      assert text =~ what and text =~ next

      # In lines of its own, which no terminal shows as escapes.
      assert String.split(text, "\n", trim: true) |> List.last() ==
               "  or:     --accept #{name}:Exchange.Call"

      refute File.exists?(out)

      # A trial shows it all.
      built = build!(dir, [dry_run: true] ++ options)
      assert to_string(built) =~ "danger" and to_string(built) =~ name
      assert built.refusal.details == error.details

      for accepted <- [name, "#{name}:Exchange.Call", "#{name}:Elixir.Exchange.Call"] do
        built = build!(dir, [accept: [accepted]] ++ options)
        assert built.refusal == nil
        expected = [%{rule: name, module: "Elixir.Exchange.Call", reason: nil}]
        assert built.composition.manifest.accepted_findings == expected
        assert to_string(built) =~ "accepted: #{name}:Exchange.Call"
      end

      # Of another module, or misspelled: it says what there is.
      for accepted <- ["#{name}:Exchange.Cdr", "on_lode"] do
        assert {:error, error} = Build.run([out: out, accept: [name, accepted]] ++ options)
        assert error.reason == :build
        assert Exception.message(error) =~ "--accept #{accepted} matches nothing"
        assert Exception.message(error) =~ "#{name}:Exchange.Call"
      end
    end

    test "says how far it has come, and when it is done", %{tmp_dir: dir} do
      test = self()
      build!(dir, progress: fn done, total -> send(test, {done, total}) end)
      assert_received {all, all}
    end

    test "that is tried out writes nothing", %{tmp_dir: dir} do
      built = build!(dir, dry_run: true)
      assert built.out == nil
      assert File.ls!(dir) == []
      assert to_string(built) =~ "Elixir.Exchange.Call.beam"
      assert to_string(built) =~ "nothing was written"
    end

    test "says what is wrong with it", %{tmp_dir: dir} do
      out = Path.join(dir, "fix.zip")

      for {options, reason, words} <- [
            {[to: build("patched"), out: out], :invalid_option, ":from"},
            {[from: build("shipped"), out: out], :invalid_option, ":to"},
            {[from: build("shipped"), to: build("shipped"), out: out], :build, "nothing differs"},
            {[from: dir, to: build("shipped"), out: out], :build, dir},
            {[modules: ["No.Such"], to: build("shipped"), out: out], :build, "No.Such"},
            {[from: build("shipped"), to: build("patched"), out: out, config: ["a.b=]"]],
             :invalid_option, "a.b=]"},
            {[from: build("shipped"), to: build("patched"), out: out, speed: 1], :invalid_option,
             ":speed"},
            {[from: build("shipped"), to: build("patched"), out: out, sign: out], :key, out},
            {[from: build("shipped"), to: build("patched"), out: dir <> "/no/fix.zip"], :file,
             "no/fix.zip"}
          ] do
        assert {:error, error} = Build.run(options)
        assert error.reason == reason, Exception.message(error)
        assert Exception.message(error) =~ words
      end

      refute File.exists?(out)
    end
  end

  describe "a signature" do
    test "is verified by its name, what sha256sum prints, and openssl", %{tmp_dir: dir} do
      key = key!(dir, "alice")
      built = build!(dir, sign: key)
      {_, 0} = System.cmd("unzip", ["-q", built.out], cd: dir)
      paths = ["hot_patch.json" | Enum.map(built.composition.files, & &1.path)]
      {sums, 0} = System.cmd("sha256sum", Enum.sort(paths), cd: dir)
      File.write!(Path.join(dir, "sums"), "signed by alice\n" <> sums)
      File.write!(Path.join(dir, "sig"), built.composition.signature.signature)

      # The same key, as a public one in a form that openssl reads.
      {_, 0} = System.cmd("openssl", ~w(pkey -in alice -pubout -out alice.pem), cd: dir)

      verify = ~w(pkeyutl -verify -pubin -inkey alice.pem -rawin -in sums -sigfile sig)
      assert {text, 0} = System.cmd("openssl", verify, cd: dir)
      assert text =~ "Success"
    end

    test "covers the signer's name, the manifest and every file", %{tmp_dir: dir} do
      %{composition: composition} = build!(dir, sign: key!(dir, "alice"))
      %{signature: signature, manifest: manifest, files: [first | rest] = files} = composition
      assert Signature.genuine?(signature, manifest.bytes, files)

      refute Signature.genuine?(%{signature | name: "mallory"}, manifest.bytes, files)
      refute Signature.genuine?(signature, manifest.bytes <> " ", files)
      refute Signature.genuine?(signature, manifest.bytes, rest)
      refute Signature.genuine?(signature, manifest.bytes, [%{first | path: "else"} | rest])
      other = %{first | bytes: first.bytes <> "\0"}
      refute Signature.genuine?(signature, manifest.bytes, [other | rest])
      # Nobody else makes a program of a file.
      refute Signature.genuine?(signature, manifest.bytes, [%{first | executable: true} | rest])
      {other_key, _secret} = :crypto.generate_key(:eddsa, :ed25519)
      refute Signature.genuine?(%{signature | key: other_key}, manifest.bytes, files)
    end

    test "says which files are programs", %{tmp_dir: dir} do
      to = Path.join(dir, "to")
      File.cp_r!(build("patched"), to)
      [ebin | _] = Path.wildcard(Path.join(to, "**/ebin"))
      tool = Path.join(Path.dirname(ebin), "priv/tool")
      File.mkdir_p!(Path.dirname(tool))
      File.write!(tool, "#!/bin/sh\n")
      File.chmod!(tool, 0o755)
      %{composition: built, out: out} = build!(dir, to: to, sign: key!(dir, "alice"))
      assert [%{path: path}] = for(%{executable: true} = entry <- built.files, do: entry)
      assert path =~ "priv/tool"
      text = Signature.statement("alice", built.manifest.bytes, built.files)
      assert String.ends_with?(text, "\nprogram  #{path}\n")
      # Signed anew, it is a program still.
      {:ok, again} = Build.sign(out, key!(dir, "bob"))
      %{signature: signature, manifest: manifest, files: files} = again.composition
      assert Signature.genuine?(signature, manifest.bytes, files)
      none = for entry <- files, do: %{entry | executable: false}
      refute Signature.genuine?(signature, manifest.bytes, none)
    end

    test "is put into an archive that is there already", %{tmp_dir: dir} do
      built = build!(dir)
      {alice, bob} = {key!(dir, "alice"), key!(dir, "bob")}
      {:ok, by_alice} = Build.sign(built.out, alice)
      assert by_alice.composition.signature.name == "alice"
      {:ok, by_bob} = Build.sign(built.out, bob)
      assert by_bob.composition.signature.name == "bob"
      assert by_bob.composition.files == built.composition.files
      {:ok, read} = Archive.read(File.read!(built.out), "fix")
      assert Signature.genuine?(read.signature, read.manifest.bytes, read.files)
    end

    test "is not put where there is no manifest", %{tmp_dir: dir} do
      path = Path.join(dir, "plain.zip")
      File.write!(path, zip([{"a-1/priv/x", "x"}]))
      assert {:error, %{reason: :no_manifest}} = Build.sign(path, key!(dir, "alice"))
    end
  end

  describe "a key" do
    test "is never overwritten, and others cannot read it", %{tmp_dir: dir} do
      path = key!(dir, "alice")
      before = File.read!(path)
      assert Bitwise.band(File.stat!(path).mode, 0o777) == 0o600
      assert {:error, %{reason: :key}} = Keys.generate(path, "alice")
      assert File.read!(path) == before
      File.chmod!(path, 0o640)
      assert {:error, error} = Keys.read_secret(path)
      assert Exception.message(error) =~ "chmod 600"
    end

    test "of openssl is one too", %{tmp_dir: dir} do
      path = Path.join(dir, "made")
      {_, 0} = System.cmd("openssl", ["genpkey", "-algorithm", "ed25519", "-out", path])
      File.chmod!(path, 0o600)
      assert {:ok, %{name: "made", public: <<_::256>>}} = Keys.read_secret(path)
      rsa = Path.join(dir, "rsa")

      {_, 0} =
        System.cmd("openssl", ~w(genpkey -algorithm rsa -quiet -out) ++ [rsa],
          stderr_to_stdout: true
        )

      File.chmod!(rsa, 0o600)
      assert {:error, %{reason: :key}} = Keys.read_secret(rsa)
    end
  end

  @tag :slow
  test "the vsn of a module has one text on both sides" do
    paths = Path.wildcard(Path.join(:code.lib_dir(:stdlib), "ebin/*.beam"))
    own = Path.wildcard(Path.join(Application.app_dir(:hot_patch), "ebin/*.beam"))

    odd =
      for {vsn, n} <-
            Enum.with_index(["\"1.2.0\"", "{a,'B c',\"x\\\\y\"}", "<<\"ab\",0>>", "[a,-1]"]) do
        name = "odd_#{n}"
        {"m/ebin/#{name}.beam", Builds.erlang("-module(#{name}). -vsn(#{vsn}).")}
      end

    files =
      for(
        path <- Enum.take(paths, 30) ++ Enum.take_random(own, 60),
        do: {"m/ebin/#{Path.basename(path)}", File.read!(path)}
      ) ++ odd

    assert {:ok, composition} = Archive.read(zip(files), "vsn")

    entries =
      for %{beam: beam} = file <- composition.files do
        %{
          path: file.path,
          sha256: hex(file.sha256),
          module: %{
            name: beam.module,
            change: "any",
            brings: %{
              md5: hex(beam.md5),
              vsn: beam.vsn |> :erlang.binary_to_term() |> VsnText.text()
            }
          }
        }
      end

    {:ok, manifest} = HotPatch.JSON.encode(%{schema: 1, name: "vsn", files: entries})
    # The reader compares each with what it makes of the file itself.
    assert {:ok, %{manifest: %{}}} =
             Archive.read(zip([{"hot_patch.json", manifest} | files]), "vsn")
  end

  test "the library's list of system applications is this one's" do
    source = File.read!(Path.expand("../../native/build/src/system.rs", __DIR__))
    [_, list] = Regex.run(~r/APPLICATIONS: &\[&str\] = &\[(.*?)\];/s, source)
    names = Regex.scan(~r/"(\w+)"/, list, capture: :all_but_first) |> List.flatten()
    assert length(names) > 40
    assert Enum.all?(names, &HotPatch.Host.SystemLibrary.application?/1)
    ours = File.read!(Path.expand("../../lib/hot_patch/host/system_library.ex", __DIR__))
    words = Regex.scan(~r/~w\((.*?)\)a?/s, ours, capture: :all_but_first) |> List.flatten()
    assert Enum.sort(names) == words |> Enum.flat_map(&String.split/1) |> Enum.sort()
  end

  # The patched build, but for what converts the state of calls.
  defp without_code_change!(dir) do
    folder = Path.join(dir, "to/exchange-1.0.0/ebin")
    File.mkdir_p!(folder)
    File.cp_r!(Builds.ebin("patched"), folder)
    call = Path.join(folder, "Elixir.Exchange.Call.beam")
    File.write!(call, call |> File.read!() |> Builds.without_code_change())
    Path.join(dir, "to")
  end

  defp term(text) do
    {:ok, tokens, _end} = :erl_scan.string(String.to_charlist(text <> "."))
    {:ok, term} = :erl_parse.parse_term(tokens)
    term
  end

  defp changed?(path, new) do
    case File.read(Path.join(Builds.ebin("shipped"), Path.basename(path))) do
      {:ok, old} -> {:code.module_md5(old), vsn(old)} != {:code.module_md5(new), vsn(new)}
      {:error, :enoent} -> true
    end
  end

  defp vsn(bytes) do
    {:ok, {_module, [attributes: attributes]}} = :beam_lib.chunks(bytes, [:attributes])
    attributes[:vsn]
  end

  defp hex(bytes), do: Base.encode16(bytes, case: :lower)
end
