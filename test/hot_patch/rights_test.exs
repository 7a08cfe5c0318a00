defmodule HotPatch.RightsTest do
  # Who may read what a patch brings, and what it has replaced. Takes root: files are given away.
  use ExUnit.Case, async: false

  import Bitwise
  import HotPatch.Test.Folders
  import HotPatch.Test.Hostile, only: [entry: 2, entry: 3]
  import HotPatch.Test.Operator

  alias HotPatch.Store.Rights
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Support.Folder
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.Faults.Strike
  alias HotPatch.Test.Hostile

  @root File.stat!("/proc/self").uid == 0
  @nobody 65_534

  defp folder do
    folder = Path.join(Builds.tmp(), "rights-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    remove_on_exit(folder)
    folder
  end

  defp put(path, bytes, mode, owner \\ 0) do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, bytes)
    if @root, do: :ok = File.chown(path, owner)
    if @root, do: :ok = File.chgrp(path, owner)
    File.chmod!(path, mode)
  end

  defp mode(path), do: File.stat!(path).mode &&& 0o7777
  defp facts(path), do: {File.read!(path), mode(path), File.stat!(path).uid}

  describe "a new file" do
    # What lies in its folder, by name and mode; whether it is a program; and its mode.
    for {neighbours, executable?, mode} <- [
          {[{"a.csv", 0o640}], false, 0o640},
          {[{"a.csv", 0o640}, {"b.csv", 0o600}, {"c.csv", 0o600}], false, 0o600},
          {[{"a.csv", 0o640}, {"b.pem", 0o600}, {"c.pem", 0o600}], false, 0o640},
          {[{"b.pem", 0o600}], false, 0o600},
          # That others are programs does not make it one, unless they are of its kind.
          {[{"tool", 0o755}], false, 0o644},
          {[{"a.csv", 0o755}], false, 0o755},
          {[{"a.csv", 0o4755}], false, 0o755},
          {[{"a.csv", 0o640}], true, 0o750},
          {[{"a.csv", 0o600}], true, 0o700},
          {[], false, 0o640},
          {[], true, 0o750}
        ] do
      test "is #{Integer.to_string(mode, 8)} beside #{inspect(neighbours)}#{if executable?, do: ", as a program"}" do
        folder = folder()
        File.chmod!(folder, 0o750)
        for {name, mode} <- unquote(neighbours), do: put(Path.join(folder, name), "x", mode)
        rights = Rights.for_new(Path.join(folder, "new.csv"), unquote(executable?))
        assert Integer.to_string(rights.mode, 8) == Integer.to_string(unquote(mode), 8)
      end
    end

    if @root do
      test "belongs to whom its neighbours, or its folder, belong, and folders are made so too" do
        folder = folder()
        put(Path.join(folder, "a.csv"), "x", 0o640, @nobody)
        assert %{uid: @nobody, gid: @nobody} = Rights.for_new(Path.join(folder, "b.csv"), false)
        File.chown!(folder, @nobody)
        File.chmod!(folder, 0o2750)
        assert :ok = Rights.make_folders(Path.join(folder, "deep/er"))

        for made <- ["deep", "deep/er"],
            path = Path.join(folder, made),
            do: assert({File.stat!(path).uid, mode(path)} == {@nobody, 0o2750})

        assert %{uid: @nobody, mode: 0o640} =
                 Rights.for_new(Path.join(folder, "deep/er/c"), false)
      end

      test "of a user who may not give files away keeps its mode, but none that makes it run as another" do
        folder = folder()
        File.chmod!(folder, 0o777)
        path = Path.join(folder, "x")

        script = """
        File.write!(#{inspect(path)}, "x")
        :ok = HotPatch.Store.Rights.give(#{inspect(path)}, %{mode: 0o4751, uid: 0, gid: 0})
        """

        ebin = Application.app_dir(:hot_patch, "ebin")

        args = [
          "--reuid=#{@nobody}",
          "--regid=#{@nobody}",
          "--clear-groups",
          "elixir",
          "-pa",
          ebin
        ]

        env = [{"HOME", folder}]
        {_, 0} = System.cmd("setpriv", args ++ ["-e", script], env: env, stderr_to_stdout: true)
        assert {"x", 0o751, @nobody} = facts(path)
      end
    end
  end

  @key "exchange-1.0.0/priv/key.pem"
  @new "exchange-1.0.0/priv/new.pem"
  @tool "exchange-1.0.0/priv/tool"
  @deep "exchange-1.0.0/priv/deep/er/x.csv"

  defp files do
    for({path, bytes} <- Builds.changed("patched"), path =~ "Billing", do: entry(path, bytes)) ++
      [
        # What the archive says of a file that is there counts for nothing.
        entry(@key, "new key", mode: 0o100777),
        entry(@new, "new", mode: 0o100644),
        entry(@tool, "#!/bin/sh", mode: 0o100755),
        entry(@deep, "1")
      ]
  end

  # The folder that has exchange-1.0.0.
  defp prepare(lib) do
    put(Path.join(lib, @key), "old key", 0o600, @nobody)
    put(Path.join(lib, "exchange-1.0.0/priv/cert.pem"), "cert", 0o640, @nobody)
    put(Path.join(lib, "exchange-1.0.0/priv/a.pem"), "a", 0o640, @nobody)
    File.chmod!(Path.join(lib, "exchange-1.0.0/priv"), 0o751)
  end

  defp owner, do: if(@root, do: @nobody, else: File.stat!("/proc/self").uid)

  defp assert_patched(lib) do
    assert {"new key", 0o600, owner()} == facts(Path.join(lib, @key))
    assert {"new", 0o640, owner()} == facts(Path.join(lib, @new))
    assert {"#!/bin/sh", 0o750, owner()} == facts(Path.join(lib, @tool))
    assert mode(Path.dirname(Path.join(lib, @deep))) == 0o751
  end

  defp assert_as_before(lib) do
    assert {"old key", 0o600, owner()} == facts(Path.join(lib, @key))
    for path <- [@new, @tool, @deep], do: refute(File.exists?(Path.join(lib, path)))
    refute File.exists?(Path.dirname(Path.join(lib, @deep)))
  end

  # Everything that a node keeps.
  defp assert_private(data) do
    tree = Folder.tree(data)
    assert length(tree) >= 5

    for {path, stat} <- tree do
      wanted = if stat.type == :directory, do: 0o700, else: 0o600
      assert {path, stat.mode &&& 0o7777} == {path, wanted}
    end
  end

  @tag :starts_nodes
  test "files keep their rights over apply, rollback, kill and a fresh disk; what is kept is private" do
    [machine] = Machine.new(1)
    prepare(machine.lib)
    machine = Machine.start(machine)
    on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
    data = Machine.data(machine)
    {:ok, patch} = hot_patch(machine.node, :upload, [Hostile.zip(files()), [name: "fix"]])
    assert_private(data)

    # While they are staged nobody else can read them either.
    :ok =
      Cluster.call(machine.node, FaultPoint, :arm, [
        :files_staged,
        1,
        {Strike, :staged, [self(), machine.lib]}
      ])

    config = [exchange: [password: "secret"]]
    assert {:ok, report} = hot_patch(machine.node, :apply, [patch.id, [config: config]])
    assert report.status == :ok
    assert_receive {:staged, staged}
    assert length(staged) == 5
    for {path, mode} <- staged, path =~ "pem", do: assert({path, mode &&& 0o007} == {path, 0})
    assert_patched(machine.lib)
    assert_private(data)
    assert Enum.any?(Folder.tree(data), fn {path, _} -> File.read(path) == {:ok, "old key"} end)

    # Killed in the middle of the way back.
    :ok = Cluster.call(machine.node, FaultPoint, :arm, [{:file, 3, 5}])
    catch_error(hot_patch(machine.node, :rollback, [patch.id]))
    machine = machine |> Machine.await_death() |> Machine.start()
    assert_as_before(machine.lib)
    assert_private(data)
    assert [%{warnings: []}] = hot_patch(machine.node, :nodes, [])

    # And of a fresh disk everything is put in place again.
    assert {:ok, _} = hot_patch(machine.node, :apply, [patch.id])
    machine = Machine.kill(machine)
    File.rm_rf!(machine.lib)
    Machine.install(machine, "shipped")
    prepare(machine.lib)
    machine = Machine.start(machine)
    assert_patched(machine.lib)
    assert {:ok, _} = hot_patch(machine.node, :rollback, [patch.id])
    assert_as_before(machine.lib)
    assert_private(data)
    Machine.kill(machine)
  end

  @tag :starts_nodes
  test "what others could read is closed by the next start, and told" do
    [machine] = Machine.new(1)
    machine = Machine.start(machine)
    on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
    data = Machine.data(machine)
    {:ok, _} = hot_patch(machine.node, :upload, [Hostile.zip(files()), [name: "fix"]])
    machine = Machine.kill(machine)

    for {path, _} <- Folder.tree(data),
        do: File.chmod!(path, if(File.dir?(path), do: 0o755, else: 0o644))

    File.ln_s!("/etc/passwd", Path.join(data, "link"))
    before = File.stat!("/etc/passwd").mode
    machine = Machine.start(machine)
    File.rm!(Path.join(data, "link"))
    assert_private(data)
    assert File.stat!("/etc/passwd").mode == before
    assert [%{warnings: [text]}] = hot_patch(machine.node, :nodes, [])

    assert text =~
             ~r/data_dir: other users of this host could read \d+ files in #{Regex.escape(data)}, such as/

    assert text =~ "now they cannot"

    # Once.
    machine = machine |> Machine.kill() |> Machine.start()
    assert [%{warnings: []}] = hot_patch(machine.node, :nodes, [])
    Machine.kill(machine)
  end

  if @root do
    @tag :starts_nodes
    test "a data directory that cannot be written is told at the start" do
      [machine] = Machine.new(1)
      File.mkdir_p!(Path.dirname(machine.data))
      File.write!(machine.data, "in the way")
      machine = Machine.start(machine)
      on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
      assert [%{warnings: [text]}] = hot_patch(machine.node, :nodes, [])
      assert text =~ "config :hot_patch, data_dir: "
      assert text =~ "nothing can be uploaded or applied here"
      Machine.kill(machine)
    end
  end
end
