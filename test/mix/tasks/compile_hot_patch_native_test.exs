defmodule Mix.Tasks.Compile.HotPatchNativeTest do
  # The compiler as its users meet it: `mix compile` in a project with a native library and
  # program, run in a VM of its own. The crates are small ones, so that real cargo is quick.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @moduletag :cargo
  @root Path.expand("../../..", __DIR__)
  @library "priv/native/libhot_patch_nif.so"
  @program "priv/native/hot_patch"

  setup %{tmp_dir: dir} do
    for file <- ["mix.exs", "lib/mix/tasks/compile.hot_patch_native.ex"] do
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
