defmodule HotPatch.Signature do
  @moduledoc """
  The signature of a patch: Ed25519 over its manifest and all its files.

  What is signed is a text of one line for the manifest and one for each file, sorted by path,
  exactly as `sha256sum` prints them for the unpacked archive:

      <SHA-256 in hex><two spaces><path><newline>

  So it can be verified by hand, and every byte that is loaded or written is covered also where
  nobody can read the manifest's JSON. Fields:

    * `:key` - the public key, 32 bytes
    * `:name` - what the one who signed calls the key: a claim
    * `:signature` - 64 bytes
  """

  alias HotPatch.Composition.Entry

  @manifest "hot_patch.json"

  @type t :: %__MODULE__{key: binary(), name: String.t(), signature: binary()}
  @enforce_keys [:key, :name, :signature]
  defstruct [:key, :name, :signature]

  @doc false
  @spec new(map() | nil) :: t() | nil
  def new(nil), do: nil

  # Base64 that is none gives a key that verifies nothing.
  def new(content) do
    %__MODULE__{
      key: decode(content["key"]),
      name: content["name"],
      signature: decode(content["signature"])
    }
  end

  defp decode(text) do
    case Base.decode64(text) do
      {:ok, bytes} -> bytes
      :error -> <<>>
    end
  end

  @doc "The text that is signed."
  @spec statement(binary(), [Entry.t()]) :: binary()
  def statement(manifest, entries) do
    # The digests are made here, from the bytes that will be loaded: nobody's word is taken.
    files = for entry <- entries, do: {entry.path, entry.bytes}

    [{@manifest, manifest} | files]
    |> Enum.sort()
    |> Enum.map(fn {path, bytes} ->
      [Base.encode16(:crypto.hash(:sha256, bytes), case: :lower), "  ", path, "\n"]
    end)
    |> IO.iodata_to_binary()
  end

  @doc "Whether the key that it names has signed this."
  @spec genuine?(t(), binary(), [Entry.t()]) :: boolean()
  def genuine?(%__MODULE__{key: key, signature: signature}, manifest, entries) do
    byte_size(key) == 32 and byte_size(signature) == 64 and
      :crypto.verify(:eddsa, :none, statement(manifest, entries), signature, [key, :ed25519])
  end

  @doc "The entry `hot_patch.sig`, for a secret key and what it signs."
  @spec make(HotPatch.Keys.secret(), binary(), [Entry.t()]) :: map()
  def make(key, manifest, entries) do
    signature = :crypto.sign(:eddsa, :none, statement(manifest, entries), [key.secret, :ed25519])

    %{
      "algorithm" => "ed25519",
      "key" => Base.encode64(key.public),
      "name" => key.name,
      "signature" => Base.encode64(signature)
    }
  end

  defimpl Inspect do
    def inspect(signature, _options),
      do:
        HotPatch.Printable.line(
          "#HotPatch.Signature<#{HotPatch.Keys.id(signature.key)} #{inspect(signature.name)}>"
        )
  end
end
