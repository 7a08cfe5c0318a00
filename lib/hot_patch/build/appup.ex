defmodule HotPatch.Build.Appup do
  @moduledoc false
  # How one application gets from a version to the next and back, for OTP's release handler: by the `.appup`
  # that its authors have written, where that has the way, else by what the analysis finds.

  alias HotPatch.Analysis
  alias HotPatch.Build.ReleaseFolder
  alias HotPatch.Build.Systools
  alias HotPatch.Error
  alias HotPatch.Host.SystemLibrary

  @typedoc "Where the instructions of one direction are from."
  @type origin :: :own | :analysis | :restart

  @type t :: %__MODULE__{
          application: String.t(),
          from: String.t(),
          to: String.t(),
          up: [tuple() | atom()],
          down: [tuple() | atom()],
          origins: %{up: origin(), down: origin()},
          own?: boolean()
        }
  @enforce_keys [:application, :from, :to, :up, :down, :origins, :own?]
  defstruct @enforce_keys

  # The first line of a file that was made here. Such a file is made again, and never taken for one that
  # somebody has written.
  @mark "%% Made by mix hot_patch.relup, which makes it again. Without this line it counts as written by hand.\n"

  @doc "The appup of an application in two versions; `restart?`: by a restart where its authors say nothing."
  @spec make(ReleaseFolder.application(), ReleaseFolder.application(), boolean()) ::
          {:ok, t()} | {:error, Error.t()}
  def make(from, to, restart?) do
    own = own(from, to)

    with {:ok, made} <- made(from, to, restart?, own) do
      [up, down] = for direction <- [:up, :down], do: own[direction] || made[direction]

      {:ok,
       %__MODULE__{
         application: to.name,
         from: from.version,
         to: to.version,
         up: elem(up, 1),
         down: elem(down, 1),
         origins: %{up: elem(up, 0), down: elem(down, 0)},
         own?: File.exists?(file(to)) and not made_here?(file(to))
       }}
    end
  end

  @doc "The text of the file, as it is written where there is none."
  @spec text(t()) :: iodata()
  def text(%__MODULE__{} = appup) do
    from = to_charlist(appup.from)
    term = {to_charlist(appup.to), [{from, appup.up}], [{from, appup.down}]}
    written = :unicode.characters_to_binary(:io_lib.format("~tp.~n", [term]))
    [@mark, "%% coding: utf-8\n", written]
  end

  defp own(from, to) do
    vsn = to_charlist(to.version)

    with false <- made_here?(file(to)),
         {:ok, [{^vsn, ups, downs}]} when is_list(ups) and is_list(downs) <-
           :file.consult(file(to)) do
      %{up: covering(ups, from), down: covering(downs, from)}
    else
      _none -> %{up: nil, down: nil}
    end
  end

  defp covering(scripts, from) do
    case Systools.covering(scripts, from.version) do
      {:ok, script} -> {:own, script}
      :error -> nil
    end
  end

  defp made(_from, _to, _restart?, %{up: {:own, _}, down: {:own, _}}), do: {:ok, %{}}

  defp made(from, to, restart?, _own) do
    if SystemLibrary.application?(to.name),
      do: refused(from, to),
      else: analysed(from, to, restart?)
  end

  defp refused(from, to) do
    text =
      "relup: #{to.name} is #{from.version} in one release and #{to.version} in the other, and has no .appup " <>
        "for that. #{SystemLibrary.owner(to.name)} is not changed live without one: " <>
        "build both with the same, or restart the nodes into the new release"

    {:error, Error.new(:build, text)}
  end

  defp analysed(from, to, restart?) do
    with {:ok, before} <- ReleaseFolder.properties(from),
         {:ok, later} <- ReleaseFolder.properties(to),
         restart? = restart? or before[:mod] != later[:mod],
         {:ok, text} <- Analysis.appup(to.name, side(from), side(to), restart?) do
      {:ok, tokens, _end} = :erl_scan.string(to_charlist(text))
      {:ok, {_vsn, [{_, up}], [{_, down}]}} = :erl_parse.parse_term(tokens)
      origin = if restart?, do: :restart, else: :analysis
      {:ok, %{up: {origin, up}, down: {origin, down}}}
    end
  end

  defp side(application) do
    files = application.ebin |> ReleaseFolder.modules() |> Map.values()
    {application.version, Enum.map(files, &File.read!/1)}
  end

  defp made_here?(file) do
    case File.open(file, [:read], &IO.binread(&1, byte_size(@mark))) do
      {:ok, start} -> start == @mark
      {:error, _posix} -> false
    end
  end

  @doc "Where an application has it."
  @spec file(ReleaseFolder.application()) :: Path.t()
  def file(application), do: Path.join(application.ebin, application.name <> ".appup")
end
