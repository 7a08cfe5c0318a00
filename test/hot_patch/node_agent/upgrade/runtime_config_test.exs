defmodule HotPatch.NodeAgent.Upgrade.RuntimeConfigTest do
  # The environment is that of the VM.
  use ExUnit.Case, async: false

  alias HotPatch.NodeAgent.Upgrade.RuntimeConfig

  @moduletag :tmp_dir
  @told ["RELEASE_NAME", "RELEASE_TMP"]

  setup %{tmp_dir: root} do
    before = for name <- @told, do: {name, System.get_env(name)}
    System.put_env(%{"RELEASE_NAME" => "shop", "RELEASE_TMP" => Path.join(root, "tmp")})

    on_exit(fn ->
      for {name, value} <- before,
          do: if(value, do: System.put_env(name, value), else: System.delete_env(name))
    end)

    for {version, text} <- [{"1.0.0", ""}, {"1.1.0", "%% RUNTIME_CONFIG=true\n[].\n"}] do
      folder = Path.join([root, "releases", version])
      File.mkdir_p!(folder)
      File.write!(Path.join(folder, "sys.config"), text)
    end

    :ok
  end

  defp of(root, given, version), do: RuntimeConfig.of({:ok, [[given]]}, root, version)

  test "a release that reboots after its configuration is given a copy of its own", %{
    tmp_dir: root
  } do
    copy = of(root, ~c"#{root}/releases/1.0.0/sys", "1.1.0")
    assert String.starts_with?(to_string(copy), Path.join(root, "tmp/shop-1.1.0-"))
    file = "#{copy}.config"
    assert File.read!(file) == File.read!(Path.join(root, "releases/1.1.0/sys.config"))
    assert Bitwise.band(File.stat!(file).mode, 0o777) == 0o600
    # What its boot has written there is the configuration that counts.
    File.write!(file, "[{shop,[]}].")
    assert of(root, copy, "1.1.0") == copy
    refute of(root, ~c"#{root}/releases/1.0.0/sys", "1.1.0") == copy
    # Back in one that does not, that one's own file counts again.
    assert of(root, copy, "1.0.0") == ~c"#{root}/releases/1.0.0/sys"
  end

  test "whatever else a VM was started with stays", %{tmp_dir: root} do
    assert of(root, ~c"/etc/shop/sys", "1.0.0") == nil
    assert of(root, ~c"#{root}/releases/1.0.0/sys", "1.0.0") == nil
    assert RuntimeConfig.of(:error, root, "1.0.0") == nil
    System.delete_env("RELEASE_NAME")
    assert of(root, ~c"#{root}/releases/1.0.0/sys", "1.1.0") == nil
  end
end
