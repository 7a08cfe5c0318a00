defmodule HotPatch.Test.Archives do
  @moduledoc false
  # Zips for tests, made in memory by OTP's own zip module.

  @doc "A zip of files, in the order given."
  @spec zip([{Path.t(), binary()}]) :: binary()
  def zip(files) do
    files = for {path, bytes} <- files, do: {String.to_charlist(path), bytes}
    {:ok, {_name, bytes}} = :zip.create(~c"test.zip", files, [:memory])
    bytes
  end
end
