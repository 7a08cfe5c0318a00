defmodule Mix.Tasks.Compile.HotPatchNative do
  @moduledoc """
  Builds HotPatch's native library and program with cargo and places them under `priv/native`.

    * `hot_patch` - the program: the reader of archives behind a port, and a command line
    * `libhot_patch_nif.so` - the library: the same inside the VM, for `bridge: :nif`

  It runs as the last compiler of the `:hot_patch` project, also when HotPatch is a
  dependency of another project or part of a release. It runs cargo only when a Rust
  source is newer than what was built. The first build takes about a minute.

  Where the package has a file of checksums (`checksum-HotPatch.Native.exs`), what a maintainer has built
  for this very machine's kind from these very sources is taken instead, and no Rust is needed. It is verified, and the
  program has to start here; what does not fit is built with cargo.

  ## Environment

    * `HOT_PATCH_PRECOMPILED` - the folder, or the address (`https://...`), where the archives are
    * `HOT_PATCH_BUILD=1` - build with cargo, whatever there is
    * `HOT_PATCH_SKIP_NATIVE=1` - never run cargo; the program and the library must already
      be in `priv/native` (for build machines without Rust, and for packaged builds).
  """

  use Mix.Task.Compiler

  alias HotPatch.Build.Precompiled

  @recursive true
  @skip "HOT_PATCH_SKIP_NATIVE"
  @build "HOT_PATCH_BUILD"
  @packages ~w(hot_patch_nif hot_patch_port)

  # What is placed, and what cargo may have called it; macOS names libraries differently.
  @products %{
    "libhot_patch_nif.so" => ["libhot_patch_nif.so", "libhot_patch_nif.dylib"],
    "hot_patch" => ["hot_patch"]
  }

  @impl Mix.Task.Compiler
  def run(args) do
    cond do
      skip?() -> skip()
      "--force" not in args and fresh?() -> {:noop, []}
      set?(@build) -> build(nil)
      true -> precompiled()
    end
  end

  # Without a file of checksums, as in the repository, nobody has promised any.
  defp precompiled do
    place = System.get_env("HOT_PATCH_PRECOMPILED")

    case Precompiled.fetch(File.cwd!(), Mix.Project.config()[:version], place) do
      {:ok, files} -> files |> runs_here() |> taken()
      {:error, why} -> build(why)
    end
  end

  # It may want a younger libc than there is.
  defp runs_here(files) do
    path = Path.join(System.tmp_dir!(), "hot_patch-#{System.pid()}-#{System.os_time()}")
    File.write!(path, files["hot_patch"])
    File.chmod!(path, 0o700)
    {text, status} = System.cmd(path, ["--version"], stderr_to_stdout: true)
    _ = File.rm(path)
    if status == 0, do: {:ok, files}, else: {:error, "the program does not start here: #{text}"}
  rescue
    error in ErlangError ->
      {:error, "the program does not start here: #{inspect(error.original)}"}
  end

  defp taken({:ok, files}) do
    Mix.shell().info(
      "HotPatch: taking the archive reader that was built for #{Precompiled.target()}"
    )

    install(for {product, bytes} <- files, do: {product, &File.write!(&1, bytes)})
  end

  defp taken({:error, why}), do: build(why)

  @impl Mix.Task.Compiler
  def manifests, do: []

  @impl Mix.Task.Compiler
  def clean do
    _ = File.rm_rf(folder())
    :ok
  end

  defp skip?, do: set?(@skip)
  defp set?(name), do: System.get_env(name, "") not in ["", "0", "false"]

  defp skip do
    case Enum.reject(products(), &File.regular?/1) do
      [] ->
        {:noop, []}

      missing ->
        failed(
          "HotPatch: #{@skip} is set but #{Enum.map_join(missing, ", ", &Path.relative_to_cwd/1)} " <>
            "is not there; put what was built elsewhere there or unset #{@skip} to build with cargo."
        )
    end
  end

  defp fresh? do
    Enum.all?(products(), &File.regular?/1) and not stale?(Precompiled.sources(File.cwd!()))
  end

  # By the newest: each of them would have to be older than every source.
  defp stale?(sources), do: Enum.any?(products(), &Mix.Utils.stale?(sources, [&1]))

  # With why nothing that was built before is taken.
  defp build(why) do
    case System.find_executable("cargo") do
      nil ->
        failed(
          "HotPatch: cargo was not found, so the archive reader cannot be built" <>
            "#{if why, do: ", and none that was built before fits (#{why})"}; " <>
            "install Rust from https://rustup.rs, or put #{Enum.join(Map.keys(@products), " and ")} " <>
            "built elsewhere into #{Path.relative_to_cwd(folder())} and set #{@skip}=1."
        )

      cargo ->
        Mix.shell().info(
          "Building HotPatch's archive reader with cargo (the first build takes about a minute)"
        )

        cargo |> cargo_build() |> finish()
    end
  end

  # Output goes straight through: cargo's own messages are better than ours.
  defp cargo_build(cargo) do
    packages = Enum.flat_map(@packages, &["--package", &1])

    {_output, status} =
      System.cmd(cargo, ~w(build --release --locked) ++ packages,
        into: IO.stream(:stdio, :line),
        stderr_to_stdout: true,
        env: [{"CARGO_TARGET_DIR", target()}]
      )

    status
  end

  defp finish(0) do
    found =
      for {product, names} <- @products do
        built = Enum.map(names, &Path.join([target(), "release", &1]))
        {product, Enum.find(built, &File.regular?/1)}
      end

    case for({product, nil} <- found, do: product) do
      [] -> install(for {product, path} <- found, do: {product, &File.cp!(path, &1)})
      missing -> failed("HotPatch: cargo succeeded but left no #{Enum.join(missing, ", ")}.")
    end
  end

  defp finish(status) do
    failed(
      "HotPatch: cargo build failed (exit status #{status}); its messages are above, " <>
        "and #{Path.relative_to_cwd(folder())} was left as it was."
    )
  end

  # A running node may have the old library mapped, or the old program running: writing into
  # that file would change code under its feet, a rename gives it a new inode.
  defp install(found) do
    File.mkdir_p!(folder())

    for {product, place} <- found do
      temporary = Path.join(folder(), "#{product}.#{System.os_time()}.tmp")
      place.(temporary)
      File.chmod!(temporary, 0o755)
      File.rename!(temporary, Path.join(folder(), product))
    end

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
  defp folder, do: Path.expand("priv/native")
  defp products, do: for({product, _names} <- @products, do: Path.join(folder(), product))
end
