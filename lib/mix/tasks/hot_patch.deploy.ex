defmodule Mix.Tasks.HotPatch.Deploy do
  @shortdoc "From the working tree to every node, in one command"
  @moduledoc """
  Builds the release of this project, compares it with what runs, makes a patch of what differs, shows what it means, asks,
  and applies it to all nodes.

      mix hot_patch.deploy --to shop@10.0.0.5 --reason "wrong rates" --canary 1

  What runs is asked for on the node: digests of its files, and those files that differ. No old build is needed.
  The patch says what it takes the place of, and every node checks that it runs that.

  ## Options

    * `--to NODE` - any node of the cluster; it runs the same HotPatch as this project
    * `--release FOLDER` - a release that is built already; without it `mix release` is run, in this `MIX_ENV`
    * `--name TEXT` - of the patch. Default: `deploy`
    * `--accept NAME` - build it although this was found, see `mix help hot_patch.build`; may be given several times
    * `--sign KEY` - signs the patch, see `mix help hot_patch.sign`
    * `--config-differences` - sets what the new `sys.config` sets otherwise
    * `--dry-run` - shows what it would do, and ends
    * `--yes` - does not ask; where this is no terminal, nothing is applied without it
    * `--cookie TEXT` - of the cluster; default: that of this user (`~/.erlang.cookie`)
    * `--help` - this text

  and those of `apply`:

  #{HotPatch.Options.CommandLine.docs([:apply])}

  ## Exit codes

    * 0 - it runs on every node and was read back; or nothing differs; or it was a dry run
    * 1 - it does not run: the message says why, and what was taken back
    * 2 - wrong usage
    * 3 - not confirmed: nothing was changed

  ## Examples

      MIX_ENV=prod mix hot_patch.deploy --to shop@10.0.0.5 --dry-run
      MIX_ENV=prod mix hot_patch.deploy --to shop@10.0.0.5 --yes --canary 1 --watch-for 60000 --reason "ticket 4711"
  """

  use Mix.Task

  alias HotPatch.Build
  alias HotPatch.Build.Running
  alias HotPatch.Command.Connection
  alias HotPatch.Options.CommandLine
  alias HotPatch.Support.Folder
  alias HotPatch.Support.Printable

  @own [
    to: :string,
    release: :string,
    name: :string,
    accept: :keep,
    sign: :string,
    config_differences: :boolean,
    dry_run: :boolean,
    yes: :boolean,
    cookie: :string,
    help: :boolean
  ]

  @impl Mix.Task
  def run(argv) do
    switches = Keyword.merge(CommandLine.switches(:apply), @own)

    case OptionParser.parse(argv, strict: switches) do
      {options, [], []} ->
        if options[:help], do: Mix.shell().info(@moduledoc), else: asked(options)

      {_, [argument | _], []} ->
        stop(2, "what is #{argument}?")

      {_, _, [{switch, _} | _]} ->
        stop(2, "#{switch} is no option of this task, or lacks its value")
    end
  end

  defp asked(options) do
    {own, given} = Keyword.split(options, Keyword.keys(@own))
    if own[:to] == nil, do: stop(2, "--to NODE is missing: any node of the cluster")

    case CommandLine.read(:apply, given) do
      {:ok, apply_options} -> deploy(own, apply_options, ok!(release(own[:release])))
      {:unknown, option} -> stop(2, "--#{CommandLine.name(option)} is no option of this task")
      {:error, text} -> stop(2, text)
    end
  end

  # Without another the project as it is now.
  defp release(nil) do
    Mix.Task.run("release", ["--overwrite", "--quiet"])
    release(Path.join([Mix.Project.build_path(), "rel", Atom.to_string(release_name())]))
  end

  defp release(folder) do
    if File.dir?(Path.join(folder, "lib")),
      do: {:ok, Path.expand(folder)},
      else: {:error, "#{folder} is no release: it has no lib folder; name it with --release"}
  end

  # As mix release chooses it, where it need not be told.
  defp release_name do
    config = Mix.Project.config()
    config[:default_release] || List.first(Keyword.keys(config[:releases] || [])) || config[:app]
  end

  defp deploy(own, apply_options, release) do
    node = ok!(Connection.open(own[:to], own[:cookie]))

    in_folder(fn folder ->
      case mirror(node, release, folder) do
        [] -> say("nothing differs: #{own[:to]} runs what is in #{release}")
        _differing -> build(node, own, {folder, release}) |> offer(node, own, apply_options)
      end
    end)
  end

  defp mirror(node, release, folder) do
    Running.mirror(&told!(Connection.call(node, Running, &1, &2)), release, folder)
  end

  # The files of a system may hold its secrets.
  defp in_folder(fun) do
    folder = Path.join(System.tmp_dir!(), "hot_patch_deploy-#{System.pid()}-#{System.os_time()}")
    File.mkdir!(folder)
    File.chmod!(folder, 0o700)

    try do
      fun.(folder)
    after
      File.rm_rf!(folder)
    end
  end

  defp build(node, own, {from, to}) do
    out = Path.join(from, "patch.zip")
    File.mkdir_p!(from)

    options =
      [from: from, to: to, out: out, name: own[:name] || "deploy"] ++
        [accept: Keyword.get_values(own, :accept), dry_run: own[:dry_run] == true] ++
        [in_place: true] ++
        Keyword.take(own, [:sign, :config_differences]) ++ for_release(node, from)

    built = ok!(Build.run(options))
    say(to_string(built))
    if built.refusal, do: stop(1, Exception.message(built.refusal)), else: built
  end

  # A system that is no release says itself what it is.
  defp for_release(node, from) do
    if Folder.matching(from, "releases/*/*.rel") == [] do
      %{name: name, version: version} =
        told!(Connection.call(node, HotPatch.Release, :current, []))

      [for: "#{name}-#{version}"]
    else
      []
    end
  end

  defp offer(built, node, own, apply_options) do
    if own[:dry_run] do
      say("a dry run: nothing was sent to #{node}")
    else
      name = own[:name] || "deploy"
      patch = ok!(Connection.call(node, HotPatch, :upload, [built.zip, [name: name]]))

      plan =
        ok!(
          Connection.call(node, HotPatch, :plan, [patch.id, Keyword.take(apply_options, [:nodes])])
        )

      say(to_string(plan))
      confirm(own, node, patch)
      apply_patch(node, own, patch, apply_options)
    end
  end

  defp confirm(own, node, patch) do
    unless own[:yes] ||
             (terminal?() && Mix.shell().yes?("Apply #{patch.id} to all nodes?", default: :no)) do
      _ = Connection.call(node, HotPatch, :delete, [patch.id, []])

      stop(
        3,
        "not confirmed: nothing was changed#{if terminal?(), do: "", else: "; --yes applies it without asking"}"
      )
    end
  end

  defp apply_patch(node, own, patch, options) do
    options = Keyword.put_new(options, :progress, if(terminal?(), do: :bar, else: :none))

    case Connection.call(node, HotPatch, :apply, [patch.id, options]) do
      {:ok, report} ->
        say(to_string(report))
        end_with(report, node, own, patch)

      {:error, error} ->
        if is_exception(error) and error.report, do: say(to_string(error.report))
        stop(1, text(error))
    end
  end

  # Read back on every node: code and files are what was sent.
  defp end_with(%{status: status, missing: []}, _node, own, patch)
       when status in [:ok, :not_changed, :not_loaded, :not_beam] do
    say("take it back: mix hot_patch.remote #{own[:to]} rollback #{patch.id}")
  end

  defp end_with(report, _node, own, patch) do
    stop(
      1,
      "#{patch.id} is not on every node as it should be (#{report.status}), see the report; take it back: " <>
        "mix hot_patch.remote #{own[:to]} rollback #{patch.id}"
    )
  end

  defp terminal?, do: match?({:ok, _columns}, :io.columns())
  defp say(text), do: text |> String.trim_trailing() |> Printable.lines() |> Mix.shell().info()

  defp ok!({:ok, result}), do: result
  defp ok!({:error, error}), do: stop(1, text(error))

  defp told!({:error, error}), do: stop(1, text(error))
  defp told!(result), do: result

  defp text(error) when is_exception(error), do: Exception.message(error)
  defp text(text), do: text

  @spec stop(1..3, String.t()) :: no_return()
  defp stop(code, text) do
    Mix.shell().error("hot_patch.deploy: #{Printable.lines(text)}")
    exit({:shutdown, code})
  end
end
