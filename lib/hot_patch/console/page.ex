defmodule HotPatch.Console.Page do
  @moduledoc false
  # Puts a page together: the frame around it, and what all pages have.

  require EEx

  alias HotPatch.Console.HTML
  alias HotPatch.Console.Page.Live
  alias HotPatch.Console.Response
  alias HotPatch.Console.View

  import View

  @templates Path.join(__DIR__, "templates")

  @doc """
  A page. `context` has `request` and `access` (nil for somebody who is not logged in).
  """
  @spec render(map(), {title :: String.t(), section :: atom()}, HTML.safe(), 100..599) ::
          Response.t()
  def render(context, {title, section}, content, status \\ 200) do
    assigns =
      Map.merge(context, %{
        title: title,
        section: section,
        content: content,
        base: context.request.base,
        live: if(context.access, do: Live.fragment(context.request.base, context.access)),
        release: HotPatch.Release.current()
      })

    Response.html(HTML.to_iodata(layout(assigns)), status)
  end

  @doc "The folder of the templates."
  @spec templates() :: Path.t()
  def templates, do: @templates

  @layout Path.join(@templates, "layout.eex")
  @external_resource @layout
  EEx.function_from_file(:defp, :layout, @layout, [:assigns], engine: HTML)
end
