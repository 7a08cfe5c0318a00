defmodule HotPatch.ProtocolTest do
  # The rules of docs/protocol.md stand by name at the places in lib/ that keep them.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)

  test "every rule of the page has its place in the code, and every such comment its rule" do
    rules = rules()
    comments = comments()
    assert rules != []
    assert rules == Enum.uniq(rules)

    for rule <- rules do
      assert comments[rule],
             "docs/protocol.md has the rule #{rule}, and no comment in lib/ says # rule: #{rule}: " <>
               "write it where the code keeps the rule, or take the rule out of the page"
    end

    for {rule, places} <- comments do
      assert rule in rules,
             "#{Enum.join(places, ", ")} names the rule #{rule}, which docs/protocol.md does not have: " <>
               "mend the name, or add the rule"
    end
  end

  test "the page says of every rule what goes wrong without it" do
    for {rule, text} <- sections(),
        do: assert(text =~ ~r/without\s+it\s/i, "#{rule} does not say that")
  end

  test "the page names modules that are there" do
    names = Regex.scan(~r/`(HotPatch[.A-Za-z]*)`/, page(), capture: :all_but_first)
    assert length(names) > 4

    for [name] <- names do
      assert {:module, _} = name |> String.split(".") |> Module.concat() |> Code.ensure_loaded()
    end
  end

  defp page, do: File.read!(Path.join(@root, "docs/protocol.md"))

  defp rules, do: Enum.map(sections(), &elem(&1, 0))

  # Name and text of each rule.
  defp sections do
    [_, rules] = String.split(page(), "\n## The rules\n", parts: 2)
    [rules | _] = String.split(rules, "\n## ", parts: 2)
    [_ | sections] = String.split(rules, "\n### ")

    for section <- sections do
      [name, text] = String.split(section, "\n", parts: 2)
      {name, text}
    end
  end

  defp comments do
    for path <- Path.wildcard(Path.join(@root, "lib/**/*.ex")),
        {line, number} <- path |> File.stream!() |> Enum.with_index(1),
        [rule] <- Regex.scan(~r/# rule:\s*(.*?)\s*$/, line, capture: :all_but_first),
        reduce: %{} do
      places ->
        place = "#{Path.relative_to(path, @root)}:#{number}"
        Map.update(places, rule, [place], &(&1 ++ [place]))
    end
  end
end
