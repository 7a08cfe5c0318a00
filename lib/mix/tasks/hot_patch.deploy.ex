defmodule Mix.Tasks.HotPatch.Deploy do
  @shortdoc "From the working tree to every node, in one command"
  @moduledoc """
  Builds the release of this project, compares it with what runs, makes a patch of what differs, shows what it means, asks,
  and applies it to all nodes.

      mix hot_patch.deploy --to shop@10.0.0.5 --reason "wrong rates" --canary 1

  What runs is asked for on the node: digests of its files, and those files that differ. No old build is needed.
  The patch says what it takes the place of, and every node checks that it runs that.

  Where the version of the release is another than that which runs it is an upgrade: the release is sent as a tarball, the
  node makes of it and of what it runs what leads there, and all else is the same. What it runs then is booted by a
  restart once it is permanent (`--permanent`). Such an archive is not signed; what looks dangerous is built with
  `mix hot_patch.build`, where it can be accepted. Through the page's interface a tarball may be as large as an archive.

  ## Options

    * `--to NODE` - any node of the cluster; it runs the same HotPatch as this project
    * `--to URL` - or the address at which the page is mounted, as in `https://shop.example.com/patch-api`: where web servers can
      be reached and nodes cannot. A token of an admin stands in the environment, in `HOT_PATCH_TOKEN`. What
      the system is started with (`sys.config`, `runtime.exs`, `vm.args`) is not handed out there, and so not compared
    * `--release FOLDER` - a release that is built already; without it `mix release` is run, in this `MIX_ENV`
    * `--name TEXT` - of the patch. Default: `deploy`
    * `--accept NAME` - build it although this was found, see `mix help hot_patch.build`; may be given several times
    * `--sign KEY` - signs the patch, see `mix help hot_patch.sign`
    * `--in-place` - a patch of the version that runs, although the version of the release differs
    * `--config-differences` - sets what the new `sys.config` sets otherwise
    * `--dry-run` - shows what it would do, and ends
    * `--yes` - does not ask; where this is no terminal, nothing is applied without it
    * `--cookie TEXT` - of the cluster; default: that of this user (`~/.erlang.cookie`)
    * `--cacert FILE` - certificates to trust with `https`; default: those of this system
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
      MIX_ENV=prod HOT_PATCH_TOKEN=... mix hot_patch.deploy --to https://shop.example.com/patch-api --reason "ticket 4711"
  """

  use Mix.Task

  alias HotPatch.Build
  alias HotPatch.Build.Running
  alias HotPatch.Build.Settings
  alias HotPatch.Command.Target
  alias HotPatch.Command.Upgrade
  alias HotPatch.Host.RunningBuild
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
    in_place: :boolean,
    dry_run: :boolean,
    yes: :boolean,
    cookie: :string,
    cacert: :string,
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

    if own[:to] == nil,
      do: stop(2, "--to is missing: any node of the cluster, or the address of its page")

    case CommandLine.read(:apply, given) do
      {:ok, apply_options} -> deploy(own, apply_options)
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

  # Whether there is somebody to deploy to is known at once, a release after minutes.
  defp deploy(own, apply_options) do
    built = if own[:release], do: ok!(release(own[:release]))
    target = ok!(Target.open(own[:to], own))
    release = built || ok!(release(nil))

    case own[:in_place] != true && Upgrade.version(target, release) do
      {:ok, version} -> upgrade(target, release, own, {version, apply_options})
      _the_same_or_none -> patch(target, release, own, apply_options)
    end
  end

  defp upgrade(%module{} = target, release, own, {version, apply_options}) do
    if own[:sign] || own[:accept] do
      stop(
        2,
        "--sign and --accept are for patches: build an upgrade with mix hot_patch.build, and upload it"
      )
    end

    say("an upgrade to #{version}: the release is packed and sent")
    id = ok!(module.upload(target, ok!(Upgrade.tarball(release)), own[:name] || "deploy"))
    say(ok!(module.plan(target, id, Keyword.take(apply_options, [:nodes]))))

    if own[:dry_run] do
      _ = module.delete(target, id)
      say("a dry run: #{id} is not kept on #{own[:to]}")
    else
      confirm(own, target, id)
      apply_patch(target, id, apply_options)

      if apply_options[:permanent] in [nil, :never],
        do: say("have a restart boot it: #{module.permanent_line(target, version)}")
    end
  end

  defp patch(target, release, own, apply_options) do
    in_folder(fn folder ->
      {differing, withheld} = mirror(target, release, folder)
      if withheld != [], do: say("not compared: #{Enum.join(withheld, ", ")}")

      case nothing(differing, own, {folder, release}) do
        nil ->
          build(target, own, {folder, release}) |> offer(target, own, apply_options)

        notes ->
          say("nothing differs: #{own[:to]} runs what is in #{release}")
          for note <- notes, do: say("note: #{note}")
      end
    end)
  end

  # Whether there is nothing that a patch could be made of, and what is to be said of what differs all the same; nil where
  # there is something.
  defp nothing(differing, own, {from, to}) do
    cond do
      not Enum.all?(differing, &RunningBuild.settings?/1) -> nil
      differing == [] -> []
      true -> settings(Settings.between(from, to), own[:config_differences] == true)
    end
  end

  defp settings(%{differences: [_ | _]}, true), do: nil
  defp settings(settings, _take?), do: Settings.offered(settings)

  # What is not handed out counts as the same.
  defp mirror(%module{} = target, release, folder) do
    {differing, withheld} = target |> module.source() |> Running.mirror(release, folder)

    for path <- withheld, near = Path.join(release, path), File.regular?(near) do
      folder |> Path.join(path) |> Path.dirname() |> File.mkdir_p!()
      File.cp!(near, Path.join(folder, path))
    end

    {differing, withheld}
  rescue
    error in RuntimeError -> stop(1, error.message)
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

  defp build(target, own, {from, to}) do
    File.mkdir_p!(from)

    # It is sent, and written nowhere here.
    options =
      [from: from, to: to, name: own[:name] || "deploy"] ++
        [accept: Keyword.get_values(own, :accept), dry_run: true, in_place: true] ++
        Keyword.take(own, [:sign, :config_differences]) ++ for_release(target, from)

    built = ok!(Build.run(options))
    say(Build.about(built))
    if built.refusal, do: stop(1, Exception.message(built.refusal)), else: built
  end

  # A system that is no release says itself what it is.
  defp for_release(%module{} = target, from) do
    if Folder.matching(from, "releases/*/*.rel") == [],
      do: [for: ok!(module.release(target))],
      else: []
  end

  defp offer(built, %module{} = target, own, apply_options) do
    if own[:dry_run] do
      say("a dry run: nothing was sent to #{own[:to]}")
    else
      id = ok!(module.upload(target, built.zip, own[:name] || "deploy"))
      say(ok!(module.plan(target, id, Keyword.take(apply_options, [:nodes]))))
      confirm(own, target, id)
      apply_patch(target, id, apply_options)
    end
  end

  defp confirm(own, %module{} = target, id) do
    unless own[:yes] ||
             (terminal?() && Mix.shell().yes?("Apply #{id} to all nodes?", default: :no)) do
      _ = module.delete(target, id)

      stop(
        3,
        "not confirmed: nothing was changed#{if terminal?(), do: "", else: "; --yes applies it without asking"}"
      )
    end
  end

  defp apply_patch(%module{} = target, id, options) do
    %{text: text, everywhere?: everywhere?} = ok!(module.apply(target, id, options, terminal?()))

    say(text)
    back = "take it back: #{module.rollback_line(target, id)}"

    # Read back on every node: code and files are what was sent.
    if everywhere?,
      do: say(back),
      else: stop(1, "#{id} is not on every node as it should be, see the report; #{back}")
  end

  defp terminal?, do: match?({:ok, _columns}, :io.columns())
  defp say(text), do: text |> String.trim_trailing() |> Printable.lines() |> Mix.shell().info()

  defp ok!({:ok, result}), do: result

  defp ok!({:error, {text, report}}) do
    if report, do: say(report)
    stop(1, text)
  end

  defp ok!({:error, error}) when is_exception(error), do: stop(1, Exception.message(error))
  defp ok!({:error, text}), do: stop(1, text)

  @spec stop(1..3, String.t()) :: no_return()
  defp stop(code, text) do
    Mix.shell().error("hot_patch.deploy: #{Printable.lines(text)}")
    exit({:shutdown, code})
  end
end
