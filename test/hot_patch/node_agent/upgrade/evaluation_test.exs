defmodule HotPatch.NodeAgent.Upgrade.EvaluationTest do
  # It tells the providers of a release where that lies, by the environment of the VM.
  use ExUnit.Case, async: false

  alias HotPatch.NodeAgent.Upgrade.Evaluation
  alias HotPatch.Test.Builds

  @told ["RELEASE_ROOT", "RELEASE_VSN", "RELEASE_SYS_CONFIG"]
  @ours ["HOT_PATCH_TEST_PLACE", "RELX_REPLACE_OS_VARS"]

  setup do
    root = Path.join([Builds.tmp(), "evaluation", "r#{System.unique_integer([:positive])}"])
    folder = Path.join(root, "releases/1")
    File.mkdir_p!(folder)
    before = for name <- @told ++ @ours, do: {name, System.get_env(name)}

    on_exit(fn ->
      for {name, value} <- before,
          do: if(value, do: System.put_env(name, value), else: System.delete_env(name))

      File.rm_rf!(root)
    end)

    %{root: root, config: Path.join(folder, "sys.config")}
  end

  defp evaluated(root) do
    for {"shop", keys} <-
          Evaluation.of(%{root: root, stands_for: root, version: "1", resources: []}),
        {key, value} <- keys,
        into: %{},
        do: {key, :erlang.binary_to_term(value)}
  end

  test "what relx's script replaces at a start is replaced", %{root: root, config: file} do
    text =
      ~S|[{shop, [{place, "${HOT_PATCH_TEST_PLACE}"}, {n, ${NOT_SET:-7}}, {gone, "${NOT_SET}"}]}].|

    File.write!(file, "[{shop, [{n, 1}]}].")
    assert evaluated(root) == %{"n" => 1}

    # Where there is a template the script makes the other of it.
    System.put_env("HOT_PATCH_TEST_PLACE", "here")
    File.write!(file <> ".src", text)
    assert evaluated(root) == %{"place" => ~c"here", "n" => 7, "gone" => ~c""}

    # Or when it is told to.
    File.rm!(file <> ".src")
    File.write!(file, ~S|[{shop, [{place, "${HOT_PATCH_TEST_PLACE}"}]}].|)
    assert evaluated(root) == %{"place" => ~c"${HOT_PATCH_TEST_PLACE}"}
    System.put_env("RELX_REPLACE_OS_VARS", "true")
    assert evaluated(root) == %{"place" => ~c"here"}
  end

  test "a template that is no term fails, and says which", %{root: root, config: file} do
    File.write!(file <> ".src", "[{shop, ${NOT_SET}}].")
    error = assert_raise RuntimeError, fn -> evaluated(root) end
    assert error.message =~ "sys.config.src cannot be read"
  end
end
