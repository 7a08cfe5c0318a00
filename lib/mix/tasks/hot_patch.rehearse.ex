defmodule Mix.Tasks.HotPatch.Rehearse do
  @shortdoc "Tries a patch on nodes of the release that runs, before anybody else gets it"

  @moduledoc """
  Boots the release that runs, on this machine, under a load, and does to its nodes what will be done to the system:
  rehearses the patch on their states, applies it, watches, rolls it back, applies it again, restarts a node.

      mix hot_patch.rehearse --from RELEASE --to BUILD [--load LOAD.exs] [--nodes 3]
      mix hot_patch.rehearse --from RELEASE --patch fix.zip --junit report.xml
      mix hot_patch.rehearse --from RELEASE --to BUILD --load LOAD.exs --replay 10
      mix hot_patch.rehearse --init load.exs

  The nodes are copies of the release in folders of their own, on the loopback interface, with a cookie of their own;
  they are ended and removed afterwards, and their logs are kept. See `HotPatch.Proving`. Without Mix:

      bin/my_app eval 'IO.puts elem(HotPatch.Proving.run(from: "/opt/my_app", patch: "fix.zip"), 1)'

  ## Options

  #{HotPatch.Options.CommandLine.docs([:prove])}
    * `--init FILE` - writes a load script to start from, and does nothing else
    * `--json FILE` - writes the result there as JSON
    * `--junit FILE` - writes it there as JUnit's XML, for CI
    * `--help` - this text

  ## Exit codes

    * 0 - all steps went well
    * 1 - one failed, or it could not be begun; the table, or the message, says why
    * 2 - wrong usage
  """

  use Mix.Task

  alias HotPatch.Build.CLI
  alias HotPatch.Options.CommandLine
  alias HotPatch.Proving

  @own [init: :string, json: :string, junit: :string]

  @impl Mix.Task
  def run(args) do
    switches = [{:help, :boolean} | @own] ++ CommandLine.switches(:prove)

    CLI.task("rehearse", args, [help: @moduledoc, switches: switches], fn given ->
      {own, given} = given |> Keyword.delete(:help) |> Keyword.split(Keyword.keys(@own))
      if own[:init], do: init(own[:init]), else: prove(own, given)
    end)
  end

  defp init(path) do
    # Nobody's own script is written over.
    case File.write(path, Proving.load_script(), [:exclusive]) do
      :ok -> {:ok, "#{path} is written: see HotPatch.Proving.Load"}
      {:error, posix} -> file(path, posix)
    end
  end

  defp prove(own, given) do
    with {:ok, options} <- CommandLine.read(:prove, given),
         :ok <- CommandLine.complete(:prove, options),
         {:ok, proving} <- Proving.run(options),
         {:ok, json} <- HotPatch.to_json(proving),
         :ok <- written(own[:json], json),
         :ok <- written(own[:junit], Proving.junit(proving)) do
      shown(proving)
    else
      {:error, text} when is_binary(text) -> {:usage, text}
      {:unknown, option} -> {:usage, "--#{CommandLine.name(option)} is no option of this task"}
      error -> error
    end
  end

  defp shown(%Proving{outcome: :ok} = proving), do: {:ok, proving}

  defp shown(proving) do
    IO.puts(proving)
    failed = Enum.find(proving.steps, &(&1.outcome == :failed))
    {:error, HotPatch.Error.new(:failed, "#{failed.name}: #{failed.text}")}
  end

  defp written(nil, _text), do: :ok

  defp written(path, text) do
    with {:error, posix} <- File.write(path, text), do: file(path, posix)
  end

  defp file(path, posix) do
    {:error, HotPatch.Error.new(:file, "cannot write #{path}: #{:file.format_error(posix)}")}
  end
end
