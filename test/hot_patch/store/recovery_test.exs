defmodule HotPatch.Store.RecoveryTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Folders
  import HotPatch.Test.Settings

  alias HotPatch.Store
  alias HotPatch.Test.Builds

  # An operation that went on would take the file that such a set has put in place early for what was
  # there before.
  test "where it cannot be told which sets of files were begun, that is said" do
    folder = Path.join([Builds.tmp(), "recovery", "data"])
    remove_on_exit(Path.dirname(folder))
    uncompared()
    configure(:data_dir, folder)
    assert Store.Recovery.run() == []

    staged = Path.join(Store.directory(), "staged")
    File.mkdir_p!(Path.dirname(staged))
    File.write!(staged, "")
    assert [{%{note: nil}, {^staged, :enotdir}}] = Store.Recovery.run()

    File.rm!(staged)
    assert Store.Recovery.run() == []
  end
end
