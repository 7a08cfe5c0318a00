defmodule Mix.Tasks.HotPatch.Build do
  @shortdoc "Builds a patch, or an upgrade, from two builds of the system"

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
  information or documentation; settings (see `--config` and `--config-differences`); applications of OTP, of Elixir and
  HotPatch itself, which change with an upgrade. Notes say what was left out.

  Of two versions of one release an **upgrade** is made, which takes the system from the one to the other: whole
  folders of the applications that change, all that belongs to the new release itself (boot script, configuration,
  consolidated protocols), and of the rest a digest. It is uploaded, checked, applied and rolled back as a patch is. It goes as the
  release's own `relup` says where that has the way, else each application as its own `.appup` says where that names the former version,
  else as the analysis finds; supervisors whose `init` changes start
  what is new in it and stop what is gone. An application of the same version must be the same in both. With
  `--in-place` a patch of the version that runs is made instead.

  What the change means is shown with it: which modules change for whom, and what stands out (see
  `HotPatch.Analysis`). What is dangerous refuses the patch, unless it is accepted by name; the
  message says how. What was accepted is written into the patch, and into the journal of every
  node that applies it.

  The same inputs give the same archive, byte for byte.

  ## Options

  #{HotPatch.Options.CommandLine.docs([:build])}
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
      mix hot_patch.build --from my_app-1.0.0.tar.gz --to my_app-1.1.0.tar.gz --out upgrade.zip
  """

  use Mix.Task

  alias HotPatch.Build
  alias HotPatch.Build.CLI
  alias HotPatch.Options.CommandLine

  @impl Mix.Task
  def run(args) do
    switches = [{:help, :boolean} | CommandLine.switches(:build)]

    CLI.task("build", args, [help: @moduledoc, switches: switches], fn given ->
      with {:ok, options} <- CommandLine.read(:build, Keyword.delete(given, :help)) do
        options
        |> to()
        |> Keyword.put(:progress, &CLI.progress/2)
        |> Build.run()
        |> shown()
      else
        {:error, text} -> {:usage, text}
      end
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
end
