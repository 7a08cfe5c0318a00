defmodule HotPatch.Swap.Discovery.StackText do
  @moduledoc false
  # Reads a value in the VM's text of a stack (process_info(Pid, backtrace)) as far as it has to: along
  # commas and brackets to one place. A state in it may be large, and of any form.

  # Of a loop's own term.
  @most_fields 20

  @doc "The first of some marks, each after the one before it."
  @spec first(binary(), [binary()]) :: [{non_neg_integer(), pos_integer()}] | :none
  def first(text, marks), do: first(text, 0, marks, [])

  defp first(_text, _from, [], found), do: Enum.reverse(found)

  defp first(text, from, [mark | marks], found) do
    case :binary.match(text, mark, scope: {from, byte_size(text) - from}) do
      {at, size} -> first(text, at + size, marks, [{at, size} | found])
      :nomatch -> :none
    end
  end

  @doc """
  The frame of the first function whose line has a mark: that line, and one for each of its values. Empty
  where there is none. Line ends within a value are escaped.
  """
  @spec frame(binary(), binary()) :: binary()
  def frame(text, mark), do: frame(text, 0, mark)

  defp frame(text, from, mark) do
    case :binary.match(text, mark, scope: {from, byte_size(text) - from}) do
      {at, size} ->
        line = line_start(text, at)

        if line == 0 or (line > 1 and :binary.at(text, line - 2) == ?\n),
          do: part(text, line),
          else: frame(text, at + size, mark)

      :nomatch ->
        ""
    end
  end

  # That a function is named there is told by the empty line before it; else it stands in a value.
  defp line_start(_text, 0), do: 0

  defp line_start(text, at),
    do: if(:binary.at(text, at - 1) == ?\n, do: at, else: line_start(text, at - 1))

  defp part(text, from) do
    case :binary.match(text, "\n\n", scope: {from, byte_size(text) - from}) do
      {at, _size} -> binary_part(text, from, at - from)
      :nomatch -> binary_part(text, from, byte_size(text) - from)
    end
  end

  @doc "What stands on one of the lines that begin at a place, behind the name of the register."
  @spec value(binary(), non_neg_integer(), non_neg_integer()) :: binary() | nil
  def value(text, from, 0) when from <= byte_size(text),
    do: text |> binary_part(from, byte_size(text) - from) |> value()

  def value(text, from, line) when from <= byte_size(text) do
    case :binary.match(text, "\n", scope: {from, byte_size(text) - from}) do
      {at, 1} -> value(text, at + 1, line - 1)
      :nomatch -> nil
    end
  end

  def value(_text, _from, _line), do: nil

  @doc "What stands behind the name of the register: `y(2)     value`."
  @spec value(binary()) :: binary() | nil
  def value(<<"y(", _number, ")", value::binary>>), do: skip_spaces(value)
  def value(<<"y(", _tens, _number, ")", value::binary>>), do: skip_spaces(value)
  def value(<<"y(", _hundreds, _tens, _number, ")", value::binary>>), do: skip_spaces(value)
  def value(_other), do: nil

  defp skip_spaces(<<" ", rest::binary>>), do: skip_spaces(rest)
  defp skip_spaces(rest), do: rest

  @doc """
  The atom at a place: how many commas come before it in each of the brackets around it, from the
  outermost. With `all?` those that follow it between the same brackets, too.
  """
  @spec atoms_at(binary(), [non_neg_integer()], boolean()) ::
          {:ok, nonempty_list(atom())} | :error
  def atoms_at(text, [], false) do
    with {:ok, atom, _rest} <- atom(text), do: {:ok, [atom]}
  end

  def atoms_at(text, [], true) do
    with {:ok, atom, rest} <- atom(text) do
      case rest do
        <<",", more::binary>> ->
          with {:ok, others} <- atoms_at(more, [], true), do: {:ok, [atom | others]}

        _end ->
          {:ok, [atom]}
      end
    end
  end

  def atoms_at(<<open, rest::binary>>, [commas | steps], all?) when open in [?{, ?[] do
    with {:ok, rest} <- after_commas(rest, commas, 0), do: atoms_at(rest, steps, all?)
  end

  def atoms_at(_text, _steps, _all?), do: :error

  @doc "The one of some modules that stands between the outermost brackets by itself; nil if none or several do."
  @spec named(binary(), [module()]) :: module() | nil
  def named(<<open, _rest::binary>> = text, modules) when open in [?{, ?[] do
    found =
      for n <- 0..@most_fields,
          {:ok, [atom]} <- [atoms_at(text, [n], false)],
          atom in modules,
          uniq: true,
          do: atom

    case found do
      [module] -> module
      _none_or_several -> nil
    end
  end

  def named(_text, _modules), do: nil

  defp after_commas(text, 0, 0), do: {:ok, text}
  defp after_commas(<<>>, _commas, _depth), do: :error

  defp after_commas(<<?', rest::binary>>, commas, depth),
    do: after_quoted(rest, ?', commas, depth)

  defp after_commas(<<?", rest::binary>>, commas, depth),
    do: after_quoted(rest, ?", commas, depth)

  defp after_commas(<<"<<", rest::binary>>, commas, depth),
    do: after_commas(rest, commas, depth + 1)

  defp after_commas(<<">>", rest::binary>>, commas, depth) when depth > 0,
    do: after_commas(rest, commas, depth - 1)

  defp after_commas(<<open, rest::binary>>, commas, depth) when open in [?{, ?[],
    do: after_commas(rest, commas, depth + 1)

  defp after_commas(<<close, rest::binary>>, commas, depth) when close in [?}, ?]] and depth > 0,
    do: after_commas(rest, commas, depth - 1)

  # The place is not there.
  defp after_commas(<<close, _rest::binary>>, _commas, _depth) when close in [?}, ?]], do: :error

  defp after_commas(<<",", rest::binary>>, commas, 0), do: after_commas(rest, commas - 1, 0)
  defp after_commas(<<_byte, rest::binary>>, commas, depth), do: after_commas(rest, commas, depth)

  defp after_quoted(<<?\\, _byte, rest::binary>>, quoted, commas, depth),
    do: after_quoted(rest, quoted, commas, depth)

  defp after_quoted(<<quoted, rest::binary>>, quoted, commas, depth),
    do: after_commas(rest, commas, depth)

  defp after_quoted(<<_byte, rest::binary>>, quoted, commas, depth),
    do: after_quoted(rest, quoted, commas, depth)

  defp after_quoted(<<>>, _quoted, _commas, _depth), do: :error

  # It exists: the text has been made from it.
  defp atom(<<?', rest::binary>>) do
    case :binary.split(rest, "'") do
      [name, rest] -> existing(name, rest)
      [_open] -> :error
    end
  end

  defp atom(text) do
    size = letters(text, 0)
    rest = binary_part(text, size, byte_size(text) - size)
    if size > 0, do: text |> binary_part(0, size) |> existing(rest), else: :error
  end

  # What has to be escaped is the name of no module that anybody writes.
  defp existing(name, rest) do
    if String.contains?(name, "\\"), do: :error, else: {:ok, String.to_existing_atom(name), rest}
  rescue
    _no_atom in ArgumentError -> :error
  end

  defp letters(<<byte, rest::binary>>, size)
       when byte in ?a..?z or byte in ?A..?Z or byte in ?0..?9 or byte in [?_, ?@, ?.] or
              byte > 127,
       do: letters(rest, size + 1)

  defp letters(_rest, size), do: size
end
