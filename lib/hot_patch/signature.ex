defmodule HotPatch.Signature do
  @moduledoc """
  The signature of a patch: Ed25519 over the signer's name, the manifest and all files.

  What is signed is a text. Its first line names the signer; one line for the manifest and one for
  each file follow, sorted by path, exactly as `sha256sum` prints them for the unpacked archive; then one
  for each file that is a program, as the archive says, sorted too, because such a file may be run once it is new on a node:

      signed by <name><newline>
      <SHA-256 in hex><two spaces><path><newline>
      program<two spaces><path><newline>

  So it can be verified by hand, and every byte that is loaded or written is covered also where
  nobody can read the manifest's JSON. The name is covered because it is shown: nobody but the
  holder of the key can change it. Fields:

    * `:key` - the public key, 32 bytes
    * `:name` - what the holder of the key calls it
    * `:signature` - 64 bytes
  """

  alias HotPatch.Composition.Entry
  alias HotPatch.Support.Hex

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

  @doc "The text that is signed by a key of this name."
  @spec statement(String.t(), binary(), [Entry.t()]) :: binary()
  def statement(name, manifest, entries) do
    # The digests are made here, from the bytes that will be loaded: nobody's word is taken.
    files = for entry <- entries, do: {entry.path, entry.bytes}

    lines =
      for {path, bytes} <- Enum.sort([{@manifest, manifest} | files]),
          do: [Hex.encode(:crypto.hash(:sha256, bytes)), "  ", path, "\n"]

    programs = for %{executable: true, path: path} <- entries, do: path
    programs = for path <- Enum.sort(programs), do: ["program  ", path, "\n"]
    IO.iodata_to_binary(["signed by ", name, "\n", lines, programs])
  end

  @doc "Whether the key that it names has signed this."
  @spec genuine?(t(), binary(), [Entry.t()]) :: boolean()
  def genuine?(%__MODULE__{key: key, name: name, signature: signature}, manifest, entries) do
    byte_size(key) == 32 and byte_size(signature) == 64 and
      :crypto.verify(:eddsa, :none, statement(name, manifest, entries), signature, [key, :ed25519])
  end

  # The entry `hot_patch.sig`, for a secret key and what it signs.
  @doc false
  @spec make(HotPatch.Host.Keys.secret(), binary(), [Entry.t()]) :: map()
  def make(key, manifest, entries) do
    text = statement(key.name, manifest, entries)
    signature = :crypto.sign(:eddsa, :none, text, [key.secret, :ed25519])

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
        HotPatch.Support.Printable.line(
          "#HotPatch.Signature<#{HotPatch.Host.Keys.id(signature.key)} #{inspect(signature.name)}>"
        )
  end
end
