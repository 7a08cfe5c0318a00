defmodule HotPatch.PatchNameTest do
  use ExUnit.Case, async: true

  alias HotPatch.Error
  alias HotPatch.Patch
  alias HotPatch.PatchName
  alias HotPatch.Release

  doctest HotPatch.Support.Suggestion
  doctest PatchName
  doctest HotPatch.NodeAgent.AtomName

  defp patches do
    for id <-
          ~w(billing-1a2b3c4d5e6f billing-1affffffffff rates-77aa00112233 rates2-1a1a1a1a1a1a),
        [name, _digest] = String.split(id, "-") do
      %Patch{
        id: id,
        name: name,
        sha256: <<0::256>>,
        size: 1,
        files: 1,
        modules: 1,
        release: %Release{name: "a", version: "1"},
        uploaded_at: DateTime.utc_now(),
        by: "alice"
      }
    end
  end

  test "finds by id, by name, and by as much of the id as only one has" do
    for {given, id} <- [
          {"billing-1a2b3c4d5e6f", "billing-1a2b3c4d5e6f"},
          {"billing-1a2", "billing-1a2b3c4d5e6f"},
          {"billing-1af", "billing-1affffffffff"},
          # A whole name counts before the beginning of another id.
          {"rates", "rates-77aa00112233"},
          {"rates2", "rates2-1a1a1a1a1a1a"},
          {"rates-", "rates-77aa00112233"},
          {"rates2-1", "rates2-1a1a1a1a1a1a"}
        ] do
      assert {^given, {:ok, %{id: ^id}}} = {given, PatchName.find(patches(), given)}
    end
  end

  test "names the candidates where several are meant" do
    for given <- ["billing", "billing-1", "b", "r", "rate"] do
      assert {:error, %Error{reason: :ambiguous_patch} = error} = PatchName.find(patches(), given)
      assert [_, _ | _] = error.details.candidates
      for id <- error.details.candidates, do: assert(error.message =~ id)
    end
  end

  test "says what there is, and what may have been meant" do
    for {given, meant} <- [
          {"biling", "billing"},
          {"rates-77aa00112232", "rates-77aa00112233"},
          {"ratse", "rates"}
        ] do
      assert {:error, %Error{reason: :unknown_patch} = error} = PatchName.find(patches(), given)
      assert error.message =~ "did you mean #{meant}?"
      assert error.message =~ "rates2-1a1a1a1a1a1a"
    end

    assert {:error, error} = PatchName.find(patches(), "something else")
    refute error.message =~ "did you mean"
    assert {:error, error} = PatchName.find([], "fix")
    assert error.message =~ "none is uploaded"
  end

  test "takes nothing else for a name" do
    for other <- ["", nil, :fix, 1, [], [1, -1], %{}],
        do: assert({:error, %Error{reason: :unknown_patch}} = PatchName.find(patches(), other))
  end
end
