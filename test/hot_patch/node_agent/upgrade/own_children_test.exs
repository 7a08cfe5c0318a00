defmodule HotPatch.NodeAgent.Upgrade.OwnChildrenTest do
  use ExUnit.Case, async: false

  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.OwnChildren
  alias HotPatch.NodeAgent.Verdict

  # Children that an application lists itself are nobody's to start: the plan has to say so.

  defmodule Listed do
    use Application
    def start(_type, _args), do: Supervisor.start_link([], strategy: :one_for_one)
  end

  defmodule WithModule do
    use Application
    use Supervisor
    def start(_type, _args), do: Supervisor.start_link(__MODULE__, [])
    def init([]), do: Supervisor.init([], strategy: :one_for_one)
  end

  setup do
    for {name, module} <- [own_listed: Listed, own_module: WithModule] do
      properties = [vsn: ~c"1", modules: [], applications: [:kernel], mod: {module, []}]
      :ok = :application.load({:application, name, properties})
      :ok = :application.start(name)

      on_exit(fn ->
        :application.stop(name)
        :application.unload(name)
      end)
    end

    :ok
  end

  defp lines(changed, restarted \\ []) do
    applications =
      for name <- ["own_listed", "own_module"],
          do: %{name: name, former: "lib/#{name}-1", new: "lib/#{name}-2", type: :permanent}

    course = %Course{
      from: {"x", "1"},
      to: {"x", "2"},
      erts: "13",
      root: "/x",
      applications: applications
    }

    OwnChildren.lines(course, Enum.map(changed, &verdict/1), restarted)
  end

  defp verdict(module) do
    beam = %{module: Atom.to_string(module)}
    entry = struct(Entry, path: "x", kind: :beam, beam: beam)
    %{Verdict.new(entry, :ok) | change: :replace}
  end

  test "where its start changes, and no supervisor's module could be asked" do
    assert [line] = lines([Listed, WithModule])

    assert line =~
             "own_listed: HotPatch.NodeAgent.Upgrade.OwnChildrenTest.Listed.start/2 lists children itself"

    assert line =~ "--restart own_listed"
  end

  test "not where that stays, nor where the application is started anew" do
    assert lines([WithModule]) == []
    assert lines([Listed], ["own_listed"]) == []
  end
end
