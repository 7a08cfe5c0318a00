defmodule HotPatch.CommandTest do
  # Functions as commands of a terminal.
  use ExUnit.Case, async: true

  alias HotPatch.Command

  defp parse(text) do
    {options, [command | arguments], []} =
      text |> OptionParser.split() |> OptionParser.parse(strict: Command.switches())

    Command.parse(command, arguments, options)
  end

  defp parse!(text) do
    {:ok, call} = parse(text)
    call
  end

  test "every function of HotPatch is one, or is left out with a reason" do
    functions =
      for {name, _arity} <- HotPatch.__info__(:functions),
          not String.ends_with?(Atom.to_string(name), "!"),
          uniq: true,
          do: name

    assert Enum.sort(functions) == Enum.sort(Command.functions() ++ Command.left_out())
  end

  test "no switch has two meanings" do
    switches = Command.switches()
    assert length(Keyword.keys(switches)) == length(Enum.uniq(Keyword.keys(switches)))
  end

  test "calls come as they are written" do
    for {text, function, arguments} <- [
          {"list", :list, []},
          {"nodes", :nodes, []},
          {"composition fix", :composition, ["fix"]},
          {"apply fix", :apply, ["fix", []]},
          {"apply fix --transition none --cumulative", :apply,
           ["fix", [cumulative: true, transition: :none]]},
          {"apply fix --canary 2", :apply, ["fix", [canary: 2]]},
          {"apply fix --canary 0.5", :apply, ["fix", [canary: 0.5]]},
          {"apply fix --canary a@b,c@d", :apply, ["fix", [canary: [:a@b, :c@d]]]},
          {"apply fix --no-watch", :apply, ["fix", [watch: false]]},
          {"apply fix --watch-for 100 --limit crashes=0 --limit run_queue=2.5", :apply,
           ["fix", [watch: [duration: 100, crashes: 0, run_queue: 2.5]]]},
          {~s(apply fix --config "shop.limit=100" --config "shop.on=true" --config other.x=[a]),
           :apply, ["fix", [config: ["shop.limit=100", "shop.on=true", "other.x=[a]"]]]},
          {"rollback fix --nodes a@b", :rollback, ["fix", [nodes: [:a@b]]]},
          {"drift --nodes role:media", :drift, [[nodes: {:role, :media}]]},
          {"journal --last 3 --patch fix", :journal, [[last: 3, patch: "fix"]]},
          {"restart a@b --force", :restart, [:a@b, [force: true]]},
          {"attach a@b --release shop-1.0.0", :attach, [:a@b, [release: "shop-1.0.0"]]},
          {"export-antipatch fix --to back.zip", :export_antipatch, ["fix", [to: "back.zip"]]},
          # What is wrong with a word is for HotPatch to say.
          {"apply fix --transition fast", :apply, ["fix", [transition: "fast"]]}
        ] do
      call = parse!(text)
      assert {text, call.function} == {text, function}

      sorted = fn arguments ->
        Enum.map(arguments, &if(Keyword.keyword?(&1), do: Enum.sort(&1), else: &1))
      end

      assert {text, sorted.(call.arguments)} == {text, sorted.(arguments)}
    end
  end

  test "wrong calls are told what would be right" do
    for {text, told} <- [
          {"aply fix", "did you mean apply?"},
          {"xyz fix", "there is no command xyz; there are upload, list"},
          {"apply", "it is apply PATCH"},
          {"list fix", "it is list"},
          {"delete fix --canary 1", "--canary is no option of delete"},
          {"nodes --reason x", "which takes none"},
          {"apply fix --config limit", "must be APP.KEY=TERM"},
          {"apply fix --limit crashes", "must be SIGN=NUMBER"}
        ] do
      assert {:error, message} = parse(text)
      assert {text, true, message} == {text, message =~ told, message}
    end
  end
end
