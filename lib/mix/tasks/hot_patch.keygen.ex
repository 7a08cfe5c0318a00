defmodule Mix.Tasks.HotPatch.Keygen do
  @shortdoc "Makes a pair of keys to sign patches with"

  @moduledoc """
  Makes an Ed25519 key pair to sign patches with.

      mix hot_patch.keygen PATH [--name NAME]

  Two files are made, and none is ever overwritten:

    * `PATH` - the secret key, readable by you alone (mode 0600). Whoever has it can sign patches:
      keep it off the nodes, on the machine where patches are built. It is PEM, as
      `openssl genpkey -algorithm ed25519` makes it, with the key's name in a line above.
    * `PATH.pub` - the public key, one line: `hot_patch-ed25519 BASE64 NAME`. It is no secret.

  Then:

    1. Tell every node to trust it, and to take nothing else, in its configuration. A trusted key is
       that line, its Base64 alone, or the path of such a file on the node:

           config :hot_patch,
             require_signature: true,
             trusted_keys: ["hot_patch-ed25519 BASE64 NAME"]

    2. Sign: `mix hot_patch.build --from ... --to ... --out fix.zip --sign PATH`, or
       `mix hot_patch.sign fix.zip --key PATH` for a patch that is there already.

  The node to which a patch is uploaded verifies it, and so does every node again before it
  loads anything, each by its own configuration. The key's name is in all reports and in the
  journal. To replace a key, let the nodes trust both for a while; to withdraw one, take it out
  of their configuration.

  ## Options

  #{HotPatch.Options.CommandLine.docs([:keygen])}
    * `--help` - this text

  ## Exit codes

    * 0 - the keys are made
    * 1 - they cannot be written; the message says why
    * 2 - wrong usage
  """

  use Mix.Task

  alias HotPatch.Build.CLI
  alias HotPatch.Host.Keys
  alias HotPatch.Options.CommandLine
  alias HotPatch.Support.OSUser
  alias HotPatch.Support.Printable

  @impl Mix.Task
  def run(args) do
    switches = [{:help, :boolean} | CommandLine.switches(:keygen)]

    CLI.task("keygen", args, [help: @moduledoc, switches: switches], fn options ->
      case options[:arguments] do
        [path] -> generate(path, options[:name] || default_name())
        _ -> {:usage, "say where the secret key is to go: mix hot_patch.keygen PATH"}
      end
    end)
  end

  defp generate(path, name) do
    with {:ok, key} <- Keys.generate(path, name) do
      {:ok,
       "secret key: #{Printable.line(path)} (mode 0600, keep it off the nodes)\n" <>
         "public key: #{Printable.line(path)}.pub\n" <>
         "id in reports: #{Keys.label(key)}\n\n" <>
         "config :hot_patch,\n" <>
         "  require_signature: true,\n" <>
         "  trusted_keys: [\"#{Keys.line(key)}\"]\n"}
    end
  end

  defp default_name do
    {:ok, host} = :inet.gethostname()
    String.replace("#{OSUser.name()}@#{host}", ~r/[^\w@.+-]/u, "_")
  end
end
