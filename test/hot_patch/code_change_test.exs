defmodule HotPatch.CodeChangeTest do
  # Which code_change is called, of a patch that was built and of one that was packed by hand: every
  # one that is there, on the way up and on the way back, whatever the analysis makes of it.
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Servers

  @moduletag :starts_nodes
  @moduletag :tmp_dir

  @server Exchange.Demo.Server
  @state Exchange.Demo.State
  @ebin "exchange-1.0.0/ebin/"

  # A server whose code_change is the same text in both versions; `tag` makes them differ.
  defp server(tag, convert, behaviour \\ "use GenServer") do
    """
    defmodule #{inspect(@server)} do
      #{behaviour}
      @vsn "#{tag}"
      def start, do: GenServer.start(__MODULE__, [])
      def tag, do: "#{tag}"
      def init(_), do: {:ok, #{inspect(@state)}.new()}
      def handle_call(:state, _from, state), do: {:reply, state, state}
      def handle_call({:put, state}, _from, _state), do: {:reply, :ok, state}
      #{convert}
    end
    """
  end

  defp state(fields, migrate) do
    """
    defmodule #{inspect(@state)} do
      defstruct #{fields}
      def new, do: %__MODULE__{}
      #{migrate}
    end
    """
  end

  @narrow "[a: 1]"
  @wide "[a: 1, b: :new]"
  @helper "def code_change(vsn, state, _), do: {:ok, #{inspect(@state)}.migrate(vsn, state)}"
  @both "def migrate({:down, _}, state), do: Map.delete(state, :b)\n" <>
          "def migrate(_, state), do: Map.put(state, :b, :migrated)"
  @struct "def code_change(_, state, _), do: {:ok, struct(#{inspect(@state)}, Map.from_struct(state))}"

  defp narrow, do: %{__struct__: @state, a: 1}
  defp wide(b), do: %{__struct__: @state, a: 1, b: b}

  # The modules of a text, as files of the exchange.
  defp files(text) do
    Code.put_compiler_option(:ignore_module_conflict, true)
    compiled = Code.compile_string(text)
    for {module, _bytes} <- compiled, do: Servers.unload(module)
    for {module, bytes} <- compiled, do: {@ebin <> "#{module}.beam", bytes}
  after
    Code.put_compiler_option(:ignore_module_conflict, false)
  end

  defp build(dir, name, files) do
    root = Path.join(dir, name)

    for {path, bytes} <- files do
      path = Path.join(root, path)
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, bytes)
    end

    root
  end

  defp built(dir, old, new, accept) do
    options = [
      from: build(dir, "from", old),
      to: build(dir, "to", new),
      out: Path.join(dir, "fix.zip"),
      accept: accept
    ]

    {:ok, built} = HotPatch.Build.run(options)
    built.zip
  end

  # A node that runs the old version with one process, and the patch that leads to the new one.
  defp started(dir, old, new, options) do
    [node] = Cluster.start(1)
    {old, new} = {files(old), files(new)}
    first = upload!(node, old, "first")
    {:ok, _report} = hot_patch(node, :apply, [first.id])

    zip =
      if options[:by_hand],
        do: zip(for(file <- new, file not in old, do: file)),
        else: built(dir, old, new, options[:accept] || [])

    {:ok, patch} = hot_patch(node, :upload, [zip, [name: "fix"]])
    {:ok, pid} = Cluster.call(node, @server, :start, [])
    {node, patch, pid}
  end

  # The state after the apply, and after the rollback.
  defp there_and_back(dir, old, new, options \\ []) do
    {node, patch, pid} = started(dir, old, new, options)
    {:ok, _report} = hot_patch(node, :apply, [patch.id])
    patched = GenServer.call(pid, :state)
    {:ok, _report} = hot_patch(node, :rollback, [patch.id])
    {patched, GenServer.call(pid, :state)}
  end

  describe "a code_change is called both ways" do
    test "where a helper in another module converts", %{tmp_dir: dir} do
      old = server(1, @helper) <> state(@narrow, "def migrate(_, state), do: state")
      new = server(2, @helper) <> state(@wide, @both)
      assert there_and_back(dir, old, new) == {wide(:migrated), narrow()}
    end

    test "where its text is as before and what it makes is not", %{tmp_dir: dir} do
      old = server(1, @struct) <> state(@narrow, "")
      new = server(2, @struct) <> state(@wide, "")
      {node, patch, pid} = started(dir, old, new, [])
      {:ok, _report} = hot_patch(node, :apply, [patch.id])
      assert GenServer.call(pid, :state) == wide(:new)
    end

    test "by hand as by a manifest", %{tmp_dir: dir} do
      old = server(1, @helper) <> state(@narrow, "def migrate(_, state), do: state")
      new = server(2, @helper) <> state(@wide, @both)
      assert there_and_back(dir, old, new, by_hand: true) == {wide(:migrated), narrow()}
      old = server(1, @struct) <> state(@narrow, "")
      new = server(2, @struct) <> state(@wide, "")
      {node, patch, pid} = started(dir, old, new, by_hand: true)
      {:ok, _report} = hot_patch(node, :apply, [patch.id])
      assert GenServer.call(pid, :state) == wide(:new)
    end

    test "where the module shows no sign of having processes", %{tmp_dir: dir} do
      # It is a callback module by what it is given to, and offers no handle_call/3.
      server = fn tag ->
        """
        defmodule #{inspect(@server)} do
          @vsn "#{tag}"
          def tag, do: "#{tag}"
          def start, do: :proc_lib.start(__MODULE__, :init, [self()])
          def init(parent) do
            :proc_lib.init_ack(parent, {:ok, self()})
            loop(parent, #{inspect(@state)}.new())
          end
          def loop(parent, state) do
            receive do
              {:system, from, request} ->
                :sys.handle_system_msg(request, from, parent, __MODULE__, [], state)
              {:"$gen_call", from, :state} ->
                GenServer.reply(from, state)
                loop(parent, state)
            end
          end
          def system_continue(parent, _, state), do: __MODULE__.loop(parent, state)
          def system_terminate(reason, _, _, _), do: exit(reason)
          def system_code_change(state, _, vsn, _), do: {:ok, #{inspect(@state)}.migrate(vsn, state)}
        end
        """
      end

      old = server.(1) <> state(@narrow, "def migrate(_, state), do: state")
      new = server.(2) <> state(@wide, @both)
      assert there_and_back(dir, old, new) == {wide(:migrated), narrow()}
    end
  end

  test "one that does not know the way back fails it, and nothing is changed", %{tmp_dir: dir} do
    only_up = "def code_change(\"1\", state, _), do: {:ok, Map.put(state, :b, :up)}"
    old = server(1, "") <> state(@narrow, "")
    new = server(2, only_up) <> state(@wide, "")
    {node, patch, pid} = started(dir, old, new, [])
    {:ok, _report} = hot_patch(node, :apply, [patch.id])
    assert GenServer.call(pid, :state) == wide(:up)

    assert {:error, %Error{reason: :failed} = error} = hot_patch(node, :rollback, [patch.id])

    assert error.message =~
             "code_change of #{inspect(@server)} failed in #{Cluster.call(node, Kernel, :inspect, [pid])}"

    assert GenServer.call(pid, :state) == wide(:up)
    assert Cluster.call(node, @server, :tag, []) == "2"
  end

  test "a server that is not in the patch keeps a state that its new maker does not know", %{
    tmp_dir: dir
  } do
    old = server(1, @helper) <> state(@narrow, "def migrate(_, state), do: state")
    new = server(1, @helper) <> state(@wide, @both)

    # Nobody calls its code_change, so a patch like this is built only if that is accepted.
    assert {:error, %Error{} = error} =
             HotPatch.Build.run(
               from: build(dir, "from", files(old)),
               to: build(dir, "to", files(new)),
               out: Path.join(dir, "fix.zip")
             )

    assert error.message =~ "struct_changed_without_code_change"
    assert error.message =~ "Exchange.Demo.Server stays as it is"

    # One that was packed by hand says it in its plan, and it is as the plan says.
    {node, patch, pid} = started(dir, old, new, by_hand: true)
    {:ok, %{nodes: [%{analysis: %{findings: findings}}]}} = hot_patch(node, :plan, [patch.id])
    assert %{module: name, items: items} = Enum.find(findings, &(&1.severity == :danger))
    assert name == Atom.to_string(@server)
    assert items == ["%Exchange.Demo.State{a}", "%Exchange.Demo.State{a, b}"]

    assert [%{items: ["Exchange.Demo.Server"]}] =
             for(%{name: :struct_changed_in_state} = one <- findings, do: one)

    {:ok, _report} = hot_patch(node, :apply, [patch.id])
    assert GenServer.call(pid, :state) == narrow()
    {:ok, later} = Cluster.call(node, @server, :start, [])
    assert GenServer.call(later, :state) == wide(:new)

    # The same on the way back, where the newer states would stay.
    {:ok, %{nodes: [%{analysis: %{findings: findings}}]}} =
      hot_patch(node, :plan, [patch.id, [operation: :rollback]])

    assert %{module: ^name, items: back} = Enum.find(findings, &(&1.severity == :danger))
    assert back == Enum.reverse(items)
  end

  test "one that only gives the state back is not called, and nobody pauses", %{tmp_dir: dir} do
    same = "def code_change(_, state, _), do: {:ok, state}"
    old = server(1, same) <> state(@narrow, "")
    new = server(2, same) <> state(@narrow, "")
    {node, patch, pid} = started(dir, old, new, [])
    GenServer.call(pid, {:put, {:any, self()}})
    assert {:ok, %{nodes: [%{suspended: 0}]}} = hot_patch(node, :apply, [patch.id])
    assert {:ok, %{nodes: [%{suspended: 0}]}} = hot_patch(node, :rollback, [patch.id])
    assert GenServer.call(pid, :state) == {:any, self()}
  end

  test "a module that a node has already is there for those that convert", %{tmp_dir: dir} do
    old = server(1, @helper) <> state(@narrow, @both)
    new = server(2, @helper) <> state(@narrow, @both)
    {node, _patch, pid} = started(dir, old, new, by_hand: true)
    # Both modules in one archive, one of which runs already.
    {:ok, patch} = hot_patch(node, :upload, [zip(files(new)), [name: "both"]])
    assert {:ok, _report} = hot_patch(node, :apply, [patch.id])
    assert GenServer.call(pid, :state) == wide(:migrated)
  end
end
