defmodule HotPatch.Store.LogTest do
  # A run of the random tests is told by its seed: HOT_PATCH_SEED=n repeats it,
  # HOT_PATCH_ROUNDS=n makes it longer.
  use ExUnit.Case, async: true

  import HotPatch.Test.Folders

  alias HotPatch.Store.Log
  alias HotPatch.Test.Builds

  @rounds "HOT_PATCH_ROUNDS" |> System.get_env("25") |> String.to_integer()

  setup_all do
    seed =
      "HOT_PATCH_SEED" |> System.get_env("#{System.os_time(:millisecond)}") |> String.to_integer()

    IO.puts("\nrandom logs: #{@rounds} rounds, HOT_PATCH_SEED=#{seed}")
    %{seed: seed}
  end

  setup %{seed: seed} do
    :rand.seed(:exsss, seed)
    folder = Path.join(Builds.tmp(), "log-#{System.unique_integer([:positive])}")
    remove_on_exit(folder)
    %{folder: folder, path: Path.join(folder, "some.log")}
  end

  test "gives the appended terms, in order", %{path: path} do
    assert Log.read(path) == {:ok, [], nil}
    assert Log.open(path) == {:ok, [], nil}
    refute File.exists?(path)

    for n <- 1..10 do
      assert Log.append(path, {:term, n}) == :ok
      assert Log.read(path) == {:ok, for(i <- 1..n, do: {:term, i}), nil}
    end

    assert Log.open(path) == Log.read(path)
    assert File.ls!(Path.dirname(path)) == ["some.log"]
  end

  test "is replaced as a whole", %{path: path} do
    for n <- 1..5, do: :ok = Log.append(path, n)
    assert Log.rewrite(path, [:a, :b]) == :ok
    assert Log.append(path, :c) == :ok
    assert Log.read(path) == {:ok, [:a, :b, :c], nil}
    assert Log.rewrite(path, []) == :ok
    assert Log.open(path) == {:ok, [], nil}
  end

  test "says why it cannot be read or written", %{folder: folder, path: path} do
    File.mkdir_p!(path)
    assert Log.read(path) == {:error, :eisdir}
    assert Log.open(path) == {:error, :eisdir}
    assert Log.append(path, 1) == {:error, :eisdir}
    assert Log.rewrite(path, [1]) == {:error, :eisdir}
    assert File.ls!(folder) == ["some.log"]

    File.write!(Path.join(folder, "file"), "")
    assert Log.read(Path.join(folder, "file/log")) == {:error, :enotdir}
    assert {:error, _} = Log.append(Path.join(folder, "file/log"), 1)
  end

  test "is not confused by logs within its terms", %{path: path} do
    :ok = Log.append(path, :inner)
    inner = File.read!(path)
    File.rm!(path)
    for term <- [{:first, inner}, {inner, inner}, :last], do: :ok = Log.append(path, term)
    :ok = Log.append(path, {:again, File.read!(path)})
    assert {:ok, [{:first, ^inner}, {^inner, ^inner}, :last, {:again, _}], nil} = Log.read(path)

    bytes = File.read!(path)
    # Into the header of the first: no record is to be found in what remains of it.
    File.write!(path, flip(bytes, 5 * 8))
    assert {:ok, [{^inner, ^inner}, :last, {:again, _}], %{offset: 0}} = Log.open(path)
  end

  test "stops reading at a damaged record, and finds those behind it when opened", %{path: path} do
    bytes = write(path, [:a, :b, :c])
    size = div(byte_size(bytes), 3)
    File.write!(path, flip(bytes, (size + size - 1) * 8))

    damage = %{offset: size, bytes: 2 * size, kind: :damaged, kept: nil}
    assert Log.read(path) == {:ok, [:a], damage}

    kept = path <> ".damaged-1"
    assert Log.open(path) == {:ok, [:a, :c], %{damage | bytes: size, kept: kept}}
    assert byte_size(File.read!(kept)) == size
    assert Log.open(path) == {:ok, [:a, :c], nil}
  end

  test "keeps the last five copies of what was damaged", %{folder: folder, path: path} do
    File.mkdir_p!(folder)

    foreign = [
      "some.log.damaged-x",
      "some.log.damaged-3.old",
      "some.log.lock.0123456789ABCDEF.tmp"
    ]

    for name <- foreign, do: File.write!(Path.join(folder, name), "")
    # From a rewrite that was cut short.
    File.write!(path <> ".0123456789ABCDEF.tmp", "half")

    for n <- 1..12 do
      File.write!(path, "garbage #{n}", [:append])
      kept = "#{path}.damaged-#{n}"
      assert {:ok, _, %{kind: :damaged, kept: ^kept}} = Log.open(path)
      assert File.read!(kept) == "garbage #{n}"
      assert Log.append(path, n) == :ok
    end

    assert Log.read(path) == {:ok, Enum.to_list(1..12), nil}
    kept = for n <- 8..12, do: "some.log.damaged-#{n}"
    assert Enum.sort(File.ls!(folder)) == Enum.sort(["some.log"] ++ foreign ++ kept)
  end

  test "reports an append that found no room" do
    # A device of Linux that is always full.
    assert Log.append("/dev/full", :term) == {:error, :enospc}
  end

  @small HotPatch.Test.SmallDisk.available?()
  unless @small, do: @tag(skip: "no file system can be mounted here")

  test "is as it was after an append onto a full disk, and goes on when there is room" do
    HotPatch.Test.SmallDisk.with_disk(64 * 1024, fn folder ->
      path = Path.join(folder, "some.log")
      fill = Path.join(folder, "fill")
      :ok = Log.append(path, :first)
      File.write!(fill, :binary.copy("x", 32 * 1024))
      size = File.stat!(path).size

      # Fits in part.
      assert Log.append(path, :crypto.strong_rand_bytes(40_000)) == {:error, :enospc}
      assert File.stat!(path).size == size
      assert Log.read(path) == {:ok, [:first], nil}
      assert Log.rewrite(path, [:crypto.strong_rand_bytes(40_000)]) == {:error, :enospc}
      assert Enum.sort(File.ls!(folder)) == ["fill", "some.log"]

      assert Log.append(path, :second) == :ok
      torn_on_full_disk(path, fill)
      File.rm!(fill)
      assert Log.append(path, :third) == :ok
      assert Log.open(path) == {:ok, [:first, :second, :third], nil}
    end)
  end

  # There is no room for a copy: what is torn goes without, damage stays.
  defp torn_on_full_disk(path, fill) do
    whole = File.read!(path)
    File.write!(path, binary_part(whole, 0, 10), [:append])
    {:error, :enospc} = File.write(fill, :binary.copy("x", 64 * 1024))
    assert {:ok, [:first, :second], %{kind: :torn, bytes: 10, kept: nil}} = Log.open(path)
    assert File.read!(path) == whole

    File.write!(path, "garbage", [:append])
    assert Log.open(path) == {:error, :enospc}
    assert {:ok, [:first, :second], %{kind: :damaged, bytes: 7}} = Log.read(path)
    assert File.read!(path) == whole <> "garbage"
    {:ok, device} = :file.open(path, [:read, :write, :raw])
    {:ok, _} = :file.position(device, byte_size(whole))
    :ok = :file.truncate(device)
    :ok = :file.close(device)
  end

  describe "random logs" do
    @tag :slow
    @tag timeout: :infinity
    test "cut off anywhere", %{path: path} do
      terms = terms(12)
      bytes = write(path, terms)
      ends = ends(terms)

      for size <- 0..byte_size(bytes) do
        File.write!(path, binary_part(bytes, 0, size))
        whole = Enum.count(ends, &(&1 <= size))
        start = Enum.at([0 | ends], whole)

        damage =
          if start < size, do: %{offset: start, bytes: size - start, kind: :torn, kept: nil}

        assert Log.read(path) == {:ok, Enum.take(terms, whole), damage}, "cut at #{size}"
        opened(path, Enum.take(terms, whole), binary_part(bytes, start, size - start))
      end
    end

    @tag timeout: :infinity
    test "with bits turned over", %{path: path} do
      for _ <- 1..@rounds do
        terms = terms(:rand.uniform(10))
        bytes = write(path, terms)
        places = for _ <- 1..:rand.uniform(3), do: :rand.uniform(byte_size(bytes) * 8) - 1
        damaged = places |> Enum.uniq() |> Enum.reduce(bytes, &flip(&2, &1))
        File.write!(path, damaged)

        {_, left} =
          Enum.zip_reduce(terms, ends(terms), {0, []}, fn term, to, {from, left} ->
            hit? = Enum.any?(places, &(div(&1, 8) in from..(to - 1)))
            {to, if(hit?, do: [:gone | left], else: [{:here, term} | left])}
          end)

        left = Enum.reverse(left)
        first = for {:here, term} <- Enum.take_while(left, &(&1 != :gone)), do: term
        assert {:ok, ^first, %{offset: offset}} = Log.read(path)
        assert offset == first |> ends() |> List.last(0)
        opened(path, for({:here, term} <- left, do: term), :some)
      end
    end

    @tag timeout: :infinity
    test "with garbage somewhere", %{path: path} do
      for _ <- 1..@rounds do
        terms = terms(:rand.uniform(10))
        bytes = write(path, terms)
        at = Enum.random([byte_size(bytes), :rand.uniform(byte_size(bytes) + 1) - 1])
        garbage = garbage(bytes)
        {before, behind} = :erlang.split_binary(bytes, at)
        damaged = before <> garbage <> behind
        File.write!(path, damaged)

        # A record that it is inside of is gone, unless it happens to go on as the record does.
        left =
          for {term, from, to} <- Enum.zip([terms, [0 | ends(terms)], ends(terms)]),
              record = binary_part(bytes, from, to - from),
              Enum.any?([0, byte_size(garbage)], &at?(damaged, from + &1, record)),
              do: term

        opened(path, left, :some)
      end
    end

    @tag timeout: :infinity
    test "that are no logs at all", %{path: path} do
      File.mkdir_p!(Path.dirname(path))

      for _ <- 1..@rounds do
        garbage = garbage(<<0xF5, "HL", 1>>)
        File.write!(path, garbage)
        opened(path, [], garbage)
      end
    end
  end

  # Gives these terms, keeps the rest beside it, and can be appended to.
  defp opened(path, terms, rest) do
    assert {:ok, ^terms, damage} = Log.open(path)
    unless rest == :some, do: assert(rest == if(damage, do: File.read!(damage.kept), else: ""))
    if damage, do: assert(File.stat!(damage.kept).size == damage.bytes)
    assert Log.append(path, :afterwards) == :ok
    assert Log.read(path) == {:ok, terms ++ [:afterwards], nil}
    if damage, do: File.rm!(damage.kept)
  end

  defp write(path, terms) do
    :ok = Log.rewrite(path, terms)
    File.read!(path)
  end

  # Where each record ends.
  defp ends(terms) do
    path = Path.join(Builds.tmp(), "ends-#{System.unique_integer([:positive])}")
    sizes = for term <- terms, do: byte_size(write(path, [term]))
    _ = File.rm(path)
    Enum.scan(sizes, &+/2)
  end

  defp terms(count), do: for(_ <- 1..count, do: term(3))

  defp term(0), do: Enum.random([:atom, 1, -7, 1.5, "", nil, "text", [], make_ref(), self()])

  defp term(depth) do
    case :rand.uniform(8) do
      1 ->
        for _ <- 1..3, do: term(depth - 1)

      2 ->
        {term(depth - 1), term(0)}

      3 ->
        %{term(0) => term(depth - 1)}

      4 ->
        :rand.bytes(:rand.uniform(80))

      # What a record starts with.
      5 ->
        Enum.random([
          <<0xF5, "HL", 1>>,
          <<0xF5, "HL", 0, 0>>,
          <<0xF5, "HL">>,
          <<0xF5, 0xF5, "HL">>
        ])

      6 ->
        {:log, Enum.random([<<0xF5, "HL", 1, 0, 0, 0, 2>>, "L"])}

      _ ->
        term(0)
    end
  end

  defp garbage(bytes) do
    case :rand.uniform(4) do
      1 ->
        :rand.bytes(:rand.uniform(100))

      2 ->
        :binary.copy(<<0>>, :rand.uniform(5000))

      # The beginning of a record, and then something else.
      3 ->
        binary_part(bytes, 0, min(byte_size(bytes), :rand.uniform(24))) <> <<0>> <> :rand.bytes(9)

      4 ->
        :binary.copy(<<0xF5, "HL", 1>>, :rand.uniform(50)) <> <<0>>
    end
  end

  defp at?(bytes, at, part),
    do:
      :binary.match(bytes, part, scope: {at, min(byte_size(part), byte_size(bytes) - at)}) !=
        :nomatch

  defp flip(bytes, bit) do
    <<before::bitstring-size(bit), one::1, behind::bitstring>> = bytes
    <<before::bitstring, 1 - one::1, behind::bitstring>>
  end
end
