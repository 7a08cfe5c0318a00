defmodule HotPatch.NodeAgent.Mentions do
  @moduledoc false
  # Which modules the file of a module may name, found without decoding the file: a name stands in
  # it behind its length, in the table of atoms, in the attributes, or in the literals, which may
  # be compressed. Everything that a file names is found. What is found need not be a name there,
  # so this narrows down which files are worth a closer look, and says nothing by itself.

  # The table of atoms has its own form of a length from OTP 28 on: below this a half byte.
  @short 16

  @opaque patterns :: {:binary.cp() | nil, %{binary() => String.t()}}

  @doc "What to look for: these names."
  @spec patterns([String.t()]) :: patterns()
  def patterns(names) do
    forms = for name <- names, form <- forms(name), into: %{}, do: {form, name}
    compiled = if forms == %{}, do: nil, else: :binary.compile_pattern(Map.keys(forms))
    {compiled, forms}
  end

  defp forms(name) do
    size = byte_size(name)
    # Longer lengths take two bytes, of which the second is this one in every form.
    whole = [<<size::8, name::binary>>]
    if size < @short, do: [<<size::4, 0::4, name::binary>> | whole], else: whole
  end

  @doc "Whether a file may name one of them."
  @spec any?(binary(), patterns()) :: boolean()
  def any?(_file, {nil, _forms}), do: false

  def any?(file, {compiled, _forms}),
    do: Enum.any?(parts(file), &(:binary.match(&1, compiled) != :nomatch))

  @doc "Those of the names that a file may have."
  @spec which(binary(), patterns()) :: MapSet.t(String.t())
  def which(_file, {nil, _forms}), do: MapSet.new()

  def which(file, {compiled, forms}) do
    for part <- parts(file),
        {start, length} <- :binary.matches(part, compiled),
        into: MapSet.new(),
        do: Map.fetch!(forms, binary_part(part, start, length))
  end

  # The chunks in which names can stand. Most of a file is something else, as what the debugger
  # wants to know.
  defp parts(<<"FOR1", _size::32, "BEAM", chunks::binary>>), do: chunks(chunks)
  defp parts(<<31, 139, _rest::binary>> = compressed), do: compressed |> :zlib.gunzip() |> parts()
  defp parts(no_module), do: [no_module]

  defp chunks(<<id::binary-size(4), size::32, chunk::binary-size(size), rest::binary>>) do
    padding = min(rem(4 - rem(size, 4), 4), byte_size(rest))
    part(id, chunk) ++ chunks(binary_part(rest, padding, byte_size(rest) - padding))
  end

  defp chunks(_end), do: []

  # A size of zero says that they are not compressed, as it is from OTP 28 on.
  defp part("LitT", <<0::32, literals::binary>>), do: [literals]
  defp part("LitT", <<_size::32, compressed::binary>>), do: [:zlib.uncompress(compressed)]
  defp part(id, chunk) when id in ["AtU8", "Atom", "Attr"], do: [chunk]
  defp part(_id, _chunk), do: []
end
