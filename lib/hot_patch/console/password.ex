defmodule HotPatch.Console.Password do
  @moduledoc false
  # Password hashes by PBKDF2, and digests of tokens. `mix hot_patch.password` makes both.

  alias HotPatch.Support.Hex

  @scheme "pbkdf2-sha512"
  @iterations 210_000
  @bytes 32

  # A hash in the configuration that asks for more would keep a scheduler busy for minutes.
  @most 10_000_000

  @doc "The hash of a password, with a salt of its own."
  @spec hash(String.t(), pos_integer()) :: String.t()
  def hash(password, iterations \\ @iterations) do
    salt = :crypto.strong_rand_bytes(16)

    Enum.join(
      [@scheme, iterations, encode(salt), encode(derive(password, salt, iterations))],
      "$"
    )
  end

  @doc "Whether a password is the one of the hash. Takes as long for a wrong one."
  @spec verify(String.t(), String.t()) :: boolean()
  def verify(password, hash) do
    case parse(hash) do
      {:ok, iterations, salt, digest} -> equal?(derive(password, salt, iterations), digest)
      :error -> false
    end
  end

  @doc "Takes as long as `verify/2`: whether an account exists is not to be seen by the clock."
  @spec verify_nobody(String.t()) :: false
  def verify_nobody(password) do
    _ = derive(password, <<0::128>>, @iterations)
    false
  end

  @doc "Whether a text is a hash of this kind."
  @spec hash?(term()) :: boolean()
  def hash?(text), do: is_binary(text) and parse(text) != :error

  @doc "A random token, and the digest by which the configuration knows it."
  @spec token() :: {token :: String.t(), sha256 :: String.t()}
  def token do
    token = encode(:crypto.strong_rand_bytes(32))
    {token, digest(token)}
  end

  @doc "The digest of a token, in hex."
  @spec digest(String.t()) :: String.t()
  def digest(token), do: Hex.encode(:crypto.hash(:sha256, token))

  @doc "Compares without telling by the time taken where two texts differ."
  @spec equal?(binary(), binary()) :: boolean()
  def equal?(one, other) when byte_size(one) == byte_size(other) do
    one
    |> :crypto.exor(other)
    |> :binary.bin_to_list()
    |> Enum.reduce(0, &Bitwise.bor/2) == 0
  end

  def equal?(_one, _other), do: false

  defp parse(hash) do
    with [@scheme, iterations, salt, digest] <- String.split(hash, "$"),
         {iterations, ""} when iterations in 1..@most <- Integer.parse(iterations),
         {:ok, salt} <- Base.decode64(salt, padding: false),
         {:ok, <<_::binary-size(@bytes)>> = digest} <- Base.decode64(digest, padding: false) do
      {:ok, iterations, salt, digest}
    else
      _another_text -> :error
    end
  end

  defp derive(password, salt, iterations),
    do: :crypto.pbkdf2_hmac(:sha512, password, salt, iterations, @bytes)

  defp encode(bytes), do: Base.encode64(bytes, padding: false)
end
