defmodule HotPatch.Support.Printable do
  @moduledoc false
  # Makes text safe where it leaves for a terminal or a log. Names, reasons and messages come from outside
  # and are kept as they came; a terminal obeys control characters, and a line break begins a new line of a
  # record. So everything that is printed goes through here last: each `String.Chars` and `Inspect` of a struct,
  # the `message/1` of exceptions, `HotPatch.Support.Log`, and what mix tasks print.
  #
  # Characters are shown as the native library shows them (text.rs there): `\u{1b}`, and `\xFF` for a byte that is
  # no text. To print a text twice does no harm.

  defguardp is_control(char) when char in 0..0x1F or char in 0x7F..0x9F

  # Shows nothing, or turns the direction of what stands around it; see `is_invisible` in text.rs.
  defguardp is_invisible(char)
            when char in [0xAD, 0x34F, 0x61C, 0x3164, 0xFEFF, 0xFFA0] or char in 0x115F..0x1160 or
                   char in 0x17B4..0x17B5 or char in 0x180B..0x180F or char in 0x200B..0x200F or
                   char in 0x2028..0x202E or char in 0x2060..0x206F or char in 0xFE00..0xFE0F or
                   char in 0xFFF0..0xFFFB or char in 0x1BCA0..0x1BCA3 or
                   char in 0x1D173..0x1D17A or char in 0xE0000..0xE0FFF

  @doc """
  Text as one line: line breaks are escaped too.

      iex> HotPatch.Support.Printable.line("fix\\e[2J\\nok")
      "fix\\\\u{1b}[2J\\\\u{a}ok"
  """
  @spec line(iodata()) :: String.t()
  def line(text), do: text |> IO.iodata_to_binary() |> escape("")

  @doc """
  Text of several lines that are ours. What stands in them from outside went through `line/1` before.

      iex> HotPatch.Support.Printable.lines(["one\\n", "tw\\ro\\n"])
      "one\\ntw\\\\u{d}o\\n"
  """
  @spec lines(iodata()) :: String.t()
  def lines(text) do
    text |> IO.iodata_to_binary() |> String.split("\n") |> Enum.map_join("\n", &line/1)
  end

  @doc "What `inspect/2` gives for a struct without a shape of its own, for its `Inspect`."
  @spec inspected(struct(), Inspect.Opts.t()) :: String.t()
  def inspected(struct, options) do
    Inspect.Any
    |> apply(:inspect, [struct, options])
    |> document()
    |> Inspect.Algebra.format(options.width)
    |> lines()
  end

  # Newer versions of Elixir give the options, too, as they are after it; of that this one knows nothing.
  defp document({document, %Inspect.Opts{}}), do: document
  defp document(document), do: document

  @doc "An exception with its stack, of which only the stack has lines of its own."
  @spec exception(:error | :exit | :throw, term(), Exception.stacktrace()) :: String.t()
  def exception(kind, reason, stack) do
    banner = kind |> Exception.format_banner(reason, stack) |> line()
    lines([banner, "\n", Exception.format_stacktrace(stack)])
  end

  defp escape(<<char::utf8, rest::binary>>, shown) when is_control(char) or is_invisible(char),
    do: escape(rest, shown <> "\\u{" <> hex(char) <> "}")

  defp escape(<<char::utf8, rest::binary>>, shown),
    do: escape(rest, <<shown::binary, char::utf8>>)

  defp escape(<<byte, rest::binary>>, shown),
    do: escape(rest, shown <> "\\x" <> Base.encode16(<<byte>>))

  defp escape(<<>>, shown), do: shown

  defp hex(char), do: char |> Integer.to_string(16) |> String.downcase()
end
