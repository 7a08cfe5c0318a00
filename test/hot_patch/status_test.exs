defmodule HotPatch.StatusTest do
  use ExUnit.Case, async: true

  alias HotPatch.Status

  doctest HotPatch.Status

  test "codes are fixed" do
    codes = [
      error: 1,
      not_beam: 2,
      wrong_path: 3,
      not_updated: 4,
      not_changed: 5,
      ok: 6,
      not_loaded: 7
    ]

    assert Enum.map(Status.all(), &{&1, Status.code(&1)}) == codes
    for {status, code} <- codes, do: assert(Status.from_code(code) == {:ok, status})
  end

  test "of any two the smaller code wins, in any order" do
    for a <- Status.all(), b <- Status.all() do
      winner = if Status.code(a) <= Status.code(b), do: a, else: b
      assert Status.combine([a, b]) == winner
      assert Status.combine([b, a]) == winner
    end
  end
end
