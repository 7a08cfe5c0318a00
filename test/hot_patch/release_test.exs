defmodule HotPatch.ReleaseTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Folders

  alias HotPatch.Host.ReleaseSource
  alias HotPatch.Release

  doctest Release

  defp listed(vsn, libs, status),
    do: {~c"shop", to_charlist(vsn), Enum.map(libs, &to_charlist/1), status}

  test "a boot script is OTP's own by its whole name" do
    assert ReleaseSource.released({~c"Erlang/OTP", ~c"25"}) == nil
    assert ReleaseSource.released({~c"OTP  APN 181 01", ~c"R16B03"}) == nil

    for name <- ["OTP", "shop_OTP", "HOTPLATES", "Erlang/OTP shop"] do
      assert ReleaseSource.released({to_charlist(name), ~c"1.0.0"}) == {name, "1.0.0"}
    end
  end

  describe "the release that runs" do
    @booted {"shop", "1"}
    # What the release handler lists, what is loaded, and what runs then.
    for {what, releases, loaded, runs} <- [
          {"was booted", [{"1", ["a-1"], :permanent}], %{"a" => "1"}, "1"},
          {"was booted where nothing is known of it", [], %{"a" => "1"}, "1"},
          {"was installed", [{"2", ["a-2"], :current}, {"1", ["a-1"], :permanent}], %{"a" => "2"},
           "2"},
          {"was installed and made permanent", [{"2", ["a-2"], :permanent}, {"1", ["a-1"], :old}],
           %{"a" => "2"}, "2"},
          {"was installed and made permanent, with the same applications",
           [{"2", ["a-1"], :permanent}, {"1", ["a-1"], :old}], %{"a" => "1"}, "2"},
          {"was booted by hand, another is permanent",
           [{"2", ["a-2"], :permanent}, {"1", ["a-1"], :unpacked}], %{"a" => "1"}, "1"},
          {"was booted by hand, another that was made permanent before",
           [{"2", ["a-2"], :permanent}, {"1", ["a-1"], :old}], %{"a" => "1"}, "1"},
          {"was taken back to", [{"2", ["a-2"], :old}, {"1", ["a-1"], :permanent}], %{"a" => "1"},
           "1"}
        ] do
      test "#{what}" do
        releases =
          for {vsn, libs, status} <- unquote(Macro.escape(releases)),
              do: listed(vsn, ["kernel-8" | libs], status)

        loaded = Map.put(unquote(Macro.escape(loaded)), "kernel", "8")
        assert ReleaseSource.choose(@booted, releases, loaded) == {"shop", unquote(runs)}
      end
    end

    test "is none where OTP's own script was booted and nothing installed" do
      assert ReleaseSource.choose(nil, [{~c"Erlang/OTP", ~c"25", [], :permanent}], %{}) == nil
      installed = listed("2", ["a-2"], :current)
      assert ReleaseSource.choose(nil, [installed], %{"a" => "2"}) == {"shop", "2"}
    end
  end

  describe "the applications of a system without a release" do
    setup do
      root =
        Path.join(System.tmp_dir!(), "hot_patch_release-#{System.unique_integer([:positive])}")

      remove_on_exit(root)
      %{root: root}
    end

    defp application(root, folder, name, vsn) do
      ebin = Path.join([root, folder, "ebin"])
      File.mkdir_p!(ebin)
      text = :io_lib.format("~tp.~n", [{:application, :"#{name}", [vsn: to_charlist(vsn)]}])
      File.write!(Path.join(ebin, "#{name}.app"), text)
      to_charlist(ebin)
    end

    test "are those of the code path, the first of each name, as they are loaded", %{root: root} do
      otp = to_charlist(Path.join(root, "otp"))

      path = [
        ~c".",
        application(root, "lib/shop-2", "shop", "2"),
        application(root, "lib/shop-1", "shop", "1"),
        application(root, "lib/cart", "cart", "0.1"),
        application(root, "lib/elixir", "elixir", "1.14"),
        application(root, "lib/hot_patch", "hot_patch", "9"),
        application(root, "otp/kernel-8", "kernel", "8"),
        application(root, "otp/p1_utils-1", "p1_utils", "1"),
        to_charlist(Path.join(root, "nowhere"))
      ]

      assert ReleaseSource.on_path(path, otp, %{}) == [{"shop", "2"}, {"cart", "0.1"}]
      # Its files were replaced, and it was not started again.
      assert ReleaseSource.on_path(path, otp, %{"cart" => "0.0"}) == [
               {"shop", "2"},
               {"cart", "0.0"}
             ]
    end

    test "are those in OTP's folder only where there are no others", %{root: root} do
      otp = to_charlist(Path.join(root, "otp"))

      path = [
        application(root, "otp/kernel-8", "kernel", "8"),
        application(root, "otp/a-1", "a", "1")
      ]

      assert ReleaseSource.on_path(path, otp, %{}) == [{"a", "1"}]
      assert ReleaseSource.on_path([hd(path)], otp, %{}) == nil
    end

    test "without a readable description are left out", %{root: root} do
      ebin = application(root, "lib/shop", "shop", "1")
      File.write!(Path.join(to_string(ebin), "broken.app"), "{application, broken")
      assert ReleaseSource.on_path([ebin], ~c"/nowhere", %{}) == [{"shop", "1"}]
    end
  end
end
