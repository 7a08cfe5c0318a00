defmodule Mix.Tasks.HotPatch.Build do
  @shortdoc "Builds a patch from two builds of the system"

  @moduledoc """
  Compares two builds module by module and writes what differs as a patch.

      mix hot_patch.build --from BUILD --to BUILD --out fix.zip
      mix hot_patch.build --modules MyApp.Billing,my_gen --out fix.zip

  A BUILD is a release or its tar (`mix release`, rebar3, reltool), a `_build/ENV` folder, or a
  folder of applications. `--from` is the one that runs: files are named as there, and every node
  checks that it runs the very modules that the patch takes the place of. `--to` is the repaired
  one; without it this project is compiled and its build is taken. It is compiled also where its build
  is named.

  What is taken: modules whose code or `vsn` differs, new and removed modules, those that move from
  one application to another, consolidated protocols, files below `priv`. What is not: modules that differ only in line numbers, debug
  information or documentation; settings (see `--config`); applications of OTP, of Elixir and
  HotPatch itself, which change with an upgrade. Notes say what was left out.

  What the change means is shown with it: which modules change for whom, and what stands out (see
  `HotPatch.Analysis`). What is dangerous refuses the patch, unless it is accepted by name; the
  message says how. What was accepted is written into the patch, and into the journal of every
  node that applies it.

  The same inputs give the same archive, byte for byte.

  ## Options

    * `--from BUILD`, `--to BUILD`, `--out FILE` - see above
    * `--modules A,B` - only these modules, whether they differ or not; without `--from` no node can
      check what they take the place of
    * `--all-differences` - also modules that differ only in what does not run
    * `--dry-run` - show what the patch would hold, and write nothing
    * `--sign KEY` - sign it with a secret key, see `mix hot_patch.keygen`
    * `--for NAME-VERSION` - the release that it is for, where `--from` does not say it
    * `--name NAME` - default: the name of the file
    * `--author WHO`, `--text TEXT` - for those who apply it
    * `--transition suspend|none|compatible`, `--on-load restart|load`, `--cumulative` - how it is to be
      applied, unless the operator says otherwise
    * `--config APP.KEY=TERM` - a change of an application's environment, made in the same step; may
      be given several times
    * `--accept NAME[:MODULE]` - build it although this was found; may be given several times
    * `--help` - this text

  ## Exit codes

    * 0 - the patch is built
    * 1 - there is nothing to patch, it looks dangerous, or a build or a key is not fit for it; the
      message says why
    * 2 - wrong usage

  ## Examples

      mix hot_patch.build --from my_app-1.2.0.tar.gz --to _build/prod/rel/my_app --out fix.zip --dry-run
      MIX_ENV=prod mix hot_patch.build --from /opt/my_app --out fix.zip --sign ~/.hot_patch/alice
      mix hot_patch.build --from old --to new --out fix.zip --transition none --config my_app.limit=100
  """

  use Mix.Task

  alias HotPatch.Build
  alias HotPatch.Build.CLI

  @switches [
    from: :string,
    to: :string,
    out: :string,
    modules: :string,
    all_differences: :boolean,
    dry_run: :boolean,
    sign: :string,
    for: :string,
    name: :string,
    author: :string,
    text: :string,
    transition: :string,
    on_load: :string,
    cumulative: :boolean,
    config: :keep,
    accept: :keep,
    help: :boolean
  ]

  @words %{
    "suspend" => :suspend,
    "none" => :none,
    "compatible" => :compatible,
    "restart" => :restart,
    "load" => :load
  }

  @impl Mix.Task
  def run(args) do
    CLI.task("build", args, [help: @moduledoc, switches: @switches], fn options ->
      options
      |> to()
      |> translated()
      |> Keyword.put(:progress, &CLI.progress/2)
      |> Build.run()
      |> shown()
    end)
  end

  # A trial shows all of it, and then ends as the build would.
  defp shown({:ok, %Build{refusal: %{} = refusal} = built}) do
    IO.puts(built)
    {:error, refusal}
  end

  defp shown(result), do: result

  # Without another the project as it is now. Its build is made whole also where it is named: Mix
  # of Elixir 1.20 removes the consolidated protocols when it looks for a task in a dependency by path.
  defp to(options) do
    own = Mix.Project.build_path()
    if Path.expand(options[:to] || own) == own, do: Mix.Task.run("compile")
    Keyword.put_new(options, :to, own)
  end

  defp translated(options) do
    lists =
      for {option, values} <- [
            config: Keyword.get_values(options, :config),
            accept: Keyword.get_values(options, :accept)
          ],
          values != [],
          do: {option, values}

    options
    |> Keyword.drop([:config, :accept])
    |> Keyword.merge(lists)
    |> Keyword.replace_lazy(:modules, &String.split(&1, ",", trim: true))
    |> Keyword.replace_lazy(:transition, &Map.get(@words, &1, &1))
    |> Keyword.replace_lazy(:on_load, &Map.get(@words, &1, &1))
  end
end
