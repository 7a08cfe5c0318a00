defmodule HotPatch.Cluster.ManifestDefaults do
  @moduledoc false
  # What a manifest says of how a patch is to be applied holds unless the caller says otherwise;
  # where he does, that is written down.

  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Options
  alias HotPatch.Options.Argument

  @typedoc "By option: what the manifest says, and what was given in its place."
  @type overridden :: Manifest.overridden()

  @doc "What is to be set: the caller's settings, and those of the manifest that he has none for."
  @spec config([{atom(), keyword()}] | [String.t()], Manifest.t() | nil) :: [Payload.setting()]
  def config(given, manifest) do
    own = Enum.flat_map(given, &settings/1)
    mine = for {application, key, _value} <- own, do: {"#{application}", "#{key}"}

    declared =
      for %{application: application, key: key, value: text} <-
            (manifest && manifest.config) || [],
          {application, key} not in mine,
          do: {application, key, {:text, text}}

    own ++ declared
  end

  # Of text no atom is made before the patch is accepted, as of that of a manifest.
  defp settings(text) when is_binary(text) do
    {:ok, {application, key, value}} = Argument.setting(text)
    [{application, key, {:text, value}}]
  end

  defp settings({application, keys}),
    do: for({key, value} <- keys, do: {application, key, value})

  @doc "The options of a call with those of the manifest; `given` are those of the caller."
  @spec options(map(), keyword(), Manifest.t() | nil) :: {map(), overridden()}
  def options(options, _given, nil), do: {options, %{}}

  def options(options, given, manifest) do
    Enum.reduce(Options.declared(), {options, %{}}, fn %{name: option}, {options, overridden} ->
      declared = Map.fetch!(manifest, option)

      cond do
        # Not every call has it.
        not is_map_key(options, option) ->
          {options, overridden}

        not Keyword.has_key?(given, option) ->
          {%{options | option => declared}, overridden}

        options[option] == declared ->
          {options, overridden}

        true ->
          said = %{manifest: declared, given: options[option]}
          {options, Map.put(overridden, option, said)}
      end
    end)
  end
end
