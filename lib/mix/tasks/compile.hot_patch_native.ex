defmodule Mix.Tasks.Compile.HotPatchNative do
  @moduledoc """
  Builds HotPatch's native library and program with cargo and places them under `priv/native`.

    * `hot_patch` - the program: the reader of archives behind a port, and a command line
    * `libhot_patch_nif.so` - the library: the same inside the VM, for `bridge: :nif`

  It runs as the last compiler of the `:hot_patch` project, also when HotPatch is a
  dependency of another project or part of a release. It runs cargo only when a Rust
  source is newer than what was built. The first build takes about a minute.

  ## Environment

    * `HOT_PATCH_SKIP_NATIVE=1` - never run cargo; the program and the library must already
      be in `priv/native` (for build machines without Rust, and for packaged builds).
  """

  use Mix.Task.Compiler

  alias HotPatch.Store.Dir

  @recursive true
  @skip "HOT_PATCH_SKIP_NATIVE"
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
      true -> build()
    end
  end

  @impl Mix.Task.Compiler
  def manifests, do: []

  @impl Mix.Task.Compiler
  def clean do
    _ = File.rm_rf(folder())
    :ok
  end

  defp skip?, do: System.get_env(@skip, "") not in ["", "0", "false"]

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

  # The fuzz targets and the tools that try loaders are no part of what is built here.
  defp fresh? do
    sources = ["Cargo.toml", "Cargo.lock" | Enum.filter(crates(), &source?/1)]

    Enum.all?(products(), &File.regular?/1) and not stale?(sources)
  end

  defp crates do
    for {path, %File.Stat{type: :regular}} <- Dir.tree("native"),
        not String.starts_with?(path, ["native/fuzz/", "native/loader/"]),
        do: path
  end

  defp source?(path), do: Path.extname(path) in [".rs", ".toml"]

  # By the newest: each of them would have to be older than every source.
  defp stale?(sources), do: Enum.any?(products(), &Mix.Utils.stale?(sources, [&1]))

  defp build do
    case System.find_executable("cargo") do
      nil ->
        failed(
          "HotPatch: cargo was not found, so the archive reader cannot be built; " <>
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
      [] -> install(found)
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

    for {product, path} <- found do
      temporary = Path.join(folder(), "#{product}.#{System.os_time()}.tmp")
      File.cp!(path, temporary)
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
