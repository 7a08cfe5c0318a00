defmodule HotPatch.Host.Trust do
  @moduledoc false
  # Whose patches this node takes: its own configuration, its own verification. Asked where a
  # patch is uploaded and again on every node.
  #
  #     config :hot_patch, require_manifest: true, require_signature: true, trusted_keys: [...]
  #
  # A signature that is wrong is never let through: somebody has changed what was signed.

  alias HotPatch.Composition.Entry
  alias HotPatch.Error
  alias HotPatch.Host.Config
  alias HotPatch.Host.Keys
  alias HotPatch.Manifest
  alias HotPatch.Signature

  @typedoc "A composition, or what a coordinator sends of one."
  @type signed :: %{
          :manifest => Manifest.t() | nil,
          :signature => Signature.t() | nil,
          optional(atom()) => term()
        }

  @doc "Whether this node may take such a patch."
  @spec check(signed(), [Entry.t()]) :: :ok | {:error, Error.t()}
  def check(patch, entries) do
    with :ok <- declared(patch), do: verified(patch, entries)
  end

  defp declared(%{manifest: nil}) do
    cond do
      required?(:require_signature) -> unsigned()
      required?(:require_manifest) -> undeclared()
      true -> :ok
    end
  end

  defp declared(_patch), do: :ok

  defp verified(%{signature: nil}, _entries) do
    if required?(:require_signature), do: unsigned(), else: :ok
  end

  defp verified(%{signature: signature, manifest: manifest}, entries) do
    if Signature.genuine?(signature, manifest.bytes, entries),
      do: trusted(signature),
      else:
        bad(
          "the signature by #{claimed(signature)} is wrong: the manifest, a file, or the signer's name is " <>
            "not what was signed; get the patch again from the one who built it"
        )
  end

  defp trusted(signature) do
    keys = Config.current().trusted_keys

    if not required?(:require_signature) or find(keys, signature),
      do: :ok,
      else: stranger(signature, keys)
  end

  defp stranger(signature, keys) do
    bad(
      "it is signed by #{claimed(signature)}, which is none of the keys that #{node()} trusts " <>
        "(#{names(keys)}): have it signed by one of them, or add the key to config :hot_patch, trusted_keys: [...]"
    )
  end

  defp names([]), do: Config.warning(:trusted_keys) || "there are none"
  defp names(keys), do: Enum.map_join(keys, ", ", &Keys.label/1)

  defp unsigned do
    bad(
      "it is not signed, and #{node()} takes signed patches only (config :hot_patch, " <>
        "require_signature: true): build it with mix hot_patch.build --sign KEY"
    )
  end

  defp undeclared do
    {:error,
     Error.new(
       :no_manifest,
       "it has no manifest, and #{node()} takes none without (config :hot_patch, require_manifest: true): " <>
         "build it with mix hot_patch.build"
     )}
  end

  defp bad(text), do: {:error, Error.new(:bad_signature, text)}

  @doc "By whom a patch is signed, as this node knows it; nil if by nobody."
  @spec signer(signed()) :: String.t() | nil
  def signer(%{signature: %Signature{} = signature}) do
    case find(Config.current().trusted_keys, signature) do
      nil -> claimed(signature) <> ", a key that is not trusted here"
      key -> Keys.label(%{key | name: key.name || signature.name})
    end
  end

  def signer(_unsigned), do: nil

  defp find(keys, signature), do: Enum.find(keys, &(&1.public == signature.key))

  # The holder of the key has chosen its name: the signature covers it, but nobody vouches for it.
  defp claimed(signature), do: Keys.label(%{name: signature.name, public: signature.key})

  defp required?(key), do: Map.fetch!(Config.current(), key)
end
