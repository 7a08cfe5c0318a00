defmodule Mix.Tasks.HotPatch.Sign do
  @shortdoc "Signs a patch that was built before"

  @moduledoc """
  Signs a patch, for instance on a machine that has the key but not the builds.

      mix hot_patch.sign fix.zip --key KEY [--out signed.zip]

  The signature covers the key's name, the manifest and every file. Any that the patch has already is replaced.
  Look at what you sign: the composition is shown.

  ## Options

  #{HotPatch.Options.CommandLine.docs([:sign])}
    * `--help` - this text

  ## Exit codes

    * 0 - it is signed
    * 1 - the archive or the key is not fit for it; the message says why
    * 2 - wrong usage
  """

  use Mix.Task

  alias HotPatch.Build
  alias HotPatch.Build.CLI
  alias HotPatch.Options.CommandLine

  @impl Mix.Task
  def run(args) do
    switches = [{:help, :boolean} | CommandLine.switches(:sign)]

    CLI.task("sign", args, [help: @moduledoc, switches: switches], fn options ->
      case {options[:arguments], options[:key]} do
        {[archive], key} when is_binary(key) -> Build.sign(archive, key, options[:out])
        _ -> {:usage, "name one archive and the key: mix hot_patch.sign fix.zip --key KEY"}
      end
    end)
  end
end
