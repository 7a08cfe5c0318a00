defmodule Mix.Tasks.HotPatch.Appup do
  @shortdoc "Writes a classic .appup from two builds of an application"

  @moduledoc """
  Writes an `.appup` for OTP's `release_handler` from two builds of an application.

      mix hot_patch.appup --from PATH --to PATH [--out FILE] [--restart] [--accept NAME]

  Both paths are folders of the application (with `ebin` in it) or its `ebin` itself. The builds
  are analysed both ways (see `HotPatch.Analysis`), and each module gets the instruction that it
  needs: `add_module`, `load_module`, `update` in the form for its kind and with the modules it
  calls as its dependencies, `delete_module`.

  ## Options

  #{HotPatch.Options.CommandLine.docs([:appup])}
  """

  use Mix.Task

  alias HotPatch.Analysis
  alias HotPatch.Analysis.Finding
  alias HotPatch.Options
  alias HotPatch.Options.CommandLine
  alias HotPatch.Support.Folder
  alias HotPatch.Support.Printable

  @impl Mix.Task
  def run(args) do
    Mix.Task.run("loadpaths")
    options = options(args)
    from = build!(options, :from)
    to = build!(options, :to)

    if from.name != to.name do
      stop("--from is a build of #{from.name} and --to of #{to.name}: give two of one")
    end

    up = analyse!(from, to)
    Enum.each(up.findings, &tell/1)
    stop_unless_accepted(up, options.accept)
    text = appup!(from, to, options.restart or from.mod != to.mod)
    write!(options.out || Path.join(to.ebin, "#{to.name}.appup"), text)
  end

  defp options(args) do
    case OptionParser.parse(args, strict: CommandLine.switches(:appup)) do
      {given, [], []} ->
        valid(given)

      {_options, rest, invalid} ->
        words = rest ++ Enum.map(invalid, &elem(&1, 0))

        stop("#{Enum.join(words, " ")} is not understood: see mix help hot_patch.appup")
    end
  end

  defp valid(given) do
    with {:ok, options} <- CommandLine.read(:appup, given),
         :ok <- CommandLine.complete(:appup, options),
         {:ok, options} <- Options.validate(:appup, options) do
      options
    else
      {_error_or_unknown, what} -> stop(wrong(what))
    end
  end

  defp wrong(text) when is_binary(text), do: text
  defp wrong(option) when is_atom(option), do: "--#{option} is not understood"
  defp wrong(error), do: Exception.message(error)

  defp build!(options, key) do
    path = Map.fetch!(options, key)
    ebin = if File.dir?(Path.join(path, "ebin")), do: Path.join(path, "ebin"), else: path

    with [file] <- Folder.files(ebin, ".app"),
         {:ok, [{:application, name, properties}]} <- :file.consult(file) do
      %{
        name: Atom.to_string(name),
        vsn: to_string(properties[:vsn]),
        mod: properties[:mod],
        ebin: ebin,
        modules: ebin |> Folder.files(".beam") |> Enum.map(&File.read!/1)
      }
    else
      _none_or_damaged ->
        stop("#{ebin} is no build: one readable .app file must be in it")
    end
  end

  defp analyse!(from, to) do
    case Analysis.run(from.modules, to.modules, deleted: :rest) do
      {:ok, analysis} -> analysis
      {:error, error} -> stop(Exception.message(error))
    end
  end

  defp appup!(from, to, restart?) do
    case Analysis.appup(from.name, {from.vsn, from.modules}, {to.vsn, to.modules}, restart?) do
      {:ok, text} -> text
      {:error, error} -> stop(Exception.message(error))
    end
  end

  # Most modules of a build are the same in the next.
  defp tell(%Finding{name: :module_unchanged}), do: :ok
  defp tell(finding), do: Mix.shell().info(to_string(finding))

  defp stop_unless_accepted(analysis, accepted) do
    case Analysis.refused(analysis, accepted) do
      [] ->
        :ok

      findings ->
        names = findings |> Enum.map(& &1.name) |> Enum.uniq()

        stop(
          "nothing was written because of what was found; to write it all the same: " <>
            Enum.map_join(names, " ", &"--accept #{&1}")
        )
    end
  end

  defp write!(path, text) do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
    Mix.shell().info("wrote #{Printable.line(path)}")
  end

  @spec stop(String.t()) :: no_return()
  defp stop(text), do: Mix.raise("hot_patch.appup: " <> Printable.line(text))
end
