defmodule HotPatch.NodeAgent.IdleConversionsTest do
  # A code_change for which no process is found: said in check, plan and report, with the likely
  # cause; and nothing is said where nothing is unusual.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Settings, only: [configure_on: 2]

  alias HotPatch.Swap.Discovery.NameHolders
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Servers

  @library :hot_patch_test_library
  @user :hot_patch_test_user

  # A server of a library, which keeps the user's module in its state and hands code_change on.
  @text ~S"""
  -module(hot_patch_test_library).
  -behaviour(gen_server).
  -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
  init(Mod) -> {ok, #{mod => Mod, own => Mod:setup()}}.
  handle_call(get, _, #{own := Own} = S) -> {reply, Own, S}.
  handle_cast(_, S) -> {noreply, S}.
  code_change(Vsn, #{mod := Mod, own := Own} = S, Extra) ->
      {ok, New} = Mod:code_change(Vsn, Own, Extra), {ok, S#{own := New}}.
  """

  defp user(vsn) do
    Builds.erlang("""
    -module(#{@user}).
    -vsn(#{vsn}).
    -export([setup/0, code_change/3]).
    setup() -> #{vsn}.
    code_change(_, _, _) -> {ok, #{vsn}}.
    """)
  end

  defp put(node, module, bytes) do
    path = Path.join(Cluster.exchange(node), "ebin/#{module}.beam")
    File.write!(path, bytes)
    {:module, ^module} = Cluster.call(node, :code, :load_file, [module])
    {"exchange-1.0.0/ebin/#{module}.beam", bytes}
  end

  defp patch!(node, module, bytes),
    do: upload!(node, [{"exchange-1.0.0/ebin/#{module}.beam", bytes}]).id

  defp warnings(node, id) do
    {:ok, %{nodes: [%{warnings: in_check}]} = check} = hot_patch(node, :check, [id])
    {:ok, %{nodes: [%{risks: risks}]}} = hot_patch(node, :plan, [id])
    idle = for %{kind: :idle_conversion} = risk <- risks, do: to_string(risk)
    for text <- in_check, do: assert(text in idle)
    if in_check != [], do: assert(to_string(check) =~ "its code_change is called for no process")
    {in_check, idle}
  end

  @tag :starts_nodes
  test "where a library keeps the module inside, its servers and the option are named" do
    [a] = Cluster.start(1)
    put(a, @library, Builds.erlang(@text))
    put(a, @user, user(1))
    {:ok, pid} = Cluster.call(a, :gen_server, :start, [@library, @user, []])
    id = patch!(a, @user, user(2))

    assert {[warning], [_same]} = warnings(a, id)
    assert warning =~ "#{inspect(@user)}: its code_change is called for no process"
    assert warning =~ "1 process of #{inspect(@library)}"
    assert warning =~ "wrappers: [{#{inspect(@library)}, [:path, :to_it]}]"
    assert {:ok, %{nodes: [%{warnings: [^warning], suspended: 0}]}} = hot_patch(a, :apply, [id])
    assert {:ok, %{nodes: [%{warnings: [_]}]}} = hot_patch(a, :rollback, [id])
    assert Cluster.call(a, :gen_server, :call, [pid, :get]) == 1

    # With the option that it names, the state is converted, and nothing is left to be said.
    configure_on(a, wrappers: [{@library, [:mod]}])
    assert {[], []} = warnings(a, id)
    assert {:ok, %{nodes: [%{warnings: [], suspended: 1}]}} = hot_patch(a, :apply, [id])
    assert Cluster.call(a, :gen_server, :call, [pid, :get]) == 2
  end

  @tag :starts_nodes
  test "of a callback module that nobody runs it is said where its code_change is new or another" do
    [a] = Cluster.start(1)
    name = :hot_patch_test_idle
    without = &String.replace(&1, "code_change", "code_chains")
    put(a, name, Servers.server(name, "1"))
    # Another code_change, which only the analysis of the plan can know.
    other = patch!(a, name, Servers.server(name, "2"))
    assert {[], [warning]} = warnings(a, other)
    assert warning =~ "called for no process" and warning =~ "if none is running, nothing is lost"

    # One that is new; with a process that runs the module there is nothing to say.
    {:ok, _module, chunks} = :beam_lib.all_chunks(Servers.server(name, "1"))

    chunks =
      for {id, bytes} <- chunks, do: {id, if(id == ~c"AtU8", do: without.(bytes), else: bytes)}

    {:ok, former} = :beam_lib.build_module(chunks)
    put(a, name, former)
    assert {[_], [_]} = warnings(a, other)
    {:ok, _pid} = Cluster.call(a, :gen_server, :start, [name, 1, []])
    assert {[], []} = warnings(a, other)
  end

  @tag :starts_nodes
  test "nothing is said of modules that convert nothing, or whose processes are found" do
    [a] = Cluster.start(1)
    start_calls(a, 2)
    id = upload!(a, Builds.changed("patched")).id
    assert {[], []} = warnings(a, id)
    assert {:ok, %{nodes: [%{warnings: []}]}} = hot_patch(a, :apply, [id])
  end

  test "names are whole atoms, as the VM writes them" do
    pattern = :binary.compile_pattern("a_b")
    for text <- ["y(1) a_b", "{a_b,1}", "a_b"], do: assert(NameHolders.named?(text, pattern))

    for text <- ["aa_b", "a_bc", "x@a_b", "a_b@h", "a_b.c"],
        do: refute(NameHolders.named?(text, pattern))
  end
end
