defmodule HotPatch.Build.Systools do
  @moduledoc false
  # OTP's own maker of relups, and its own check of them. It looks for what it needs in folders, so each
  # application has one here for the time of a call, with its resource file and the appup that counts:
  # nothing is written into a release for it, and no name of a folder is taken for a pattern.

  alias HotPatch.Build.ReleaseFolder
  alias HotPatch.Error
  alias HotPatch.Support.Folder
  alias HotPatch.Support.Printable

  @doc "Whether it is here; in a project that does not name sasl among its applications it is brought onto the code path."
  @spec available() :: :ok | {:error, Error.t()}
  def available do
    _found =
      if not Code.ensure_loaded?(:systools) do
        for folder <- Folder.folders(to_string(:code.lib_dir())),
            String.starts_with?(Path.basename(folder), "sasl-"),
            do: Code.append_path(Path.join(folder, "ebin"))
      end

    if Code.ensure_loaded?(:systools),
      do: :ok,
      else: error("OTP's sasl, which has systools, is not here: install it (Debian: erlang-base)")
  end

  @doc """
  The relup between two releases, with these appups in place of any that are in their folders, each as
  application, version and text; and the warnings of systools.
  """
  @spec relup(ReleaseFolder.t(), ReleaseFolder.t(), [{String.t(), String.t(), iodata()}]) ::
          {:ok, tuple(), [String.t()]} | {:error, Error.t()}
  def relup(from, to, appups) do
    stage = Path.join(System.tmp_dir!(), "hot_patch_relup_#{System.pid()}_#{unique()}")

    try do
      [up, down] = for release <- [to, from], do: stage(release, stage, appups)
      paths = [to_charlist(Path.join(stage, "*/ebin"))]
      made = sasl(:systools).make_relup(up, [down], [down], [:silent, :noexec, path: paths])
      checked(made, from, to)
    after
      File.rm_rf!(stage)
    end
  end

  @doc "The script of an appup that leads from a version or to it: by the version itself, or a regular expression."
  @spec covering([{charlist() | binary(), [term()]}], String.t()) :: {:ok, [term()]} | :error
  def covering(scripts, version),
    do: sasl(:systools_relup).appup_search_for_version(to_charlist(version), scripts)

  # Of an application that HotPatch does not need.
  defp sasl(module), do: module

  defp unique, do: System.unique_integer([:positive])

  defp stage_application(%{name: name, version: version, ebin: ebin}, stage, appups) do
    folder = Path.join([stage, "#{name}-#{version}", "ebin"])
    File.mkdir_p!(folder)
    File.cp!(Path.join(ebin, name <> ".app"), Path.join(folder, name <> ".app"))

    case Enum.find(appups, &match?({^name, ^version, _text}, &1)) do
      {_name, _version, text} -> File.write!(Path.join(folder, name <> ".appup"), text)
      nil -> :ok
    end
  end

  # Gives the name of the .rel file, as systools wants it.
  defp stage(release, stage, appups) do
    Enum.each(release.applications, &stage_application(&1, stage, appups))
    name = Path.join(stage, release.version)

    File.write!(name <> ".rel", [
      "%% coding: utf-8\n",
      :io_lib.format("~tp.~n", [release.resource]) |> utf8()
    ])

    to_charlist(name)
  end

  defp utf8(text), do: :unicode.characters_to_binary(text)

  defp checked({:ok, {_vsn, [{_, _, up}], [{_, _, down}]} = relup, module, warnings}, from, to) do
    with :ok <- check(up, to), :ok <- check(down, from) do
      {:ok, relup, for(warning <- warnings, do: said(module, :format_warning, warning))}
    end
  end

  defp checked({:error, module, reason}, _from, _to),
    do: error("systools refuses it: " <> said(module, :format_error, reason))

  # What release_handler itself checks before it begins: above all whether every module has its file.
  defp check(script, release) do
    libraries =
      for %{name: name, version: version, ebin: ebin} <- release.applications,
          do: {String.to_atom(name), to_charlist(version), to_charlist(Path.dirname(ebin))}

    case sasl(:release_handler_1).check_script(script, libraries) do
      {:ok, _unpurged} ->
        :ok

      {:error, reason} ->
        error(
          "release_handler would not carry out the way to #{ReleaseFolder.text(release)}: #{inspect(reason)}"
        )
    end
  end

  defp said(module, function, what) do
    if function_exported?(module, function, 1),
      do: apply(module, function, [what]) |> utf8() |> Printable.line() |> String.trim(),
      else: inspect(what)
  end

  defp error(text), do: {:error, Error.new(:build, "relup: " <> text)}
end
