defmodule Mix.Tasks.HotPatch.Remote do
  @shortdoc "Uploads, checks, applies and rolls back patches on a running cluster"
  @moduledoc """
  Does on a running cluster what `HotPatch` does, from a terminal, with a bar for each node.

      mix hot_patch.remote NODE COMMAND [ARGUMENT] [OPTION...]

  NODE is any node of the cluster that runs HotPatch and can read archives, such as
  `app@10.0.0.5`; this terminal connects to it as a hidden node and leaves it again.

  #{HotPatch.Command.docs()}

  PATCH is an id, a name, or the beginning of an id, that only one patch has.

  ## Options

    * `--cookie TEXT` - of the cluster; default: that of this user (`~/.erlang.cookie`)
    * `--json` - prints JSON instead of tables

  All others are those of the function of the same name in `HotPatch`, with `-` for `_`. Files are on this
  machine; bars are shown, unless `--progress` says otherwise, if the output is a terminal.

  #{HotPatch.Command.docs_of_switches()}

  ## Examples

      mix hot_patch.remote app@10.0.0.5 upload fix.zip
      mix hot_patch.remote app@10.0.0.5 apply fix --canary 1 --watch-for 60000 --reason "wrong rates"
      mix hot_patch.remote app@10.0.0.5 restart app@10.0.0.6 --reason "libraries"

  Exit status: 0 if it went well, 1 if not (what was wrong is on standard error; of a rehearsal it is in what is
  printed), 2 for a wrong call, 3 for a rehearsal in which nothing failed and something could not be tried.
  """

  use Mix.Task

  alias HotPatch.Command
  alias HotPatch.Command.Connection
  alias HotPatch.Options
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Suggestion

  # Milliseconds.
  @within 60_000

  # Of a rehearsal.
  @exits %{failed: 1, incomplete: 3}

  @impl Mix.Task
  def run(argv) do
    switches = Command.switches()

    case OptionParser.parse(argv, strict: switches) do
      {options, [node, command | arguments], []} -> carry_out(node, command, arguments, options)
      {_, _, [{switch, value} | _]} -> wrong(wrong_switch(switch, value, Keyword.keys(switches)))
      _ -> wrong("it takes a node and a command")
    end
  end

  defp wrong_switch(switch, value, known) do
    names = for option <- known, do: "--" <> Command.name(option)

    cond do
      switch not in names -> "#{switch} is no option#{Suggestion.question(switch, names)}"
      value == nil -> "#{switch} lacks its value"
      true -> "#{switch} cannot be #{value}"
    end
  end

  defp carry_out(node, command, arguments, options) do
    with {:ok, call} <- Command.parse(command, arguments, options),
         {:ok, call} <- here(call, options) do
      node = connect(node, options)

      case ask(node, call) do
        {:restarted, answers} -> show_restarted(answers, call, node, options)
        answer -> show(answer, call, node, options)
      end
    else
      {:error, text} -> wrong(text)
    end
  end

  # What is of this machine: files, and the terminal.
  defp here(%{function: :upload, arguments: [path, options]} = call, _options) do
    case File.read(path) do
      {:ok, bytes} ->
        name = path |> Path.basename() |> Path.rootname()
        {:ok, %{call | arguments: [bytes, Keyword.put_new(options, :name, name)]}}

      {:error, posix} ->
        {:error, "cannot read #{path}: #{:file.format_error(posix)}"}
    end
  end

  defp here(%{function: :export_antipatch, arguments: [patch, options]} = call, _options) do
    if options[:to],
      do: {:ok, %{call | arguments: [patch, Keyword.delete(options, :to)]}},
      else: {:error, "export-antipatch needs the file that it is written to: --to FILE"}
  end

  defp here(%{function: function, arguments: [subject, options]} = call, given) do
    shown = if given[:json] || not terminal?(), do: :none, else: :bar

    if Keyword.has_key?(Options.rules(function), :progress),
      do: {:ok, %{call | arguments: [subject, Keyword.put_new(options, :progress, shown)]}},
      else: {:ok, call}
  end

  defp here(call, _options), do: {:ok, call}

  defp terminal?, do: match?({:ok, _columns}, :io.columns())

  defp ask(node, call) do
    with {:error, text} when is_binary(text) <-
           Connection.call(node, HotPatch, call.function, call.arguments) do
      if by_restarts?(call) and not Connection.open?(node),
        do: {:restarted, back(node, call)},
        else: fail(text)
    end
  end

  defp by_restarts?(%{function: :apply, arguments: [_patch, options]}),
    do: options[:restart] == :rolling

  defp by_restarts?(_call), do: false

  # Who leads is restarted last, by another, and takes its answer with it: what the nodes run then tells how it ended.
  defp back(node, %{arguments: [_patch, options]}) do
    within = Keyword.get(options, :timeout, @within) + @within

    Mix.shell().info(
      "#{node} leads, and is restarted last: the connection is lost, and is made again when it is back"
    )

    case Connection.settled(node, System.monotonic_time(:millisecond) + within) do
      {:ok, answers} -> answers
      {:error, text} -> fail(text)
    end
  end

  defp show_restarted(answers, call, node, options) do
    print(answers, %{call | function: :releases}, node, options)

    case for(%{running?: true, version: version} <- answers.items, uniq: true, do: version) do
      [_one] -> :ok
      _several -> fail("not all nodes run the same release: see their journal")
    end
  end

  defp connect(text, options) do
    case Connection.open(text, options[:cookie]) do
      {:ok, node} -> node
      {:error, text} -> fail(text)
    end
  end

  defp show({:error, error}, call, node, options) do
    if error.__struct__ == HotPatch.Error and error.report,
      do: print(error.report, call, node, options)

    fail(Exception.message(error))
  end

  defp show({:ok, %{zip: zip} = antipatch}, call, node, options) do
    # What it brings back may be a private key.
    with :ok <- File.write(options[:to], ""),
         :ok <- File.chmod(options[:to], 0o600),
         :ok <- File.write(options[:to], zip) do
      antipatch |> Map.delete(:zip) |> print(call, node, options)
    else
      {:error, posix} -> fail("cannot write #{options[:to]}: #{:file.format_error(posix)}")
    end
  end

  defp show({:ok, %HotPatch.Rehearsal{} = rehearsal}, call, node, options) do
    print(rehearsal, call, node, options)
    unless rehearsal.outcome == :ok, do: exit({:shutdown, @exits[rehearsal.outcome]})
  end

  defp show({:ok, result}, call, node, options), do: print(result, call, node, options)
  defp show(:ok, _call, _node, _options), do: Mix.shell().info("done")
  defp show(results, call, node, options), do: print(results, call, node, options)

  # JSON is written where the native reader is.
  defp print(result, call, node, options) do
    text =
      if options[:json] do
        {:ok, json} = :erpc.call(node, HotPatch, :to_json, [result])
        json
      else
        result |> text(call) |> IO.iodata_to_binary() |> Printable.lines()
      end

    Mix.shell().info(String.trim_trailing(text))
  end

  defp text(%HotPatch.Answers{} = answers, call),
    do: Enum.intersperse([text(answers.items, call) | HotPatch.Answers.lines(answers)], "\n")

  defp text(list, %{function: :stragglers}) when is_list(list),
    do: HotPatch.Straggler.to_table(list)

  defp text(list, %{function: :drift}) when is_list(list), do: HotPatch.Drift.to_table(list)

  defp text([_ | _] = list, %{function: :releases}),
    do: HotPatch.InstalledRelease.to_table(list)

  defp text([], %{function: function}),
    do: "nothing to show: HotPatch.#{function} gives an empty list"

  defp text(list, _call) when is_list(list), do: Enum.map_intersperse(list, "\n", &line/1)

  defp text(%{files: files, left_out: left_out} = antipatch, %{function: :export_antipatch}) do
    options =
      Enum.map_join(antipatch.apply_with, ", ", fn {name, value} ->
        "#{name}: #{inspect(value)}"
      end)

    [
      "holds what was replaced: #{Enum.join(files, ", ")}",
      if(left_out == [],
        do: "",
        else: "\nleft out, because there was none: #{Enum.join(left_out, ", ")}"
      ),
      "\nto be applied with #{options}"
    ]
  end

  defp text(result, _call), do: line(result)

  defp line(%HotPatch.Patch{} = patch), do: inspect(patch)
  defp line(result), do: to_string(result)

  @spec wrong(String.t()) :: no_return()
  defp wrong(text) do
    Mix.shell().error("hot_patch.remote: #{Printable.line(text)}; see mix help hot_patch.remote")
    exit({:shutdown, 2})
  end

  @spec fail(String.t()) :: no_return()
  defp fail(text) do
    Mix.shell().error("hot_patch.remote: #{Printable.line(text)}")
    exit({:shutdown, 1})
  end
end
