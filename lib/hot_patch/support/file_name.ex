defmodule HotPatch.Support.FileName do
  @moduledoc false
  # Names of files as OTP gives them, which are lists of characters, and as HotPatch keeps them,
  # which are the bytes of the name on the disk. The two are told from each other by the encoding
  # that the VM takes names to have: under `LC_ALL=C`, as many containers run, each character of
  # such a list is one byte, and a folder with letters beyond ASCII is only found by its bytes.

  @doc "The bytes of a name."
  @spec to_binary(:file.filename_all()) :: Path.t()
  def to_binary(name) when is_binary(name), do: name

  def to_binary(name) do
    case :unicode.characters_to_binary(name, :unicode, :file.native_name_encoding()) do
      bytes when is_binary(bytes) -> bytes
      _not_in_that_encoding -> List.to_string(name)
    end
  end

  @doc "The characters of a name, for OTP's own functions."
  @spec to_charlist(Path.t()) :: charlist()
  def to_charlist(name) do
    case :unicode.characters_to_list(name, :file.native_name_encoding()) do
      characters when is_list(characters) -> characters
      _not_in_that_encoding -> :erlang.binary_to_list(name)
    end
  end

  @doc "A path in the environment of the VM, `nil` where that is not set."
  @spec from_environment(String.t()) :: Path.t() | nil
  def from_environment(variable) do
    case :os.getenv(String.to_charlist(variable)) do
      unset when unset in [false, []] -> nil
      path -> to_binary(path)
    end
  end
end
