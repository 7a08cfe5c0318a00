defmodule HotPatch.DebianTest do
  # Patches between libraries as two releases of Debian ship them: other versions, other
  # compilers, other options than anything that was made for a test.
  use ExUnit.Case, async: true

  alias HotPatch.Analysis
  alias HotPatch.Build

  @moduletag :tmp_dir
  @moduletag :slow

  # Kept between runs; fetched by the first, which needs the network.
  @script Path.expand("../../script/debian-libraries", __DIR__)
  @folder Path.expand("../../tmp/debian", __DIR__)
  @libraries ~w(cowlib jiffy p1_sip p1_stun p1_utils p1_xml rabbit_common)

  case System.cmd(@script, [@folder], stderr_to_stdout: true) do
    {_output, 0} -> :ok
    {output, 3} -> @moduletag skip: "Debian's libraries cannot be fetched: #{output}"
    {output, _other} -> raise "#{@script} failed: #{output}"
  end

  # The names of modules that beam_lib takes for new, changed, and gone.
  defp by_beam_lib(library, from, to) do
    {old, new} = {modules(library, from), modules(library, to)}

    %{
      add: Map.keys(new) -- Map.keys(old),
      remove: Map.keys(old) -- Map.keys(new),
      replace: for({name, version} <- new, old[name], old[name] != version, do: name)
    }
  end

  defp modules(library, side) do
    for path <- Path.wildcard("#{@folder}/#{side}/lib/#{library}-*/ebin/*.beam"), into: %{} do
      {:ok, {module, md5}} = :beam_lib.md5(String.to_charlist(path))
      {:ok, {^module, vsn}} = :beam_lib.version(String.to_charlist(path))
      {Atom.to_string(module), {md5, vsn}}
    end
  end

  defp by_hot_patch(composition) do
    kinds = for {name, %{change: change}} <- composition.manifest.modules, do: {change, name}
    removed = for %{module: %{name: name}} <- composition.manifest.removed, do: {:remove, name}

    Map.merge(
      %{add: [], remove: [], replace: []},
      Enum.group_by(kinds ++ removed, &elem(&1, 0), &elem(&1, 1))
    )
  end

  # Whole versions lie between the two: much in it looks dangerous.
  defp accepted(options) do
    with {:ok, %{analysis: analysis}} <- Build.run([dry_run: true] ++ options) do
      names = for finding <- Analysis.refused(analysis, []), uniq: true, do: "#{finding.name}"
      Build.run([accept: names] ++ options)
    end
  end

  defp folder(library, side) do
    [folder] = Path.wildcard("#{@folder}/#{side}/lib/#{library}-*")
    folder
  end

  defp sorted(changes), do: Map.new(changes, fn {kind, names} -> {kind, Enum.sort(names)} end)

  for {from, to} <- [{"bookworm", "trixie"}, {"trixie", "bookworm"}], library <- @libraries do
    test "#{library} from #{from} to #{to}", %{tmp_dir: dir} do
      {library, from, to} = {unquote(library), unquote(from), unquote(to)}

      options = [
        from: folder(library, from),
        to: folder(library, to),
        out: Path.join(dir, "x.zip")
      ]

      assert {:ok, built} = accepted(options)
      found = by_hot_patch(built.composition)
      assert sorted(found) == sorted(by_beam_lib(library, from, to))
      # Named as where it runs.
      name = Path.basename(folder(library, from))
      for file <- built.composition.files, do: assert(String.starts_with?(file.path, name <> "/"))
    end
  end

  test "all at once, as two builds of a system", %{tmp_dir: dir} do
    sides = [from: Path.join(@folder, "bookworm"), to: Path.join(@folder, "trixie")]
    assert {:ok, built} = accepted(sides ++ [out: Path.join(dir, "all.zip")])
    found = by_hot_patch(built.composition)

    expected =
      @libraries
      |> Enum.map(&by_beam_lib(&1, "bookworm", "trixie"))
      |> Enum.reduce(fn one, other -> Map.merge(one, other, fn _kind, a, b -> a ++ b end) end)

    assert sorted(found) == sorted(expected)

    same =
      length(Path.wildcard("#{@folder}/trixie/lib/*/ebin/*.beam")) - length(found.add) -
        length(found.replace)

    IO.puts(
      "\nDebian 12 to 13: #{length(found.replace)} modules replaced, #{length(found.add)} added, #{length(found.remove)} removed, #{same} the same"
    )

    assert Enum.any?(built.notes, &(&1 =~ "p1_xml changes from"))
  end

  test "of a build that is partly the other's only that part", %{tmp_dir: dir} do
    [old, new] =
      for side <- ["bookworm", "trixie"],
          do: Path.wildcard(folder("p1_sip", side) <> "/ebin/*.beam")

    mixed = Path.join(dir, "lib/p1_sip-1.0.49/ebin")
    File.mkdir_p!(mixed)
    taken = Enum.take_every(new, 3)
    for path <- old ++ taken, do: File.cp!(path, Path.join(mixed, Path.basename(path)))
    options = [from: folder("p1_sip", "bookworm"), to: Path.join(dir, "lib"), out: dir <> "/x"]
    assert {:ok, built} = accepted(options)
    found = Map.keys(built.composition.manifest.modules)
    assert Enum.sort(found) == taken |> Enum.map(&Path.basename(&1, ".beam")) |> Enum.sort()
    assert length(found) in 2..(length(old) - 2)
  end

  test "a library without its debug information is no other", %{tmp_dir: dir} do
    stripped = Path.join(dir, "lib/p1_utils-1.0.25/ebin")
    File.mkdir_p!(stripped)

    for path <- Path.wildcard("#{folder("p1_utils", "bookworm")}/ebin/*.beam") do
      # From bytes: given a name, the functions of beam_lib may write to the file.
      {:ok, _module, chunks} = :beam_lib.all_chunks(File.read!(path))
      kept = Enum.reject(chunks, fn {id, _} -> id in [~c"Line", ~c"Dbgi", ~c"Docs", ~c"CInf"] end)
      {:ok, bytes} = :beam_lib.build_module(kept)
      File.write!(Path.join(stripped, Path.basename(path)), bytes)
    end

    options = [from: folder("p1_utils", "bookworm"), to: Path.join(dir, "lib"), out: dir <> "/x"]
    assert {:error, error} = Build.run(options)
    assert Exception.message(error) =~ "nothing differs"
    assert {:ok, built} = accepted([all_differences: true] ++ options)
    assert map_size(built.composition.manifest.modules) > 3
  end
end
