defmodule HotPatch.Bridge.PropertyTest do
  # Whatever is done to a valid archive: it is refused, or every file of it is there with exactly
  # its bytes. PropEr makes the archives and the changes, and shrinks what it finds.
  #
  #     HOT_PATCH_ROUNDS=100000 mix test test/hot_patch/bridge/property_test.exs
  use ExUnit.Case, async: true

  import Bitwise

  alias HotPatch.Archive
  alias HotPatch.Composition
  alias HotPatch.Refusal
  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Hostile

  # A package of its own, which may not be there.
  @compile {:no_warn_undefined, [:proper, :proper_types]}
  @moduletag :proper
  @moduletag timeout: :infinity
  @rounds "HOT_PATCH_ROUNDS" |> System.get_env("500") |> String.to_integer()

  test "an archive that is changed anywhere is refused, or gives the same files" do
    holds(tuple([files(), packing(), some(edit(), 1, 3)]), fn {files, packing, edits} ->
      bytes = pack(files, packing)
      changed = Enum.reduce(edits, bytes, &apply_edit/2)

      case Archive.read(changed, "changed") do
        {:error, %Refusal{}} -> true
        {:ok, composition} -> contents(composition) == Map.new(files)
      end
    end)
  end

  test "an archive in which one file is another, with headers that agree, gives it and the rest" do
    holds(tuple([files(), number(), :proper_types.binary()]), fn {files, at, content} ->
      at = rem(at, length(files))
      {name, _old} = Enum.at(files, at)
      entries = for {name, bytes} <- files, do: Hostile.deflated(name, bytes)
      other = Hostile.entry(name, content)

      assert {:ok, composition} =
               entries |> List.replace_at(at, other) |> Hostile.zip() |> Archive.read("changed")

      contents(composition) == files |> Map.new() |> Map.put(name, content)
    end)
  end

  defp holds(type, fun) do
    options = [:quiet, numtests: @rounds, max_size: 200]

    unless :proper.quickcheck(:proper.forall(type, fun), options) == true do
      flunk("it does not hold for #{inspect(:proper.counterexample(), limit: :infinity)}")
    end
  end

  defp contents(%Composition{files: files}), do: Map.new(files, &{&1.path, &1.bytes})

  # Files with names of their own; modules among them.
  defp files do
    bytes = :proper_types.oneof([:proper_types.binary(), :proper_types.oneof(modules())])

    let(some(bytes, 1, 5), fn contents ->
      for {content, n} <- Enum.with_index(contents), do: {"a-1.0.0/priv/#{n}", content}
    end)
  end

  defp modules do
    for {_path, bytes} <- Builds.changed("patched"), do: :proper_types.exactly(bytes)
  end

  defp packing, do: :proper_types.oneof(for p <- [:zip, :stored, :deflated], do: exactly(p))

  defp pack(files, :zip), do: Archives.zip(files)
  defp pack(files, :stored), do: Hostile.zip(for {n, b} <- files, do: Hostile.entry(n, b))
  defp pack(files, :deflated), do: Hostile.zip(for {n, b} <- files, do: Hostile.deflated(n, b))

  # Places are numbers without a limit: an archive's size is not known before it is made.
  defp edit do
    :proper_types.oneof([
      tuple([exactly(:xor), number(), :proper_types.integer(1, 255)]),
      tuple([exactly(:put), number(), :proper_types.oneof(for v <- special(), do: exactly(v))]),
      tuple([exactly(:delete), number(), :proper_types.integer(1, 64)]),
      tuple([exactly(:insert), number(), :proper_types.binary()]),
      tuple([exactly(:copy), number(), number(), :proper_types.integer(1, 64)]),
      tuple([exactly(:cut), number()])
    ])
  end

  defp special do
    [<<0>>, <<0xFF>>, <<0, 0>>, <<0xFF, 0xFF>>, <<0::32>>, <<0xFFFFFFFF::32>>] ++
      [<<"PK", 1, 2>>, <<"PK", 3, 4>>, <<"PK", 5, 6>>, <<"PK", 6, 6>>, <<1::16-little>>]
  end

  defp apply_edit(_edit, ""), do: ""

  defp apply_edit({:xor, at, mask}, bytes) do
    {head, <<byte, tail::binary>>} = split(bytes, at)
    head <> <<bxor(byte, mask)>> <> tail
  end

  defp apply_edit({:put, at, value}, bytes) do
    {head, tail} = split(bytes, at)
    size = min(byte_size(value), byte_size(tail))
    head <> value <> binary_part(tail, size, byte_size(tail) - size)
  end

  defp apply_edit({:delete, at, size}, bytes) do
    {head, tail} = split(bytes, at)
    size = min(size, byte_size(tail))
    head <> binary_part(tail, size, byte_size(tail) - size)
  end

  defp apply_edit({:insert, at, value}, bytes) do
    {head, tail} = split(bytes, at)
    head <> value <> tail
  end

  defp apply_edit({:copy, from, to, size}, bytes) do
    {_head, tail} = split(bytes, from)
    apply_edit({:insert, to, binary_part(tail, 0, min(size, byte_size(tail)))}, bytes)
  end

  defp apply_edit({:cut, at}, bytes), do: bytes |> split(at) |> elem(0)

  defp split(bytes, at) do
    at = rem(at, byte_size(bytes))
    {binary_part(bytes, 0, at), binary_part(bytes, at, byte_size(bytes) - at)}
  end

  # PropEr is made for Erlang's macros; these are what they stand for.
  defp tuple(types), do: :proper_types.tuple(types)
  defp exactly(value), do: :proper_types.exactly(value)
  defp number, do: :proper_types.integer(0, 1_000_000)
  defp let(type, fun), do: :proper_types.bind(type, fun, false)

  defp some(type, least, most) do
    let(:proper_types.integer(least, most), &:proper_types.vector(&1, type))
  end
end
