defmodule HotPatch.Test.Damaged do
  @moduledoc false
  # Modules of which one thing is damaged in such a way that OTP's loader ends its VM.

  alias HotPatch.Test.Builds

  @doc "The damages that end every supported VM, by name."
  @spec fatal() :: [{atom(), (String.t() -> binary())}]
  def fatal do
    [
      literals_declared_too_large: &literals_declared_too_large/1,
      labels_without_end: &labels_without_end/1,
      line_instructions_without_end: &line_instructions_without_end/1,
      atoms_without_end: &atoms_without_end/1
    ]
  end

  @doc "A module with this damage."
  @spec make(String.t(), atom()) :: binary()
  def make(name, :many_literals), do: many_literals(name)
  # Sound as well: no loader puts as many atoms into its table within milliseconds.
  def make(name, :many_atoms), do: with_atoms(name, 500_000)
  def make(name, damage), do: Keyword.fetch!(fatal(), damage).(name)

  # The first byte of LitT is that of its unpacked size: two gigabytes and more.
  defp literals_declared_too_large(name) do
    change(sound(name), "LitT", fn <<_first, rest::binary>> -> <<0x80, rest::binary>> end)
  end

  # Code header: its size, the instruction set, the highest opcode, labels, functions.
  defp labels_without_end(name) do
    change(sound(name), "Code", fn <<head::binary-size(12), _labels::32, rest::binary>> ->
      <<head::binary, 0x7FFF_FFFF::32, rest::binary>>
    end)
  end

  # Line header: version, flags, line instructions, lines, names.
  defp line_instructions_without_end(name) do
    change(sound(name), "Line", fn <<head::binary-size(8), _count::32, rest::binary>> ->
      <<head::binary, 0x7FFF_FFFF::32, rest::binary>>
    end)
  end

  # More than the atom table of a VM has room for.
  defp atoms_without_end(name), do: with_atoms(name, 1_200_000)

  defp with_atoms(name, number) do
    change(sound(name), "AtU8", fn <<count::32-signed, own::binary>> ->
      more = for n <- 1..number, into: <<>>, do: atom(count, "x#{n}")
      sign = if count < 0, do: -1, else: 1
      <<sign * (abs(count) + number)::32, own::binary, more::binary>>
    end)
  end

  # From OTP 28 on the count is negative and lengths are compact.
  defp atom(count, text) when count < 0, do: <<byte_size(text)::4, 0::4, text::binary>>
  defp atom(_count, text), do: <<byte_size(text), text::binary>>

  # Sound, and small in the file: 16 bytes of memory for each byte of a list of zeros.
  defp many_literals(name) do
    Builds.erlang("""
    -module(#{name}). -export([f/0]).
    f() -> [#{Enum.map_join(1..16, ",", fn n -> ~s(lists_#{n}) end)}].
    """)
    |> change("LitT", fn _literals -> literals() end)
  end

  defp literals do
    list = <<131, 108, 16_000_000::32, :binary.copy(<<97, 0>>, 16_000_000)::binary, 106>>
    packed = :zlib.compress(<<1::32, byte_size(list)::32, list::binary>>)
    <<byte_size(list) + 8::32, packed::binary>>
  end

  defp sound(name) do
    Builds.erlang("""
    -module(#{name}). -export([f/1, g/1]).
    f(X) -> {X, [first, second, {third, "fourth"}]}.
    g(Y) -> lists:map(fun(Z) -> {Y, Z} end, [1, 2, 3]).
    """)
  end

  @doc "The file with one of its chunks changed; the module itself is left as it is."
  @spec change(binary(), String.t(), (binary() -> binary())) :: binary()
  def change(beam, id, fun) do
    {:ok, _module, chunks} = :beam_lib.all_chunks(beam)
    id = String.to_charlist(id)
    {^id, bytes} = List.keyfind(chunks, id, 0)
    {:ok, changed} = :beam_lib.build_module(List.keyreplace(chunks, id, 0, {id, fun.(bytes)}))
    changed
  end
end
