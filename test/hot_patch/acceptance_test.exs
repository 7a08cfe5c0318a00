defmodule HotPatch.AcceptanceTest do
  use ExUnit.Case, async: true

  alias HotPatch.NodeAgent.Acceptance

  doctest Acceptance

  test "a patch gets a share of the atoms that are left, and no more" do
    for {needed, left, room?} <- [
          {0, 0, true},
          {250, 1_000, true},
          {251, 1_000, false},
          {200_000, 1_000_000, true},
          {200_000, 700_000, false}
        ] do
      assert match?(:ok, Acceptance.room(needed, left)) == room?, "#{needed} of #{left}"
    end

    assert {:error, text} = Acceptance.room(1_000, 100)
    assert text =~ "up to 1000 atoms" and text =~ "+t"
  end
end
