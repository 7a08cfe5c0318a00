defmodule Mix.Tasks.HotPatch.Remote do
  @shortdoc "Uploads, checks, applies and rolls back patches on a running cluster"
  @moduledoc """
  Does on a running cluster what `HotPatch` does, from a terminal, with a bar for each node.

      mix hot_patch.remote NODE COMMAND [ARGUMENT] [OPTION...]

  NODE is any node of the cluster that runs HotPatch and can read archives, such as
  `app@10.0.0.5`; this terminal connects to it as a hidden node and leaves it again.

  | command | what it does |
  |---|---|
  | `upload FILE` | takes an archive in; prints the patch with its id |
  | `list`, `nodes`, `journal` | shows patches, nodes, what was done |
  | `check PATCH`, `plan PATCH` | what applying would do; changes nothing |
  | `apply PATCH` | makes a patch current on all nodes |
  | `rollback PATCH` | takes it back |
  | `cancel ID` | cancels what is under way: by the id of the operation, the patch, or the node |
  | `delete PATCH` | forgets its archive |

  PATCH is an id, or a name that only one patch has.

  ## Options

    * `--cookie TEXT` - of the cluster; default: that of this user (`~/.erlang.cookie`)
    * `--json` - prints JSON instead of tables
    * `--nodes A,B` - only these nodes
    * `--reason TEXT`, `--by TEXT` - for the record
    * `--transition`, `--purge`, `--on-load`, `--drift`, `--disk`, `--on-failure WORD`, `--cumulative`, `--again`,
      `--pause-timeout MS`, `--timeout MS` - as for `HotPatch.apply/2`
    * `--release "NAME VERSION"` - of the system that an upload is for, as `nodes` shows it
    * `--canary N`, `--canary 0.1`, `--canary A,B` - so many nodes, such a share, or these go first
    * `--max-concurrency N`, `--one-per-host` - group after group
    * `--keep` - with `cancel`: nodes that have the patch by now keep it
    * `--watch`, `--no-watch`, `--watch-for MS` - whether and how long nodes are watched afterwards

  ## Examples

      mix hot_patch.remote app@10.0.0.5 upload fix.zip
      mix hot_patch.remote app@10.0.0.5 apply fix --canary 1 --watch-for 60000 --reason "wrong rates"

  Exit status: 0 if it went well, 1 if not (what was wrong is on standard error), 2 for a wrong
  call.
  """

  use Mix.Task

  alias HotPatch.Printable

  @switches [
    cookie: :string,
    json: :boolean,
    nodes: :string,
    reason: :string,
    by: :string,
    transition: :string,
    purge: :string,
    on_load: :string,
    drift: :string,
    release: :string,
    disk: :string,
    on_failure: :string,
    cumulative: :boolean,
    again: :boolean,
    keep: :boolean,
    pause_timeout: :integer,
    timeout: :integer,
    canary: :string,
    max_concurrency: :integer,
    one_per_host: :boolean,
    watch: :boolean,
    watch_for: :integer
  ]

  @words %{
    "suspend" => :suspend,
    "none" => :none,
    "compatible" => :compatible,
    "soft" => :soft,
    "force" => :force,
    "restart" => :restart,
    "load" => :load,
    "refuse" => :refuse,
    "accept" => :accept,
    "replace" => :replace,
    "memory_only" => :memory_only,
    "rollback" => :rollback,
    "keep" => :keep
  }

  @impl Mix.Task
  def run(argv) do
    case OptionParser.parse(argv, strict: @switches) do
      {options, [node, command | arguments], []} -> carry_out(node, command, arguments, options)
      {_, _, [{switch, _} | _]} -> wrong("#{switch} is no option, or lacks its value")
      _ -> wrong("it takes a node and a command")
    end
  end

  defp carry_out(node, command, arguments, options) do
    case call(command, arguments, options) do
      {:ok, function, arguments} ->
        node = connect(node, options)
        show(:erpc.call(node, HotPatch, function, arguments), node, options)

      {:error, text} ->
        wrong(text)
    end
  end

  defp call("upload", [path], options) do
    case File.read(path) do
      {:ok, bytes} ->
        name = path |> Path.basename() |> Path.rootname()
        {:ok, :upload, [bytes, Keyword.put(taken(options, [:by, :release]), :name, name)]}

      {:error, posix} ->
        {:error, "cannot read #{path}: #{:file.format_error(posix)}"}
    end
  end

  defp call("list", [], _options), do: {:ok, :list, []}
  defp call("nodes", [], _options), do: {:ok, :nodes, []}
  defp call("journal", [], options), do: {:ok, :journal, [taken(options, [:nodes])]}

  defp call(survey, [id], options) when survey in ["check", "plan"] do
    taken =
      taken(
        options,
        [:nodes, :timeout, :transition, :purge, :on_load, :drift, :disk, :cumulative, :again]
      )

    {:ok, if(survey == "check", do: :check, else: :plan), [id, taken]}
  end

  defp call("apply", [id], options) do
    known = [
      :canary,
      :max_concurrency,
      :one_per_host,
      :watch,
      :on_failure,
      :cumulative,
      :drift,
      :disk,
      :again
    ]

    {:ok, :apply, [id, change(options, known)]}
  end

  defp call("rollback", [id], options), do: {:ok, :rollback, [id, change(options, [])]}

  defp call("cancel", [id], options),
    do: {:ok, :cancel, [id, taken(options, [:keep, :timeout, :by, :reason])]}

  defp call("delete", [id], options), do: {:ok, :delete, [id, taken(options, [:by, :reason])]}

  defp call(command, _arguments, _options),
    do: {:error, "no command #{command} with these arguments"}

  defp change(options, more) do
    known = [:nodes, :timeout, :transition, :pause_timeout, :purge, :on_load, :by, :reason]
    [{:progress, if(options[:json], do: :none, else: :bar)} | taken(options, known ++ more)]
  end

  defp taken(options, known) do
    options = if ms = options[:watch_for], do: [{:watch, [duration: ms]} | options], else: options
    for key <- known, Keyword.has_key?(options, key), do: {key, value(key, options[key])}
  end

  # Words that are not known here are told so by HotPatch.
  defp value(key, word) when key in [:transition, :purge, :on_load, :on_failure, :drift, :disk],
    do: Map.get(@words, word, word)

  # HotPatch says what is wrong with a text that names no version.
  defp value(:release, text) do
    case String.split(text, " ", parts: 2) do
      [name, version] -> {name, version}
      _no_version -> text
    end
  end

  defp value(:nodes, names), do: names(names)

  defp value(:canary, text) do
    case {Integer.parse(text), Float.parse(text)} do
      {{number, ""}, _} -> number
      {_, {share, ""}} -> share
      _ -> names(text)
    end
  end

  defp value(_key, value), do: value

  defp names(text), do: text |> String.split(",") |> Enum.map(&name/1)

  # The operator's own words, in a VM that lives for one call.
  defp name(text), do: String.to_atom(text)

  defp connect(text, options) do
    node = name(text)
    domain = if text =~ ".", do: :longnames, else: :shortnames
    host = if domain == :longnames, do: "@127.0.0.1", else: ""
    own = name("hot_patch_remote_#{System.pid()}#{host}")

    # It only calls, so that it needs no port of its own, nor an epmd on this host.
    unless Node.alive?() do
      case :net_kernel.start(own, %{name_domain: domain, hidden: true, dist_listen: false}) do
        {:ok, _pid} -> :ok
        {:error, reason} -> fail("distribution does not start on this host: #{inspect(reason)}")
      end
    end

    if options[:cookie], do: Node.set_cookie(node, name(options[:cookie]))

    unless Node.connect(node) == true,
      do:
        fail("#{node} cannot be reached: is it up, is that its full name, and the cookie right?")

    node
  end

  defp show({:error, error}, node, options) do
    if error.__struct__ == HotPatch.Error and error.report, do: print(error.report, node, options)
    fail(Exception.message(error))
  end

  defp show({:ok, result}, node, options), do: print(result, node, options)
  defp show(:ok, _node, _options), do: Mix.shell().info("done")
  defp show(results, node, options), do: print(results, node, options)

  # Written where the native reader is.
  defp print(result, node, options) do
    if options[:json] do
      {:ok, json} = :erpc.call(node, HotPatch, :to_json, [result])
      Mix.shell().info(json)
    else
      for line <- List.wrap(result), do: Mix.shell().info(line |> line() |> Printable.lines())
    end
  end

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
