defmodule HotPatch.NodeAgent.Upgrade.RulesTest do
  use ExUnit.Case, async: true

  alias HotPatch.NodeAgent.Upgrade.Rules

  test "a node that is booted by another script needs one of that name in the new release" do
    paths = ["releases/1.1.0/start.boot", "releases/1.1.0/start_clean.boot"]
    asked = fn boot -> Rules.unbootable({:ok, [boot]}, "/opt/shop", "1.1.0", paths) end
    assert asked.([~c"/opt/shop/releases/1.0.0/start"]) == nil
    assert asked.([~c"/opt/shop/releases/1.0.0/start.boot"]) == nil
    # RELEASE_BOOT_SCRIPT of mix release, and of several the last counts.
    assert asked.([~c"/opt/shop/bin/../releases/1.0.0/mine"]) ==
             {"releases/1.0.0/mine", "releases/1.1.0/mine.boot"}

    given = {:ok, [[~c"/opt/shop/releases/1.0.0/mine"], [~c"/opt/shop/releases/1.0.0/start"]]}
    assert Rules.unbootable(given, "/opt/shop", "1.1.0", paths) == nil
    # Whatever lies elsewhere is no part of the release.
    assert asked.([~c"/etc/shop/mine"]) == nil
    assert Rules.unbootable(:error, "/opt/shop", "1.1.0", paths) == nil
  end
end
