defmodule HotPatch.Host.Keys do
  @moduledoc false
  # Ed25519 keys as files. The secret one is PEM (PKCS #8), which openssl reads too, with the
  # key's name in a line above; the public one is a line of text:
  #
  #     hot_patch-ed25519 <Base64 of 32 bytes> <name>

  alias HotPatch.Error
  alias HotPatch.Options.Argument
  alias HotPatch.Support.Hex

  @type secret :: %{secret: binary(), public: binary(), name: String.t()}
  @type public :: %{public: binary(), name: String.t() | nil}

  @type_word "hot_patch-ed25519"

  # An Ed25519 key in PKCS #8 is these bytes and its 32 own (RFC 8410).
  @pkcs8 Base.decode16!("302E020100300506032B657004220420")

  @doc "Makes a pair of keys at `path` and `path.pub`."
  @spec generate(Path.t(), String.t()) :: {:ok, public()} | {:error, Error.t()}
  def generate(path, name) do
    [path, name] = Enum.map([path, name], &Argument.text/1)

    {public, secret} = :crypto.generate_key(:eddsa, :ed25519)
    text = "HotPatch signing key, keep it secret\nName: #{name}\n" <> pem(@pkcs8 <> secret)

    with :ok <- name(name),
         :ok <-
           write(path, text, 0o600),
         :ok <- write(path <> ".pub", line(%{public: public, name: name}) <> "\n", 0o644) do
      {:ok, %{public: public, name: name}}
    end
  end

  # All of it fits the one line that PEM may have. What OTP calls its type changes with versions.
  defp pem(der) do
    "-----BEGIN PRIVATE KEY-----\n#{Base.encode64(der)}\n-----END PRIVATE KEY-----\n"
  end

  defp name(name) do
    if is_binary(name) and name =~ ~r/\A[\w@.+-]{1,100}\z/u,
      do: :ok,
      else:
        error("a key's name is 1 to 100 letters, digits, `@`, `.`, `_`, `+` or `-`, got: #{name}")
  end

  # Never over another key, and never for a moment readable by others.
  defp write(path, text, mode) do
    with :ok <- File.write(path, "", [:exclusive]),
         :ok <- File.chmod(path, mode),
         :ok <- File.write(path, text) do
      :ok
    else
      {:error, :eexist} ->
        error("#{path} is there already: a key is never overwritten, name another file")

      {:error, posix} ->
        error("cannot write #{path}: #{:file.format_error(posix)}")
    end
  end

  @doc "A public key as a line of text."
  @spec line(public()) :: String.t()
  def line(key), do: "#{@type_word} #{Base.encode64(key.public)} #{key.name}"

  @doc "By what a key is known in short: the beginning of its SHA-256."
  @spec id(binary()) :: String.t()
  def id(public) do
    :crypto.hash(:sha256, public) |> binary_part(0, 8) |> Hex.encode()
  end

  @doc "Name and id of a key, for people."
  @spec label(public()) :: String.t()
  def label(%{name: nil, public: public}), do: id(public)
  def label(%{name: name, public: public}), do: "#{name} (#{id(public)})"

  @doc "Reads a secret key."
  @spec read_secret(Path.t()) :: {:ok, secret()} | {:error, Error.t()}
  def read_secret(path) do
    with {:ok, %File.Stat{mode: mode}} <- File.stat(path),
         :ok <- private(mode, path),
         {:ok, text} <- File.read(path),
         [{_type, @pkcs8 <> <<secret::binary-size(32)>>, :not_encrypted}] <- entries(text) do
      {public, ^secret} = :crypto.generate_key(:eddsa, :ed25519, secret)
      {:ok, %{secret: secret, public: public, name: named(text, path)}}
    else
      {:error, %Error{}} = error -> error
      {:error, posix} -> error("cannot read the key #{path}: #{:file.format_error(posix)}")
      _other -> error("#{path} holds no Ed25519 key (PKCS #8 in PEM): see mix hot_patch.keygen")
    end
  end

  defp entries(text) do
    :public_key.pem_decode(text)
  rescue
    _damaged -> []
  end

  defp private(mode, path) do
    if Bitwise.band(mode, 0o077) == 0,
      do: :ok,
      else: error("others may read the key #{path}: chmod 600 #{path}")
  end

  defp named(text, path) do
    case Regex.run(~r/^Name: ([\w@.+-]{1,100})$/mu, text) do
      [_line, name] -> name
      nil -> Path.basename(path)
    end
  end

  @doc """
  The keys of a list as `config :hot_patch, trusted_keys: [...]` has it: each a line as in a
  `.pub` file, its Base64 alone, or the path of such a file. An error says which one is wrong.
  """
  @spec read_trusted(term()) :: {:ok, [public()]} | {:error, Error.t()}
  def read_trusted(keys) do
    if is_list(keys) and not List.improper?(keys),
      do: read_all(keys),
      else: error("must be a list, got: #{inspect(keys, limit: 5, printable_limit: 80)}")
  end

  defp read_all(keys) do
    Enum.reduce_while(keys, {:ok, []}, fn key, {:ok, found} ->
      case trusted_one(key) do
        {:ok, key} -> {:cont, {:ok, found ++ [key]}}
        error -> {:halt, error}
      end
    end)
  end

  defp trusted_one(text) when is_binary(text) do
    with :error <- parse(text),
         {:ok, content} <- File.read(text),
         :error <- parse(content) do
      error("#{inspect(text, printable_limit: 80)} holds no public key")
    else
      {:ok, key} ->
        {:ok, key}

      {:error, posix} ->
        error(
          "#{inspect(text, printable_limit: 80)} is neither a key nor a file that can be read " <>
            "(#{:file.format_error(posix)})"
        )
    end
  end

  defp trusted_one(other),
    do: error("must be texts, got: #{inspect(other, limit: 5)}")

  defp parse(text) do
    case String.split(text) do
      [@type_word, key, name] -> public(key, name)
      [@type_word, key] -> public(key, nil)
      [key] -> public(key, nil)
      _ -> :error
    end
  end

  defp public(key, name) do
    case Base.decode64(key) do
      {:ok, <<_::256>> = public} -> {:ok, %{public: public, name: name}}
      _ -> :error
    end
  end

  defp error(text), do: {:error, Error.new(:key, text)}
end
