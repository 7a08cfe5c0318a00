defmodule HotPatch.NodeAgent.InventoryTest do
  # What is told of the modules that run here, and which of their files a comparison gets.
  use ExUnit.Case, async: false

  alias HotPatch.NodeAgent.FileDigests
  alias HotPatch.NodeAgent.Inventory
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Mentions
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Servers

  @moduletag :tmp_dir

  defp file(text), do: Builds.erlang(text)

  defp which(file, names),
    do: file |> Mentions.which(Mentions.patterns(names)) |> Enum.sort()

  # All atoms of a file, by OTP's own reader of it.
  defp atoms(path) do
    {:ok, {_module, chunks}} = :beam_lib.chunks(String.to_charlist(path), [:atoms, :attributes])
    {:ok, binary} = File.read(path)

    for({_n, atom} <- chunks[:atoms], do: atom) ++
      literal_atoms(binary) ++ in_term(chunks[:attributes])
  end

  defp literal_atoms(binary) do
    case :beam_lib.chunks(binary, [~c"LitT"], [:allow_missing_chunks]) do
      {:ok, {_module, [{_id, <<0::32, table::binary>>}]}} ->
        in_table(table)

      {:ok, {_module, [{_id, <<_::32, table::binary>>}]}} ->
        table |> :zlib.uncompress() |> in_table()

      {:ok, {_module, [{_id, :missing_chunk}]}} ->
        []
    end
  end

  defp in_table(<<_count::32, literals::binary>>) do
    for <<size::32, literal::binary-size(size) <- literals>>,
        atom <- literal |> :erlang.binary_to_term() |> in_term(),
        do: atom
  end

  defp in_term(atom) when is_atom(atom), do: [atom]
  defp in_term([head | tail]), do: in_term(head) ++ in_term(tail)
  defp in_term(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> in_term()
  defp in_term(%{} = map), do: map |> Map.to_list() |> in_term()
  defp in_term(fun) when is_function(fun), do: [Function.info(fun)[:module]]
  defp in_term(_other), do: []

  describe "names in a file" do
    test "are found where it calls, has a behaviour, or holds a literal" do
      padding = Enum.map_join(1..200, ",", &"{text, \"#{&1}\"}")

      file =
        file("""
        -module(hot_patch_test_one).
        -behaviour(hot_patch_test_behaviour).
        -export([f/1, g/0]).
        f(X) -> hot_patch_test_called:h(X).
        g() -> [\#{'__struct__' => hot_patch_test_struct}, #{padding}].
        """)

      names = for what <- ~w(one called behaviour struct other), do: "hot_patch_test_" <> what

      assert which(file, names) ==
               Enum.sort(
                 for what <- ~w(one called behaviour struct), do: "hot_patch_test_" <> what
               )

      assert Mentions.any?(file, Mentions.patterns(["hot_patch_test_struct"]))
      refute Mentions.any?(file, Mentions.patterns(["hot_patch_test_other"]))
      refute Mentions.any?(file, Mentions.patterns([]))
      assert which(:zlib.gzip(file), names) == which(file, names)
    end

    test "are whole names, not parts of others" do
      file =
        file(
          "-module(hot_patch_test_database).\n-export([f/0]).\nf() -> hot_patch_test_db:f().\n"
        )

      assert which(file, ["hot_patch_test_data", "db", "base", "f", "test"]) == ["f"]
      assert which(file, ["hot_patch_test_db"]) == ["hot_patch_test_db"]
    end

    test "are all that OTP finds there, in every file of Elixir's and ours" do
      files =
        Path.wildcard(Path.join(Application.app_dir(:hot_patch, "ebin"), "*.beam")) ++
          Path.wildcard(Path.join(Application.app_dir(:elixir, "ebin"), "*.beam"))

      assert length(files) > 300
      names = Enum.map(files, &Path.basename(&1, ".beam"))
      patterns = Mentions.patterns(names)
      known = MapSet.new(names)

      for file <- files do
        named = for atom <- atoms(file), name = Atom.to_string(atom), name in known, do: name
        found = file |> File.read!() |> Mentions.which(patterns)
        assert MapSet.subset?(MapSet.new(named), found), file
      end
    end
  end

  describe "the digest of a file" do
    test "is that of what is in it now, however fast it changes", %{tmp_dir: dir} do
      path = Path.join(dir, "a.beam")

      for vsn <- [1, 2, 3, 2, 1] do
        bytes = Builds.versioned(:hot_patch_test_fast, vsn)
        File.write!(path, bytes)
        assert FileDigests.md5(path) == :code.module_md5(bytes)
      end

      File.write!(path, "no module")
      assert FileDigests.md5(path) == nil
      File.rm!(path)
      assert FileDigests.md5(path) == nil
    end

    test "is measured once while the file is the same" do
      path = Application.app_dir(:elixir, "ebin/Elixir.Enum.beam")
      md5 = :code.module_md5(File.read!(path))
      assert FileDigests.md5(path) == md5
      assert [{^path, stamp, ^md5}] = :ets.lookup(FileDigests, path)

      # What is kept counts only for this very stamp.
      :ets.insert(FileDigests, {path, stamp, "kept"})
      assert FileDigests.md5(path) == "kept"
      :ets.insert(FileDigests, {path, put_elem(stamp, 0, 1), "of another"})
      assert FileDigests.md5(path) == md5
    end
  end

  describe "the modules of this node" do
    setup do
      modules =
        for {name, calls} <- [
              hot_patch_test_inv_a: "hot_patch_test_inv_b:f()",
              hot_patch_test_inv_b: "hot_patch_test_inv_c:f()",
              hot_patch_test_inv_c: "done",
              hot_patch_test_inv_d: "hot_patch_test_inv_x:f()"
            ],
            into: %{} do
          bytes = file("-module(#{name}).\n-export([f/0]).\nf() -> #{calls}.\n")
          Servers.on_disk(name, bytes)
          {:module, ^name} = :code.load_file(name)
          on_exit(fn -> Servers.unload(name) end)
          {Atom.to_string(name), bytes}
        end

      %{modules: modules}
    end

    defp related(change, named, naming) do
      Inventory.related(%{change: change, named: named, naming: naming})
    end

    test "are named with one digest, system libraries and modules made in memory left out" do
      Servers.load(:hot_patch_test_inv_memory, Builds.versioned(:hot_patch_test_inv_memory, 1))
      on_exit(fn -> Servers.unload(:hot_patch_test_inv_memory) end)
      before = Inventory.summary()
      assert "hot_patch_test_inv_a" in before.names
      refute "hot_patch_test_inv_memory" in before.names
      refute "Elixir.Enum" in before.names or "lists" in before.names
      assert Inventory.summary() == before

      Servers.load(:hot_patch_test_inv_c, Builds.versioned(:hot_patch_test_inv_c, 2))
      after_it = Inventory.summary()
      assert after_it.names == before.names and after_it.digest != before.digest
    end

    @tag :slow
    test "are given where they change, are named by what changes, or name it", %{modules: modules} do
      # b changes: a names it, and b names c.
      assert %{files: files, unknown: []} =
               related(["hot_patch_test_inv_b"], [], ["hot_patch_test_inv_b"])

      assert files == Map.delete(modules, "hot_patch_test_inv_d")

      assert %{files: files} = related([], ["hot_patch_test_inv_d"], ["hot_patch_test_inv_x"])
      assert Map.keys(files) == ["hot_patch_test_inv_d"]
      assert %{files: files} = related([], [], :all)
      assert Enum.all?(Map.keys(modules), &is_map_key(files, &1))
      assert related([], [], []) == %{files: %{}, unknown: []}
    end

    test "are named as unknown where their file is not the code that runs" do
      Servers.load(:hot_patch_test_inv_b, Builds.versioned(:hot_patch_test_inv_b, 2))
      query = [["hot_patch_test_inv_b"], [], ["hot_patch_test_inv_b"]]
      assert %{files: files, unknown: ["hot_patch_test_inv_b"]} = apply(&related/3, query)
      refute is_map_key(files, "hot_patch_test_inv_b")

      assert LoadedCode.md5(:hot_patch_test_inv_b) !=
               FileDigests.md5(to_string(:code.where_is_file(~c"hot_patch_test_inv_b.beam")))
    end
  end
end
