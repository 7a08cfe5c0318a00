defmodule HotPatch.Store.BlobsTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Folders

  alias HotPatch.Store.Blobs
  alias HotPatch.Test.Builds

  setup do
    folder = Path.join(Builds.tmp(), "blobs-#{System.unique_integer([:positive])}")
    remove_on_exit(folder)
    %{folder: folder}
  end

  test "gives back what was put", %{folder: folder} do
    for bytes <- ["", "some", :crypto.strong_rand_bytes(100_000)] do
      assert {:ok, digest} = Blobs.put(folder, bytes)
      assert digest == :crypto.hash(:sha256, bytes)
      assert Blobs.fetch(folder, digest) == {:ok, bytes}
      assert File.read!(path(folder, digest)) == bytes
    end

    assert Blobs.size(folder) == 100_004
  end

  test "knows nothing of a digest, or of a folder, that is not there", %{folder: folder} do
    digest = :crypto.hash(:sha256, "nothing")
    assert Blobs.fetch(folder, digest) == :unknown
    assert Blobs.size(folder) == 0
    assert Blobs.keep_only(folder, MapSet.new()) == {0, 0}
  end

  test "does not write again what is there", %{folder: folder} do
    {:ok, digest} = Blobs.put(folder, "once")
    inode = File.stat!(path(folder, digest)).inode
    assert Blobs.put(folder, "once") == {:ok, digest}
    assert File.stat!(path(folder, digest)).inode == inode
    assert length(File.ls!(folder)) == 1
  end

  test "tells damaged bytes, and putting them again mends them", %{folder: folder} do
    {:ok, digest} = Blobs.put(folder, "right")

    for wrong <- ["righd", "righ", "", "right and more"] do
      File.write!(path(folder, digest), wrong)
      assert Blobs.fetch(folder, digest) == :damaged
      assert Blobs.put(folder, "right") == {:ok, digest}
      assert Blobs.fetch(folder, digest) == {:ok, "right"}
    end
  end

  test "says which file could not be written", %{folder: folder} do
    path = path(folder, :crypto.hash(:sha256, "bytes"))
    File.mkdir_p!(Path.join(path, "below"))
    assert {:error, {^path, :eisdir}} = Blobs.put(folder, "bytes")
    assert Blobs.fetch(folder, :crypto.hash(:sha256, "bytes")) == :damaged
    assert File.ls!(folder) == [Path.basename(path)]

    # A file in the place of the folder.
    file = path <> "-file"
    File.write!(file, "")
    assert {:error, {_path, posix}} = Blobs.put(file, "bytes")
    assert posix in [:enotdir, :eexist]
    assert Blobs.fetch(file, :crypto.hash(:sha256, "bytes")) == :unknown
  end

  test "removes what is not wanted, and what was left half written", %{folder: folder} do
    {:ok, wanted} = Blobs.put(folder, "wanted")
    {:ok, other} = Blobs.put(folder, "other")
    {:ok, damaged} = Blobs.put(folder, "damaged")
    File.write!(path(folder, damaged), "dam")
    File.write!(path(folder, wanted) <> ".0123456789ABCDEF.tmp", "wan")
    foreign = ["README", "x.tmp", String.duplicate("z", 64)]
    for name <- foreign, do: File.write!(Path.join(folder, name), "12345")
    File.mkdir_p!(path(folder, :crypto.hash(:sha256, "a folder")))

    assert Blobs.size(folder) == 6 + 5 + 3 + 3
    assert Blobs.keep_only(folder, MapSet.new([wanted])) == {3, 5 + 3 + 3}
    assert Blobs.fetch(folder, wanted) == {:ok, "wanted"}
    assert Blobs.fetch(folder, other) == :unknown
    assert Blobs.size(folder) == 6
    for name <- foreign, do: assert(File.exists?(Path.join(folder, name)))
    assert Blobs.keep_only(folder, MapSet.new([wanted])) == {0, 0}
  end

  test "takes the same bytes from many at a time", %{folder: folder} do
    bytes = :crypto.strong_rand_bytes(50_000)

    results =
      1..20
      |> Enum.map(fn _ -> Task.async(fn -> Blobs.put(folder, bytes) end) end)
      |> Task.await_many()

    assert [{:ok, digest}] = Enum.uniq(results)
    assert Blobs.fetch(folder, digest) == {:ok, bytes}
    assert File.ls!(folder) == [Path.basename(path(folder, digest))]
  end

  defp path(folder, digest), do: Path.join(folder, Base.encode16(digest, case: :lower))
end
