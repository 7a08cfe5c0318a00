defmodule HotPatch.NodeAgent.Upgrade.ConfigurationTest do
  use ExUnit.Case, async: true

  import Bitwise

  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.Upgrade.Configuration
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.Store

  @moduletag :tmp_dir

  @sys_config """
  [{elixir, [{config_provider_init, \#{providers => [{'Elixir.Config.Reader',
    {{system, <<"RELEASE_ROOT">>, <<"/releases/1.1.0/runtime.exs">>}, [{env, prod}, {target, host}]}}]}}]}].
  """

  # Tells what others could read while it is there.
  @runtime """
  import Config
  folder = Path.dirname(System.fetch_env!("RELEASE_ROOT"))
  paths = [folder | Path.wildcard(folder <> "/**", match_dot: true)]
  config :shop, seen: for(path <- paths, do: {Path.relative_to(path, folder), File.lstat!(path).mode})
  """

  defp entry(path, bytes) do
    %Entry{
      path: path,
      kind: :other,
      size: byte_size(bytes),
      bytes: bytes,
      crc32: :erlang.crc32(bytes),
      sha256: :crypto.hash(:sha256, bytes)
    }
  end

  test "what a release is configured by is for nobody else to read, and does not stay", context do
    for folder <- ["lib", "releases/1.0.0"], do: File.mkdir_p!(Path.join(context.tmp_dir, folder))
    {from, to} = {{"shop", "1.0.0"}, {"shop", "1.1.0"}}
    course = %Course{from: from, to: to, erts: "", root: context.tmp_dir, applications: []}

    entries = [
      entry("releases/1.1.0/sys.config", @sys_config),
      entry("releases/1.1.0/runtime.exs", @runtime)
    ]

    :ok = Store.make_folder(Store.directory())
    before = File.ls!(Store.directory())
    assert {:ok, %{new: %{"shop" => %{"seen" => seen}}}} = Configuration.evaluate(course, entries)
    seen = :erlang.binary_to_term(seen)

    paths = for {path, _mode} <- seen, do: path
    assert ~w(request answer root/releases/1.1.0/sys.config) -- paths == []

    for {path, mode} <- seen, (mode &&& 0o170000) != 0o120000 do
      wanted = if (mode &&& 0o170000) == 0o040000, do: 0o700, else: 0o600
      assert {path, mode &&& 0o7777} == {path, wanted}
    end

    assert File.ls!(Store.directory()) -- before == []
  end

  test "what one that was killed has left goes with the next start, and nothing that it led to",
       context do
    folder = Store.temporary(Path.join(context.tmp_dir, "data/upgrade"))
    kept = Path.join(context.tmp_dir, "lib/own." <> String.duplicate("A", 16) <> ".tmp")
    for path <- [kept, Path.join(folder, "root/x")], do: File.mkdir_p!(Path.dirname(path))
    for path <- [kept, Path.join(folder, "root/x")], do: File.write!(path, "x")
    :ok = File.ln_s(Path.dirname(kept), Path.join(folder, "root/lib"))
    :ok = File.ln_s(Path.dirname(kept), Path.join(context.tmp_dir, "data/lib"))
    assert :ok = Store.remove_all_temporaries(Path.join(context.tmp_dir, "data"))
    refute File.exists?(folder)
    assert File.read!(kept) == "x"
  end
end
