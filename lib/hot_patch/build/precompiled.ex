defmodule HotPatch.Build.Precompiled do
  @moduledoc false
  # The native program and library as a maintainer has built them for a target: an archive for each target, and
  # in the package a file with the digests of all archives and of the sources that they were made from. What
  # fits is taken where HotPatch is compiled, so that no Rust is needed there; what does not fit is not.

  alias HotPatch.Support.Folder

  @checksums "checksum-HotPatch.Native.exs"
  @products ["hot_patch", "libhot_patch_nif.so"]

  # Milliseconds.
  @within 60_000

  @type files :: %{String.t() => binary()}

  @doc "The name of the archive of a version for a target; by default of this machine."
  @spec name(String.t(), String.t()) :: String.t()
  def name(version, target \\ target()),
    do: "hot_patch_native-v#{version}-nif-2.15-#{target}.tar.gz"

  @doc "What this machine is, as Rust calls it."
  @spec target() :: String.t()
  def target, do: :erlang.system_info(:system_architecture) |> to_string() |> target_of()

  @doc "The target of a system, as Erlang calls it."
  @spec target_of(String.t()) :: String.t()
  def target_of(system) do
    case String.split(system, "-") do
      [cpu, _vendor, "linux", abi] -> "#{cpu}-unknown-linux-#{abi}"
      [cpu, "linux", abi] -> "#{cpu}-unknown-linux-#{abi}"
      [cpu, "apple", "darwin" <> _version] -> "#{cpu}-apple-darwin"
      _other -> system
    end
  end

  @doc "The Rust sources of a tree, all that the program and the library are made from."
  @spec sources(Path.t()) :: [Path.t()]
  def sources(root) do
    crates =
      for crate <- root |> Path.join("native") |> Folder.folders(),
          Path.basename(crate) not in ["fuzz", "loader"],
          {path, %File.Stat{type: :regular}} <- Folder.tree(crate),
          Path.extname(path) in [".rs", ".toml"],
          do: Path.relative_to(path, root)

    Enum.sort(["Cargo.toml", "Cargo.lock" | crates])
  end

  @doc """
  Packs what was built into an archive in `folder`, and writes its digest into the tree's file of checksums,
  beside those of other targets that were made from the same sources. Gives the archive's path.
  """
  @spec pack!(Path.t(), Path.t(), String.t()) :: Path.t()
  def pack!(root, folder, version) do
    File.mkdir_p!(folder)
    path = Path.join(folder, name(version))

    files =
      for product <- @products,
          do: {to_charlist(product), File.read!(Path.join([root, "priv/native", product]))}

    :ok = :erl_tar.create(to_charlist(path), files, [:compressed])
    sources = digest_of_sources(root)

    others =
      case read(root) do
        {:ok, %{sources: ^sources, archives: archives}} -> archives
        _of_other_sources -> %{}
      end

    archives = Map.put(others, Path.basename(path), digest(File.read!(path)))
    text = inspect(%{sources: sources, archives: archives}, pretty: true, limit: :infinity)
    File.write!(Path.join(root, @checksums), text <> "\n")
    path
  end

  @doc """
  The program and the library for this machine, verified: from `place`, a folder or the address of one. Or
  why there is nothing that fits.
  """
  @spec fetch(Path.t(), String.t(), String.t() | nil) :: {:ok, files()} | {:error, String.t()}
  def fetch(root, version, place) do
    name = name(version)

    with {:ok, known} <- read(root),
         :ok <- same_sources(known, root),
         {:ok, digest} <- expected(known, name),
         {:ok, bytes} <- bytes(place, name),
         :ok <- verified(bytes, digest, name) do
      unpack(bytes, name)
    end
  end

  defp read(root) do
    with {:ok, text} <- File.read(Path.join(root, @checksums)),
         {%{sources: sources, archives: archives} = known, _bindings} <- Code.eval_string(text),
         true <- is_binary(sources) and is_map(archives) do
      {:ok, known}
    else
      {:error, :enoent} -> {:error, "#{@checksums} is not in this package"}
      _ -> {:error, "#{@checksums} is no file of checksums"}
    end
  end

  defp same_sources(%{sources: sources}, root) do
    if sources == digest_of_sources(root),
      do: :ok,
      else: {:error, "the sources are not those that #{@checksums} was made for"}
  end

  defp expected(%{archives: archives}, name) do
    with :error <- Map.fetch(archives, name),
         do: {:error, "nothing was made for #{target()} (#{name})"}
  end

  defp bytes(nil, _name), do: {:error, "HOT_PATCH_PRECOMPILED names no folder or address"}

  defp bytes("http" <> _ = address, name),
    do: download("#{String.trim_trailing(address, "/")}/#{name}")

  defp bytes(folder, name) do
    path = Path.join(folder, name)

    with {:error, posix} <- File.read(path),
         do: {:error, "#{path}: #{:file.format_error(posix)}"}
  end

  # Whoever answers in another's place is found out by the digest.
  defp download(address) do
    {:ok, _} = Application.ensure_all_started(:inets)
    {:ok, _} = Application.ensure_all_started(:ssl)
    tls = [verify: :verify_peer, cacerts: :public_key.cacerts_get()]

    tls =
      [customize_hostname_check: [match_fun: :public_key.pkix_verify_hostname_match_fun(:https)]] ++
        tls

    options = [timeout: @within, connect_timeout: @within, ssl: tls]

    case :httpc.request(:get, {to_charlist(address), []}, options, body_format: :binary) do
      {:ok, {{_http, 200, _text}, _headers, body}} -> {:ok, body}
      {:ok, {{_http, status, _text}, _headers, _body}} -> {:error, "#{address} answers #{status}"}
      {:error, reason} -> {:error, "#{address} does not answer: #{inspect(reason)}"}
    end
  end

  defp verified(bytes, digest, name) do
    if digest(bytes) == digest,
      do: :ok,
      else:
        {:error,
         "#{name} is not what #{@checksums} says: it was changed, or is of another release"}
  end

  defp unpack(bytes, name) do
    with {:ok, entries} <- :erl_tar.extract({:binary, bytes}, [:memory, :compressed]),
         files = Map.new(entries, fn {file, bytes} -> {to_string(file), bytes} end),
         true <- Enum.sort(Map.keys(files)) == @products do
      {:ok, files}
    else
      _ -> {:error, "#{name} does not hold #{Enum.join(@products, " and ")}"}
    end
  end

  defp digest_of_sources(root) do
    parts = for path <- sources(root), do: [path, 0, digest(File.read!(Path.join(root, path))), 0]
    digest(parts)
  end

  defp digest(bytes), do: "sha256:" <> Base.encode16(:crypto.hash(:sha256, bytes), case: :lower)
end
