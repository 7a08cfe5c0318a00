defmodule Mix.Tasks.HotPatch.Relup do
  @shortdoc "Writes a relup from two releases, for OTP's release_handler"

  @moduledoc """
  Compares two releases of a system and writes the `relup` by which OTP's `release_handler` takes nodes from
  one to the other while they run, and back.

      mix hot_patch.relup --from OLD --to NEW

  OLD and NEW are folders of releases, as `mix release` and rebar3 make them, or a `.rel` file in one. A tar has to
  be unpacked before. The file goes to `releases/VERSION/relup` of NEW, where `release_handler` looks for it.

  ## What it does

    * An application that is in both releases with another version has its instructions from its own `.appup`, where
      that has the way from the old version; each direction by itself. Where it has not, they are found by
      comparing the modules (see `HotPatch.Analysis`): what is new is added, what changed is loaded or, where
      processes keep a state, updated. Where the application's callback module is another, or it is named by
      `--restart`, it is restarted.
    * New applications are started and those that are gone are stopped.
    * The instructions are shown, for you to read. The appups that were made are written too, into the folders of
      applications that have none. They are made again by the next run; take their first line away to keep what you
      have changed by hand.
    * `systools` makes the relup of the appups, and `release_handler`'s own check goes over both ways.

  ## What it refuses

    * what looks dangerous in one of the two ways, unless it is accepted by name; the message says how
    * an application whose code differs while its version does not: `release_handler` would change nothing of it
    * another ERTS, and another version of OTP's or Elixir's applications without an appup of their own

  ## How it is installed

  `release_handler` is part of `sasl`, which has to be in both releases (`extra_applications`), and it wants a file
  `releases/RELEASES`, which `mix release` does not write. It is made once, before the node starts with it, with
  the folder of the release as `root`:

      root = ~c"/opt/my_app"
      rel = root ++ ~c"/releases/1.0.0/my_app.rel"
      :ok = :release_handler.create_RELEASES(root, root ++ ~c"/releases", rel, [])

  Then `lib/APP-VERSION` of what is new and `releases/1.1.0` of the new release are put beside those that run, and
  on the node:

      {:ok, _} = :release_handler.set_unpacked(root ++ ~c"/releases/1.1.0/my_app.rel", [])
      {:ok, _, _} = :release_handler.install_release(~c"1.1.0")
      :ok = :release_handler.make_permanent(~c"1.1.0")

  `install_release(~c"1.0.0")` is the way back, and `HotPatch.releases/1` shows where a node is.

  ## What it does not do

  `release_handler` takes `sys.config` as it is: what `runtime.exs` says has to be in there before. It goes node by
  node, kills who runs old code, and takes nothing back when a `code_change` fails: the node restarts. To repair
  one version on all nodes in one step there are patches, see `mix hot_patch.build`.

  ## Options

  #{HotPatch.Options.CommandLine.docs([:relup])}
    * `--help` - this text

  ## Exit codes

    * 0 - the relup is written
    * 1 - it looks dangerous, or the releases are not fit for it; the message says why
    * 2 - wrong usage

  ## Examples

      mix hot_patch.relup --from releases/1.0.0/my_app --to _build/prod/rel/my_app
      mix hot_patch.relup --from old --to new --restart my_web,my_jobs --out relups/1.1.0
  """

  use Mix.Task

  alias HotPatch.Build.CLI
  alias HotPatch.Build.Relup
  alias HotPatch.Options.CommandLine

  @impl Mix.Task
  def run(args) do
    Mix.Task.run("loadpaths")
    switches = [{:help, :boolean} | CommandLine.switches(:relup)]

    CLI.task("relup", args, [help: @moduledoc, switches: switches], fn given ->
      with {:ok, options} <- CommandLine.read(:relup, Keyword.delete(given, :help)),
           :ok <- CommandLine.complete(:relup, options) do
        Relup.run(options)
      else
        {:error, text} -> {:usage, text}
      end
    end)
  end
end
