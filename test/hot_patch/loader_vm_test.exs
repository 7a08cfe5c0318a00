defmodule HotPatch.LoaderVMTest do
  use ExUnit.Case, async: true

  alias HotPatch.LoaderVM
  alias HotPatch.LoaderVM.BootScript
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Damaged

  setup context do
    server = start_supervised!({LoaderVM, [name: nil] ++ Map.get(context, :options, [])})
    {:ok, server: server}
  end

  defp sound(name),
    do: {name, Builds.erlang("-module(#{name}). -export([f/1]). f(X) -> {X, [a, b]}.")}

  test "accepts sound modules, without their atoms or their code coming here", %{server: server} do
    name = "loader_vm_sound_#{System.unique_integer([:positive])}"
    # Compiled by another VM: the compiler of this one would make the atom.
    code = {name, elsewhere(name)}
    assert LoaderVM.try_modules(server, [code]) == :accepted
    assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
  end

  test "says which module its loader refuses, and why", %{server: server} do
    {name, bytes} = sound("loader_vm_cut")
    cut = {name, binary_part(bytes, 0, byte_size(bytes) - 40)}

    assert LoaderVM.try_modules(server, [sound("loader_vm_whole"), cut]) ==
             {:refused, %{"loader_vm_cut" => "badfile"}}
  end

  test "a name that is not the module's is refused", %{server: server} do
    {_name, bytes} = sound("loader_vm_one")

    assert {:refused, %{"loader_vm_two" => _}} =
             LoaderVM.try_modules(server, [{"loader_vm_two", bytes}])
  end

  for {damage, _fun} <- Damaged.fatal() do
    test "#{damage}: it ends that VM, not this one, and is named", %{server: server} do
      name = "loader_vm_fatal"
      bytes = Damaged.make(name, unquote(damage))

      assert {:ended, ^name, _how} =
               LoaderVM.try_modules(server, [sound("loader_vm_before"), {name, bytes}])

      # The next one is tried in a new VM.
      assert LoaderVM.try_modules(server, [sound("loader_vm_after")]) == :accepted
    end
  end

  @tag options: [memory: 192 * 1024 * 1024]
  test "what takes more memory than it is given ends it", %{server: server} do
    code = {"loader_vm_large", Damaged.make("loader_vm_large", :many_literals)}
    assert {:ended, "loader_vm_large", _how} = LoaderVM.try_modules(server, [code])
  end

  test "nothing of a module runs", %{server: server} do
    file = Path.join(Builds.tmp(), "loader_vm_ran")

    bytes =
      Builds.erlang("""
      -module(loader_vm_runs). -on_load(go/0). -export([go/0]).
      go() -> file:write_file("#{file}", "ran"), prim_file:write_file("#{file}", "ran"), ok.
      """)

    assert LoaderVM.try_modules(server, [{"loader_vm_runs", bytes}]) == :accepted
    refute File.exists?(file)
  end

  @tag options: [within: 1]
  test "a module for which the time is not enough is ended and named", %{server: server} do
    code = {"loader_vm_slow", Damaged.make("loader_vm_slow", :many_atoms)}
    assert {:ended, "loader_vm_slow", how} = LoaderVM.try_modules(server, [code])
    assert how == "did not come to an end in time"
  end

  test "what was found is remembered", %{server: server} do
    code = sound("loader_vm_again")
    assert LoaderVM.try_modules(server, [code]) == :accepted
    # No VM can be started now, and none is needed.
    :sys.replace_state(server, &%{&1 | memory: 1024})
    assert LoaderVM.try_modules(server, [code]) == :accepted
    assert {:untried, why} = LoaderVM.try_modules(server, [sound("loader_vm_other")])
    assert why =~ "emulator"
  end

  test "where the server is not there, nothing was tried" do
    assert {:untried, _why} = LoaderVM.try_modules(:no_such_server, [sound("loader_vm_none")])
  end

  test "leaves no folder and no process behind", %{server: server} do
    before = leftovers()
    assert LoaderVM.try_modules(server, [sound("loader_vm_tidy")]) == :accepted
    assert leftovers() -- before == []

    assert for(port <- Port.list(), Port.info(port, :connected) == {:connected, server}, do: port) ==
             []
  end

  test "two files of one module are tried both, and are no fault of theirs", %{server: server} do
    {name, bytes} = sound("loader_vm_twice")
    cut = binary_part(bytes, 0, byte_size(bytes) - 40)
    other = Builds.erlang("-module(#{name}). -export([g/0]). g() -> ok.")
    assert LoaderVM.try_modules(server, [{name, bytes}, {name, other}]) == :accepted
    assert {:refused, %{^name => _}} = LoaderVM.try_modules(server, [{name, bytes}, {name, cut}])
  end

  test "the worker calls nothing but BIFs" do
    {:ok, script} = BootScript.make()
    {:script, _name, steps} = :erlang.binary_to_term(script)

    [worker] =
      for {:apply, {:erlang, :load_module, [BootScript.Worker, bytes]}} <- steps, do: bytes

    {:ok, {_module, [imports: imports]}} = :beam_lib.chunks(worker, [:imports])
    # lists:keymember/3 is one.
    assert for({module, _, _} = mfa <- imports, module != :erlang, do: mfa) == [
             {:lists, :keymember, 3}
           ]
  end

  defp leftovers do
    {:ok, names} = File.ls(System.tmp_dir!())
    for name <- names, String.starts_with?(name, "hot_patch_loader-"), do: name
  end

  defp elsewhere(name) do
    folder = Path.join(Builds.tmp(), name)
    File.mkdir_p!(folder)
    source = Path.join(folder, name <> ".erl")
    File.write!(source, "-module(#{name}). -export([f/1]). f(X) -> {X, #{name}_too}.")
    {_output, 0} = System.cmd("erlc", ["-o", folder, source])
    File.read!(Path.join(folder, name <> ".beam"))
  end
end
