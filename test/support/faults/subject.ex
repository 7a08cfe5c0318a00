defmodule HotPatch.Test.Faults.Subject do
  @moduledoc false
  # The patch that the faults meet, and what a node's files and modules are before and after.

  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Faults.Snapshot

  @note "exchange-1.0.0/priv/new/note.txt"

  @doc "All that the patched build changes, and a file in a folder that is not there yet."
  @spec files() :: [{Path.t(), binary()}]
  def files, do: Builds.changed("patched") ++ [{@note, "hi"}]

  @doc "The archive."
  @spec zip() :: binary()
  def zip, do: Archives.zip(files())

  @doc "Paths and modules, as a snapshot wants them."
  @spec paths() :: [{Path.t(), module() | nil}]
  def paths, do: for({path, _bytes} <- files(), do: {path, module(path)})

  @doc "Whether a node is wholly in one build, on disk and in memory; else what it is."
  @spec build(Snapshot.t()) :: :old | :new | {:mixed, String.t()}
  def build(snapshot) do
    cond do
      Enum.all?(snapshot.files, &is?(&1, expected("shipped"))) -> :old
      Enum.all?(snapshot.files, &is?(&1, expected("patched"))) -> :new
      true -> {:mixed, Enum.map_join(snapshot.files, "; ", &describe/1)}
    end
  end

  # A module that no boot script knows is loaded when it is first used.
  defp is?({path, disk, running}, expected) do
    {digest, md5} = expected[path]

    disk == digest and
      (running == md5 or (running == nil and expected("shipped")[path] == {nil, nil}))
  end

  defp describe({path, disk, running}) do
    names =
      for {build, name} <- [{"shipped", "old"}, {"patched", "new"}],
          do: {expected(build)[path], name}

    on_disk = for {{^disk, _}, name} <- names, do: name
    in_memory = for {{_, ^running}, name} <- names, do: name
    "#{Path.basename(path)}: disk #{inspect(on_disk)}, memory #{inspect(in_memory)}"
  end

  defp expected(build) do
    key = {__MODULE__, build}

    with nil <- :persistent_term.get(key, nil) do
      expected = Map.new(files(), fn {path, bytes} -> {path, facts(build, path, bytes)} end)
      :persistent_term.put(key, expected)
      expected
    end
  end

  @doc "The digest of a file as it was before, as the name of a blob."
  @spec old_digest(Path.t()) :: String.t()
  def old_digest(path) do
    {digest, _md5} = expected("shipped")[path]
    Base.encode16(digest, case: :lower)
  end

  defp facts("patched", path, bytes), do: {:crypto.hash(:sha256, bytes), md5(path, bytes)}

  defp facts("shipped", path, _bytes) do
    case File.read(Path.join(Builds.ebin("shipped"), Path.basename(path))) do
      {:ok, bytes} -> {:crypto.hash(:sha256, bytes), md5(path, bytes)}
      {:error, _} -> {nil, nil}
    end
  end

  defp md5(path, bytes), do: if(module(path), do: :code.module_md5(bytes))

  defp module(path) do
    if Path.extname(path) == ".beam",
      do: path |> Path.basename(".beam") |> String.to_atom()
  end
end
