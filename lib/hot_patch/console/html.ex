defmodule HotPatch.Console.HTML do
  @moduledoc false
  # Templates in which every value is escaped: an engine for EEx. What is HTML already is
  # `{:safe, iodata}`, and only templates make that.

  @behaviour EEx.Engine

  alias HotPatch.Support.Printable

  @type safe :: {:safe, iodata()}

  @doc "Escapes a value; HTML stays as it is, nil is nothing."
  @spec escape(term()) :: iodata()
  def escape({:safe, html}), do: html
  def escape(nil), do: ""
  def escape(text) when is_binary(text), do: text |> valid() |> visible() |> escape_text()
  def escape(list) when is_list(list), do: Enum.map(list, &escape/1)
  def escape(other), do: other |> to_string() |> visible() |> escape_text()

  @doc "The text of a result, for what is no template."
  @spec to_iodata(safe()) :: iodata()
  def to_iodata({:safe, html}), do: html

  # A name from elsewhere may be no text at all.
  defp valid(text), do: if(String.valid?(text), do: text, else: inspect(text))

  # What turns the direction of the text around it shows something else on a page, too.
  defp visible(text), do: Printable.lines(text)

  defp escape_text(text), do: for(<<byte <- text>>, into: "", do: escape_byte(byte))

  defp escape_byte(?<), do: "&lt;"
  defp escape_byte(?>), do: "&gt;"
  defp escape_byte(?&), do: "&amp;"
  defp escape_byte(?"), do: "&quot;"
  defp escape_byte(?'), do: "&#39;"
  defp escape_byte(byte), do: <<byte>>

  @impl EEx.Engine
  def init(_options), do: []

  @impl EEx.Engine
  def handle_begin(_parts), do: []

  @impl EEx.Engine
  def handle_end(parts), do: handle_body(parts)

  @impl EEx.Engine
  def handle_body(parts), do: {:safe, Enum.reverse(parts)}

  @impl EEx.Engine
  def handle_text(parts, _meta, text), do: [text | parts]

  @impl EEx.Engine
  def handle_expr(parts, "=", expression) do
    expression = Macro.prewalk(expression, &assign/1)
    [quote(do: HotPatch.Console.HTML.escape(unquote(expression))) | parts]
  end

  # EEx's own way with assigns calls EEx when the template is rendered, which a release does not have.
  defp assign({:@, meta, [{name, _, context}]}) when is_atom(name) and is_atom(context) do
    quote(line: meta[:line] || 0, do: Map.fetch!(var!(assigns), unquote(name)))
  end

  defp assign(other), do: other
end
