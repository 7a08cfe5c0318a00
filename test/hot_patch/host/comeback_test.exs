defmodule HotPatch.Host.ComebackTest do
  use ExUnit.Case, async: true

  alias HotPatch.Host.Comeback

  # Whether a VM is started again when it ends, by what can be seen of it from inside.

  @nobody %{heart?: false, command: nil, lacking: nil, said: nil, unit: nil, container: nil}

  defp judge(facts, systemd \\ :error),
    do: Comeback.judge(Map.merge(@nobody, Map.new(facts)), fn _unit -> systemd end)

  test "heart starts it again where it has a command" do
    assert judge(heart?: true, command: "/opt/shop/bin/shop start") ==
             {:ok, {:heart, "/opt/shop/bin/shop start"}}

    assert {:error, text} = judge(heart?: true)
    assert text =~ "set HEART_COMMAND"
    assert {:error, text} = judge(heart?: true, command: String.duplicate("x", 2_047))
    assert text =~ "longer than"
  end

  @tag :tmp_dir
  test "a command of heart that names no program starts nothing", %{tmp_dir: folder} do
    File.mkdir_p!(Path.join(folder, "my shop"))
    script = Path.join(folder, "my shop/shop")
    File.write!(script, "")
    # As env.sh of mix release writes it, whatever the folder is called.
    assert Comeback.lacking("#{script} daemon") == Path.join(folder, "my")
    assert Comeback.lacking("'#{script}' daemon") == nil
    assert Comeback.lacking("unset X; #{script} daemon") == nil
    File.rename!(script, Path.join(folder, "shop"))
    assert Comeback.lacking(Path.join(folder, "shop") <> " daemon") == nil
    assert {:error, text} = judge(heart?: true, command: "/my shop/shop", lacking: "/my")
    assert text =~ "there is no program /my" and text =~ "quotes"
  end

  test "systemd starts it again where its unit says so" do
    unit = [unit: {:system, "shop.service"}]
    assert {:ok, {:exit, 0, by}} = judge(unit, {:ok, %{"Restart" => "always"}})
    assert by =~ "shop.service"
    assert {:ok, {:exit, 0, _by}} = judge(unit, {:ok, %{"Restart" => "on-success"}})
    # What ends well it would leave.
    assert {:ok, {:exit, 1, _by}} = judge(unit, {:ok, %{"Restart" => "on-failure"}})
    assert {:error, text} = judge(unit, {:ok, %{"Restart" => "no"}})
    assert text =~ "Restart=always"
    # It says nothing of this VM: a shell in a session belongs to a unit, too.
    assert {:error, text} = judge(unit, :error)
    assert text =~ "neither heart nor systemd"
  end

  test "a unit is read off the control group" do
    assert Comeback.unit_of("0::/system.slice/shop.service\n") == {:system, "shop.service"}

    assert Comeback.unit_of("0::/user.slice/user-1.slice/user@1.service/app.slice/shop.service") ==
             {:user, "shop.service"}

    assert Comeback.unit_of("0::/user.slice/user-1.slice/user@1.service") == nil

    assert Comeback.unit_of("1:name=systemd:/system.slice/shop.service\n0::/") ==
             {:system, "shop.service"}

    assert Comeback.unit_of("0::/") == nil
  end

  test "of a container it is not known, and what the configuration says counts" do
    assert {:error, text} = judge(container: "/.dockerenv")
    assert text =~ "comes_back: true"
    assert {:ok, {:exit, 0, _by}} = judge(container: "/.dockerenv", said: true)
    assert {:error, text} = judge(heart?: true, command: "x", said: false)
    assert text =~ "comes_back: false"
    assert {:error, _text} = judge([])
  end
end
