defmodule Mix.Tasks.Compile.HotPatchNativeTest do
  # The compiler as its users meet it: `mix compile` in a project with a native library and
  # program, run in a VM of its own. The crates are small ones, so that real cargo is quick.
  use ExUnit.Case, async: true

  alias HotPatch.Build.Precompiled

  @moduletag :tmp_dir
  @moduletag :cargo
  @root Path.expand("../../..", __DIR__)
  @library "priv/native/libhot_patch_nif.so"
  @program "priv/native/hot_patch"

  setup %{tmp_dir: dir} do
    for file <- [
          "mix.exs",
          "lib/mix/tasks/compile.hot_patch_native.ex",
          "lib/hot_patch/build/precompiled.ex",
          "lib/hot_patch/support/folder.ex"
        ] do
      File.mkdir_p!(Path.dirname(Path.join(dir, file)))
      File.cp!(Path.join(@root, file), Path.join(dir, file))
    end

    write(
      dir,
      "Cargo.toml",
      "[workspace]\nmembers = [\"native/nif\", \"native/port\"]\nresolver = \"2\"\n"
    )

    write(dir, "native/nif/Cargo.toml", """
    [package]
    name = "hot_patch_nif"
    version = "0.1.0"
    edition = "2021"

    [lib]
    crate-type = ["cdylib"]
    """)

    write(dir, "native/nif/src/lib.rs", "#[no_mangle]\npub extern \"C\" fn one() -> i32 { 1 }\n")

    write(dir, "native/port/Cargo.toml", """
    [package]
    name = "hot_patch_port"
    version = "0.1.0"
    edition = "2021"

    [[bin]]
    name = "hot_patch"
    path = "src/main.rs"
    """)

    write(dir, "native/port/src/main.rs", "fn main() {}\n")

    write(dir, "Cargo.lock", """
    version = 4

    [[package]]
    name = "hot_patch_nif"
    version = "0.1.0"

    [[package]]
    name = "hot_patch_port"
    version = "0.1.0"
    """)

    :ok
  end

  test "builds, does nothing when nothing changed, and replaces the library by another file", %{
    tmp_dir: dir
  } do
    assert {output, 0} = compile(dir)
    assert output =~ "first build takes about a minute"
    first = File.stat!(Path.join(dir, @library))
    assert {"", 0} = System.cmd(Path.join(dir, @program), [])

    assert {"", 0} = compile(dir)
    assert File.stat!(Path.join(dir, @library)) == first

    source = Path.join(dir, "native/nif/src/lib.rs")
    File.write!(source, "#[no_mangle]\npub extern \"C\" fn two() -> i32 { 2 }\n")

    File.touch!(
      source,
      first.mtime |> NaiveDateTime.from_erl!() |> NaiveDateTime.add(5) |> NaiveDateTime.to_erl()
    )

    assert {_output, 0} = compile(dir)
    # A node may have the old one mapped: a new inode leaves it whole.
    assert File.stat!(Path.join(dir, @library)).inode != first.inode

    assert Path.wildcard(Path.join(dir, "priv/native/*")) ==
             Enum.map([@program, @library], &Path.join(dir, &1))
  end

  test "broken Rust is one sentence after cargo's own, and exit status 1", %{tmp_dir: dir} do
    write(dir, "native/nif/src/lib.rs", "this is no Rust\n")
    assert {output, 1} = compile(dir)
    assert output =~ "error: "
    assert output =~ "HotPatch: cargo build failed (exit status 101)"
    refute File.exists?(Path.join(dir, @library))
  end

  test "without cargo it says how to get it, with exit status 1", %{tmp_dir: dir} do
    assert {output, 1} = compile(dir, [{"PATH", path_without_cargo()}])
    assert output =~ "HotPatch: cargo was not found"
    assert output =~ "https://rustup.rs"
  end

  test "HOT_PATCH_SKIP_NATIVE takes what is there, or says what is not", %{
    tmp_dir: dir
  } do
    skip = [{"HOT_PATCH_SKIP_NATIVE", "1"}, {"PATH", path_without_cargo()}]
    assert {output, 1} = compile(dir, skip)
    assert output =~ "HOT_PATCH_SKIP_NATIVE is set but #{@program}, #{@library} is not there"

    write(dir, @library, "built elsewhere")
    assert {output, 1} = compile(dir, skip)
    assert output =~ "HOT_PATCH_SKIP_NATIVE is set but #{@program} is not there"

    write(dir, @program, "built elsewhere")
    assert {_output, 0} = compile(dir, skip)
    assert File.read!(Path.join(dir, @library)) == "built elsewhere"
  end

  test "the kind of a machine is named as Rust names it" do
    for {system, target} <- [
          {"x86_64-pc-linux-gnu", "x86_64-unknown-linux-gnu"},
          {"aarch64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"},
          {"x86_64-alpine-linux-musl", "x86_64-unknown-linux-musl"},
          {"aarch64-apple-darwin23.4.0", "aarch64-apple-darwin"}
        ],
        do: assert(Precompiled.target_of(system) == target)
  end

  describe "what a maintainer has built" do
    setup %{tmp_dir: dir} do
      packed = Path.join(dir, "packed")
      pack(dir, packed, "#!/bin/sh\necho hot_patch 0.1.0\n")
      %{packed: packed, env: [{"HOT_PATCH_PRECOMPILED", packed}, {"PATH", path_without_cargo()}]}
    end

    defp pack(dir, packed, program) do
      write(dir, @program, program)
      write(dir, @library, "a library")
      path = Precompiled.pack!(dir, packed, "0.1.0")
      File.rm_rf!(Path.join(dir, "priv"))
      path
    end

    test "is taken where it fits, without cargo, from a folder", %{tmp_dir: dir, env: env} do
      assert {output, 0} = compile(dir, env)
      assert output =~ "taking the archive reader that was built for #{Precompiled.target()}"
      assert File.read!(Path.join(dir, @library)) == "a library"
      assert {"hot_patch 0.1.0\n", 0} = System.cmd(Path.join(dir, @program), [])
      assert {"", 0} = compile(dir, env)
    end

    test "is taken from an address", %{tmp_dir: dir, packed: packed, env: env} do
      root = [server_root: to_charlist(dir), document_root: to_charlist(packed)]
      {:ok, _} = Application.ensure_all_started(:inets)
      options = [port: 0, server_name: ~c"localhost", bind_address: {127, 0, 0, 1}] ++ root
      {:ok, server} = :inets.start(:httpd, options)
      on_exit(fn -> :inets.stop(:httpd, server) end)
      [port: port] = :httpd.info(server, [:port])

      assert {_output, 0} =
               compile(dir, [{"HOT_PATCH_PRECOMPILED", "http://127.0.0.1:#{port}/"} | tl(env)])

      assert File.read!(Path.join(dir, @library)) == "a library"
      File.rm_rf!(Path.join(dir, "priv"))
      address = "http://127.0.0.1:#{port}/elsewhere"
      assert {output, 1} = compile(dir, [{"HOT_PATCH_PRECOMPILED", address} | tl(env)])
      assert output =~ "answers 404"
    end

    test "is not taken where it was changed", %{tmp_dir: dir, packed: packed, env: env} do
      [archive] = Path.wildcard(Path.join(packed, "*"))
      assert Path.basename(archive) == Precompiled.name("0.1.0")
      kept = File.read!(archive)
      File.write!(archive, kept <> "x")
      assert {output, 1} = compile(dir, env)
      assert output =~ "is not what checksum-HotPatch.Native.exs says"
      assert output =~ "cargo was not found"
      refute File.exists?(Path.join(dir, @program))
    end

    test "is not taken for other sources, nor where it does not start", context do
      %{tmp_dir: dir, packed: packed, env: env} = context
      write(dir, "native/port/src/main.rs", "fn main() { println!(); }\n")
      assert {output, 1} = compile(dir, env)
      assert output =~ "the sources are not those"

      pack(dir, packed, "#!/bin/sh\necho no such libc >&2\nexit 127\n")
      assert {output, 1} = compile(dir, env)
      assert output =~ "does not start here: no such libc"

      # With cargo it is built then; also where that is what is wanted.
      assert {output, 0} = compile(dir, [hd(env)])
      assert output =~ "first build takes about a minute"
    end

    test "several targets have one file of checksums, while the sources are the same", context do
      %{tmp_dir: dir} = context
      file = Path.join(dir, "checksum-HotPatch.Native.exs")
      {known, _} = Code.eval_file(file)
      other = put_in(known.archives["other.tar.gz"], "sha256:00")
      File.write!(file, inspect(other))
      pack(dir, Path.join(dir, "packed"), "another")
      {known, _} = Code.eval_file(file)

      assert Enum.sort(Map.keys(known.archives)) ==
               Enum.sort([Precompiled.name("0.1.0"), "other.tar.gz"])

      write(dir, "native/port/src/main.rs", "fn main() { println!(); }\n")
      pack(dir, Path.join(dir, "packed"), "another")
      {known, _} = Code.eval_file(file)
      assert Map.keys(known.archives) == [Precompiled.name("0.1.0")]
    end
  end

  defp compile(dir, env \\ []) do
    env = [{"MIX_ENV", "dev"}, {"CARGO_TARGET_DIR", Path.join(dir, "target")} | env]

    System.cmd(System.find_executable("mix"), ["compile"],
      cd: dir,
      env: env,
      stderr_to_stdout: true
    )
  end

  defp path_without_cargo do
    System.get_env("PATH")
    |> String.split(":")
    |> Enum.reject(&File.exists?(Path.join(&1, "cargo")))
    |> Enum.join(":")
  end

  defp write(dir, file, text) do
    File.mkdir_p!(Path.dirname(Path.join(dir, file)))
    File.write!(Path.join(dir, file), text)
  end
end
