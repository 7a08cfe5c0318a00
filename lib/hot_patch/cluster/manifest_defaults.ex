defmodule HotPatch.Cluster.ManifestDefaults do
  @moduledoc false
  # What a manifest says of how a patch is to be applied holds unless the caller says otherwise;
  # where he does, that is written down.

  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.Payload

  @options [:transition, :on_load, :cumulative]

  @typedoc "By option: what the manifest says, and what was given in its place."
  @type overridden :: Manifest.overridden()

  @doc "What is to be set: the caller's settings, and those of the manifest that he has none for."
  @spec config([{atom(), keyword()}], Manifest.t() | nil) :: [Payload.setting()]
  def config(given, manifest) do
    own = for {application, keys} <- given, {key, value} <- keys, do: {application, key, value}
    mine = for {application, key, _value} <- own, do: {"#{application}", "#{key}"}

    declared =
      for %{application: application, key: key, value: text} <-
            (manifest && manifest.config) || [],
          {application, key} not in mine,
          do: {application, key, {:text, text}}

    own ++ declared
  end

  @doc "The options of a call with those of the manifest; `given` are those of the caller."
  @spec options(map(), keyword(), Manifest.t() | nil) :: {map(), overridden()}
  def options(options, _given, nil), do: {options, %{}}

  def options(options, given, manifest) do
    Enum.reduce(@options, {options, %{}}, fn option, {options, overridden} ->
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
