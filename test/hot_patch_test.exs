defmodule HotPatchTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Folders
  import HotPatch.Test.Settings, only: [configure: 2]

  alias HotPatch.Error
  alias HotPatch.Refusal
  alias HotPatch.Test.Builds
  alias HotPatch.Test.NextRelease

  doctest HotPatch
  doctest HotPatch.Release

  @moduletag :tmp_dir

  setup do
    remove_on_exit(HotPatch.Store.directory())
  end

  describe "upload/2" do
    test "takes a path, and names the patch after it", %{tmp_dir: dir} do
      path = Path.join(dir, "billing fix.zip")
      File.write!(path, zip(Builds.changed("patched")))
      assert {:ok, patch} = HotPatch.upload(path)
      sha256 = :crypto.hash(:sha256, File.read!(path))

      assert patch.id ==
               "billing_fix-" <> (Base.encode16(sha256, case: :lower) |> binary_part(0, 12))

      assert patch.sha256 == sha256
      assert patch.release == HotPatch.Release.current()
      assert %{items: [^patch]} = HotPatch.list()
    end

    test "takes bytes, and a name" do
      bytes = zip(Builds.changed("patched"))
      assert {:ok, %{name: "patch"}} = HotPatch.upload(bytes)

      assert {:ok, %{name: "fix-7", by: "alice"}} =
               HotPatch.upload(bytes, name: "fix-7", by: "alice")

      assert Enum.count(HotPatch.list()) == 2
    end

    test "again gives the same patch, as it was uploaded first" do
      bytes = zip(Builds.changed("patched"))
      {:ok, first} = HotPatch.upload(bytes, by: "alice")
      assert {:ok, ^first} = HotPatch.upload(bytes, by: "bob")
      assert HotPatch.list().items == [first]
    end

    test "keeps nothing of what it refuses", %{tmp_dir: dir} do
      path = Path.join(dir, "bad.zip")
      File.write!(path, zip([{"../x", "y"}]))
      assert {:error, %Refusal{rule: :name_parent}} = HotPatch.upload(path)
      assert_raise Refusal, ~r/\.\./, fn -> HotPatch.upload!(path) end
      assert HotPatch.list().items == []
      refute File.exists?(HotPatch.Store.directory())
    end

    test "names the file that cannot be read", %{tmp_dir: dir} do
      for path <- [Path.join(dir, "none.zip"), dir, String.duplicate("x", 5_000), ""] do
        assert {:error, %Error{reason: :file} = error} = HotPatch.upload(path)
        assert Exception.message(error) =~ inspect(path, printable_limit: 200)
      end

      assert {:error, %Error{reason: :file}} = HotPatch.upload(:fix)
    end

    test "holds archives to the configured size", %{tmp_dir: dir} do
      path = Path.join(dir, "fix.zip")
      bytes = zip(Builds.changed("patched"))
      File.write!(path, bytes)
      configure(:max_archive_bytes, byte_size(bytes) - 1)
      assert {:error, %Refusal{rule: :archive_too_big}} = HotPatch.upload(path)
      assert {:error, %Refusal{rule: :archive_too_big}} = HotPatch.upload(bytes)
      configure(:max_archive_bytes, byte_size(bytes))
      assert {:ok, _} = HotPatch.upload(path)
    end

    test "an upgrade may be as large as the tarball of a release", %{tmp_dir: dir} do
      path = Path.join(dir, "upgrade.zip")
      File.cp!(NextRelease.make().zip, path)
      size = File.stat!(path).size
      configure(:max_archive_bytes, 1_000)
      configure(:max_release_bytes, size - 1)
      assert {:error, %Refusal{rule: :archive_too_big}} = HotPatch.upload(File.read!(path))
      configure(:max_release_bytes, size)
      assert {:ok, %{upgrade: "1.1.0"}} = HotPatch.upload(path)
      File.write!(path, zip(Builds.changed("patched")))
      assert {:error, %Refusal{rule: :archive_too_big} = refusal} = HotPatch.upload(path)
      assert Exception.message(refusal) =~ "limit of 1000 bytes"
    end

    test "refuses more than 10 MB unless configured" do
      bytes = zip([{"a-1/priv/noise", :crypto.strong_rand_bytes(10 * 1024 * 1024)}])
      assert {:error, %Refusal{rule: :archive_too_big} = refusal} = HotPatch.upload(bytes)
      assert Exception.message(refusal) =~ "10"
    end
  end

  describe "options" do
    test "that are wrong are named, with the rule and what was given" do
      for {call, options, named, text} <- [
            {:check, [nodes: []], :nodes, "non-empty list"},
            {:check, [nodes: "a@b"], :nodes, "a@b"},
            {:plan, [timeout: 0], :timeout, "1 to 3,600,000"},
            {:apply, [pause_timeout: -1], :pause_timeout, "milliseconds"},
            {:apply, [by: ""], :by, "printable"},
            {:apply, [force: true], :force, "is not an option of apply"},
            {:upload, [name: "../x"], :name, "letters"},
            {:upload, [name: ""], :name, "letters"}
          ] do
        assert {:error, %Error{reason: :invalid_option} = error} =
                 Kernel.apply(HotPatch, call, ["x", options])

        assert error.details.option == named
        assert Exception.message(error) =~ inspect(named)
        assert Exception.message(error) =~ text
      end

      assert {:error, %Error{reason: :invalid_option}} = HotPatch.check("x", :fast)
    end
  end

  describe "a stored archive" do
    test "that has changed on disk is refused by its digest" do
      {:ok, patch} = HotPatch.upload(zip(Builds.changed("patched")))
      path = Path.join([HotPatch.Store.directory(), "archives", patch.id <> ".zip"])
      File.write!(path, zip(Builds.changed("broken")))

      for call <- [:check, :plan, :apply] do
        assert {:error, %Error{reason: :damaged_patch} = error} =
                 Kernel.apply(HotPatch, call, [patch.id])

        assert Exception.message(error) =~ patch.id
      end

      assert :ok = HotPatch.delete(patch.id)
      assert HotPatch.list().items == []
    end

    test "with a damaged record is not listed and does no harm" do
      {:ok, patch} = HotPatch.upload(zip(Builds.changed("patched")))
      path = Path.join([HotPatch.Store.directory(), "archives", patch.id <> ".record"])
      File.write!(path, binary_part(File.read!(path), 0, 50))
      assert HotPatch.list().items == []
      assert {:error, %Error{reason: :unknown_patch}} = HotPatch.check(patch.id)
      assert {:ok, _} = HotPatch.upload(zip(Builds.changed("patched")))
      assert %{items: [_]} = HotPatch.list()
    end
  end

  describe "results" do
    setup do
      files =
        Builds.changed("patched") ++
          [{"exchange-1.0.0/priv/" <> String.duplicate("long/", 40) <> "name", "x"}]

      {:ok, patch} = HotPatch.upload(zip(files), name: "fix")
      {:ok, composition} = HotPatch.composition(patch.id)
      {:ok, report} = HotPatch.check(patch.id)
      {:ok, plan} = HotPatch.plan(patch.id)
      {:error, refused} = HotPatch.apply("nothing")

      %{
        results: [patch, composition, report, plan, hd(HotPatch.nodes()), refused],
        composition: composition
      }
    end

    test "are short in iex, and tables within 100 columns", %{results: results} do
      for result <- results, not is_exception(result) do
        assert [line] = result |> inspect() |> String.split("\n")
        assert String.length(line) < 200
        assert line =~ "#HotPatch."

        for line <- result |> to_string() |> String.split("\n") do
          assert String.length(line) <= 100 or
                   result.__struct__ in [HotPatch.Patch, HotPatch.NodeInfo]
        end
      end
    end

    test "are JSON that another program can read", %{results: results} do
      for result <- [results | results] do
        assert {:ok, json} = HotPatch.to_json(result)
        assert python_reads?(json)
      end

      {:ok, json} = HotPatch.to_json(results)
      assert json =~ ~s("status":"not_beam")
    end

    test "hold no file's bytes in JSON", %{composition: composition} do
      {:ok, json} = HotPatch.to_json(composition)
      refute json =~ "bytes"
      assert json =~ ~s("module":"Elixir.Exchange.Call")
      assert json =~ "handle_call/3"
    end

    defp python_reads?(json) do
      path = Path.join(System.tmp_dir!(), "hot_patch-#{System.unique_integer([:positive])}.json")
      File.write!(path, json)
      {_output, status} = System.cmd("python3", ["-m", "json.tool", path], stderr_to_stdout: true)
      File.rm!(path)
      status == 0
    end
  end
end
