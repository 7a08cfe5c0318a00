defmodule HotPatch.Build.Protocols do
  @moduledoc false
  # Consolidated protocols know their implementations by heart, and lie beside the release's boot script, in
  # no application: no instruction of an appup reaches them. A protocol whose implementations change is
  # loaded from its application instead, where it is not consolidated and asks for them as it goes.

  alias HotPatch.Build.Appup
  alias HotPatch.Build.ReleaseFolder
  alias HotPatch.Error

  @doc """
  The protocols that have other implementations in the second release, and the appups with what loads them.
  """
  @spec carry(ReleaseFolder.t(), ReleaseFolder.t(), [Appup.t()]) ::
          {:ok, [String.t()], [Appup.t()]} | {:error, Error.t()}
  def carry(from, to, appups) do
    changed = changed(from, to)

    with :ok <- all_there(changed, [from, to]),
         {rest, [last]} when changed != [] <- Enum.split(appups, -1) do
      up = loads(changed, to, appups, :up)
      down = loads(changed, from, appups, :down)
      {:ok, changed, rest ++ [%{last | up: last.up ++ up, down: last.down ++ down}]}
    else
      {:error, error} -> {:error, error}
      {_none, []} when changed != [] -> nowhere(changed)
      _nothing_changed -> {:ok, [], appups}
    end
  end

  defp all_there(changed, releases) do
    missing =
      for name <- changed,
          release <- releases,
          not Enum.any?(release.applications, &has?(&1, name)),
          do: "#{name} of #{ReleaseFolder.text(release)}"

    if missing == [], do: :ok, else: homeless(missing)
  end

  defp homeless(missing) do
    text =
      "relup: no application of the release has the protocol #{Enum.join(missing, ", ")}, which is consolidated " <>
        "there: build the release again"

    {:error, Error.new(:build, text)}
  end

  @doc "The digest of a module's code, without what only people read."
  @spec md5(Path.t()) :: binary()
  def md5(file) do
    bytes = File.read!(file)

    case :beam_lib.md5(bytes) do
      {:ok, {_module, md5}} -> md5
      {:error, :beam_lib, _damaged} -> bytes
    end
  end

  defp changed(from, to) do
    later = ReleaseFolder.protocols(to)

    for {name, before} <- ReleaseFolder.protocols(from),
        file = later[name],
        md5(before) != md5(file),
        do: name
  end

  # One that changes itself is loaded by its application's own instructions.
  defp loads(changed, release, appups, direction) do
    for name <- changed,
        application = Enum.find(release.applications, &has?(&1, name)),
        not loaded?(name, appups, direction) do
      module = String.to_atom(name)
      code = {String.to_atom(application.name), to_charlist(application.version), [module]}
      [{:load_object_code, code}, {:load, {module, :brutal_purge, :brutal_purge}}]
    end
    |> List.flatten()
  end

  defp has?(application, name), do: File.exists?(Path.join(application.ebin, name <> ".beam"))

  defp loaded?(name, appups, direction) do
    for appup <- appups, instruction <- Map.fetch!(appup, direction), is_tuple(instruction) do
      tuple_size(instruction) > 1 and to_string_if_atom(elem(instruction, 1)) == name
    end
    |> Enum.any?()
  end

  defp to_string_if_atom(name) when is_atom(name), do: Atom.to_string(name)
  defp to_string_if_atom(_other), do: nil

  # systools takes instructions from the appups of applications that change their version alone.
  defp nowhere(changed) do
    text =
      "relup: the implementations of #{Enum.join(changed, ", ")} change, and no application changes its " <>
        "version whose instructions could load them: raise the version of one that is in both releases"

    {:error, Error.new(:build, text)}
  end
end
