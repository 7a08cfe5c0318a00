defmodule HotPatch.Archive.CacheTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Settings

  alias HotPatch.Archive.Cache
  alias HotPatch.Refusal
  alias HotPatch.Test.Rounds

  # Others may have read the same.
  defp bytes, do: zip([{"priv/a", :crypto.strong_rand_bytes(64)}, {"priv/b", "b"}])

  defp read(bytes, name \\ "fix") do
    {result, cost} = Rounds.here(Cache, :read, [bytes, name])
    {result, cost.requests}
  end

  test "an archive is read once, whatever it is called" do
    bytes = bytes()
    assert {{:ok, first}, ["read_archive"]} = read(bytes, "first")
    assert {{:ok, second}, []} = read(bytes, "second")
    assert first.id == HotPatch.Archive.id("first", :crypto.hash(:sha256, bytes))
    assert second == %{first | id: HotPatch.Archive.id("second", first.sha256)}
    assert {:ok, first} == HotPatch.Archive.read(bytes, "first")
  end

  test "under other limits it is read again, and a refusal is never kept" do
    bytes = bytes()
    assert {{:ok, _composition}, ["read_archive"]} = read(bytes)
    configure(:max_entries, 1)
    for _ <- 1..2, do: assert({{:error, %Refusal{rule: :too_many_entries}}, [_]} = read(bytes))
  end

  test "the oldest go where there are too many bytes" do
    large = for n <- 1..5, do: zip([{"priv/#{n}", :binary.copy(<<n>>, 15_000_000)}])
    newest = List.last(large)
    for bytes <- large, do: assert({{:ok, _composition}, ["read_archive"]} = read(bytes))

    # It has come to what was said to it before.
    _ = :sys.get_state(Cache)
    assert {{:ok, _composition}, []} = read(newest)
    assert {{:ok, _composition}, ["read_archive"]} = read(hd(large))
  end

  test "without its server archives are read all the same" do
    bytes = bytes()
    :ok = Supervisor.terminate_child(HotPatch.Supervisor, supervisor())

    on_exit(fn -> {:ok, _pid} = Supervisor.restart_child(HotPatch.Supervisor, supervisor()) end)

    for _ <- 1..2, do: assert({{:ok, _composition}, ["read_archive"]} = read(bytes))
  end

  defp supervisor do
    {id, _pid, _type, _modules} =
      HotPatch.Supervisor
      |> Supervisor.which_children()
      |> Enum.find(fn {id, _, _, _} -> inspect(id) =~ inspect(Cache) end)

    id
  end
end
