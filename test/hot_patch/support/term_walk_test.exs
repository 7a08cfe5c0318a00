defmodule HotPatch.Support.TermWalkTest do
  use ExUnit.Case, async: true

  alias HotPatch.Support.TermWalk

  doctest TermWalk

  test "every leaf is come to once, also keys, tails and what structs hold" do
    term = {[1, 2 | 3], %{4 => [5]}, %URI{port: 6}, []}
    up = &if(is_integer(&1), do: &1 + 10, else: &1)
    assert TermWalk.map(term, up) == {[11, 12 | 13], %{14 => [15]}, %URI{port: 16}, []}
    for leaf <- 1..6, do: assert(TermWalk.any?(term, &(&1 == leaf)))
    refute TermWalk.any?(term, &(&1 == 7))
  end
end
