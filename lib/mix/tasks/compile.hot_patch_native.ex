defmodule Mix.Tasks.Compile.HotPatchNative do
  @moduledoc """
  Builds HotPatch's native library with cargo and places it under `priv/native`.

  It runs as the last compiler of the `:hot_patch` project, also when HotPatch is a
  dependency of another project or part of a release. It runs cargo only when a Rust
  source is newer than the library. The first build takes about a minute.

  ## Environment

    * `HOT_PATCH_SKIP_NATIVE=1` - never run cargo; the library must already be in
      `priv/native` (for build machines without Rust, and for packaged builds).
  """

  use Mix.Task.Compiler

  @recursive true
  @library "libhot_patch_nif.so"
  @skip "HOT_PATCH_SKIP_NATIVE"

  # Where cargo leaves the library; macOS names it differently.
  @built ["libhot_patch_nif.so", "libhot_patch_nif.dylib"]

  @impl Mix.Task.Compiler
  def run(args) do
    cond do
      skip?() -> skip()
      "--force" not in args and fresh?() -> {:noop, []}
      true -> build()
    end
  end

  @impl Mix.Task.Compiler
  def manifests, do: []

  @impl Mix.Task.Compiler
  def clean do
    _ = File.rm_rf(Path.dirname(library()))
    :ok
  end

  defp skip?, do: System.get_env(@skip, "") not in ["", "0", "false"]

  defp skip do
    if File.regular?(library()) do
      {:noop, []}
    else
      failed(
        "HotPatch: #{@skip} is set but #{Path.relative_to_cwd(library())} does not exist; " <>
          "put a built library there or unset #{@skip} to build it with cargo."
      )
    end
  end

  defp fresh? do
    sources = ["Cargo.toml", "Cargo.lock" | Path.wildcard("native/**/*.{rs,toml}")]
    File.regular?(library()) and not Mix.Utils.stale?(sources, [library()])
  end

  defp build do
    case System.find_executable("cargo") do
      nil ->
        failed(
          "HotPatch: cargo was not found, so the native library cannot be built; " <>
            "install Rust from https://rustup.rs, or put a built library at " <>
            "#{Path.relative_to_cwd(library())} and set #{@skip}=1."
        )

      cargo ->
        Mix.shell().info(
          "Building HotPatch's native library with cargo (the first build takes about a minute)"
        )

        cargo |> cargo_build() |> finish()
    end
  end

  # Output goes straight through: cargo's own messages are better than ours.
  defp cargo_build(cargo) do
    {_output, status} =
      System.cmd(cargo, ~w(build --release --locked --package hot_patch_nif),
        into: IO.stream(:stdio, :line),
        stderr_to_stdout: true,
        env: [{"CARGO_TARGET_DIR", target()}]
      )

    status
  end

  defp finish(0) do
    built = Enum.map(@built, &Path.join([target(), "release", &1]))

    case Enum.find(built, &File.regular?/1) do
      nil -> failed("HotPatch: cargo succeeded but left none of #{Enum.join(built, ", ")}.")
      path -> install(path)
    end
  end

  defp finish(status) do
    failed(
      "HotPatch: cargo build failed (exit status #{status}); its messages are above, " <>
        "and #{Path.relative_to_cwd(library())} was left as it was."
    )
  end

  # A running node may have the old library mapped: writing into that file would
  # change code under its feet, a rename gives it a new inode.
  defp install(path) do
    File.mkdir_p!(Path.dirname(library()))
    temporary = library() <> ".#{System.os_time()}.tmp"
    File.cp!(path, temporary)
    File.rename!(temporary, library())
    # priv may not have existed when Mix linked it into the build folder.
    Mix.Project.build_structure()
    {:ok, []}
  end

  defp failed(message) do
    Mix.shell().error(message)

    {:error,
     [
       %Mix.Task.Compiler.Diagnostic{
         compiler_name: "hot_patch_native",
         file: Path.expand("Cargo.toml"),
         message: message,
         position: 0,
         severity: :error
       }
     ]}
  end

  defp target, do: System.get_env("CARGO_TARGET_DIR") || Path.expand("target")
  defp library, do: Path.expand("priv/native/#{@library}")
end
