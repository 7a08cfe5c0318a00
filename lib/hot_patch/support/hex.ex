defmodule HotPatch.Support.Hex do
  @moduledoc false
  # Digests and random ids as text: lower-case hexadecimal digits.

  @doc """
  Bytes as text.

      iex> HotPatch.Support.Hex.encode(<<10, 255>>)
      "0aff"
  """
  @spec encode(binary()) :: String.t()
  def encode(bytes), do: Base.encode16(bytes, case: :lower)

  @doc "An id that nobody else has: 64 random bits."
  @spec random() :: String.t()
  def random, do: encode(:crypto.strong_rand_bytes(8))
end
