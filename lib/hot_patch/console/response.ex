defmodule HotPatch.Console.Response do
  @moduledoc """
  What the console answers. `:body` is all of it, or `{:stream, fun}`: a server calls the function
  with one that sends a piece and gives `:ok`, or `:closed` when the client is gone.
  """

  alias HotPatch.Console.Request
  alias HotPatch.Support.Printable

  @type sender :: (iodata() -> :ok | :closed)
  @type t :: %__MODULE__{
          status: 100..599,
          headers: [{String.t(), String.t()}],
          body: iodata() | {:stream, (sender() -> term())}
        }
  defstruct status: 200, headers: [], body: ""

  # Nothing from elsewhere, nothing inline, in nobody's frame.
  @policy Enum.join(
            [
              "default-src 'none'",
              "script-src 'self'",
              "style-src 'self'",
              "img-src 'self'",
              "connect-src 'self'",
              "form-action 'self'",
              "base-uri 'none'",
              "frame-ancestors 'none'"
            ],
            "; "
          )

  @headers [
    {"content-security-policy", @policy},
    {"x-content-type-options", "nosniff"},
    {"x-frame-options", "DENY"},
    {"referrer-policy", "same-origin"},
    {"cross-origin-opener-policy", "same-origin"},
    {"cross-origin-resource-policy", "same-origin"},
    {"permissions-policy", "camera=(), geolocation=(), microphone=()"}
  ]

  @doc "Headers of every answer, those of the server's own refusals too."
  @spec protection() :: [{String.t(), String.t()}]
  def protection, do: @headers

  @doc "A page."
  @spec html(iodata(), 100..599) :: t()
  def html(body, status \\ 200) do
    %__MODULE__{
      status: status,
      headers: [{"content-type", "text/html; charset=utf-8"}],
      body: body
    }
  end

  @doc "JSON."
  @spec json(iodata(), 100..599, String.t()) :: t()
  def json(body, status \\ 200, type \\ "application/json") do
    %__MODULE__{status: status, headers: [{"content-type", type}], body: body}
  end

  @doc "Text for a terminal."
  @spec text(iodata(), 100..599) :: t()
  def text(body, status \\ 200) do
    %__MODULE__{
      status: status,
      headers: [{"content-type", "text/plain; charset=utf-8"}],
      body: body
    }
  end

  @doc "Lines for a terminal, whose last one ends as the others do."
  @spec lines(iodata(), 100..599) :: t()
  def lines(body, status \\ 200) do
    text = body |> IO.iodata_to_binary() |> Printable.lines() |> String.trim_trailing("\n")
    text(text <> "\n", status)
  end

  @doc "Sends the client elsewhere, by GET; `path` is below the mount point."
  @spec redirect(Request.t(), String.t()) :: t()
  def redirect(request, path) do
    %__MODULE__{status: 303, headers: [{"location", request.base <> path}]}
  end

  @doc "Adds a header."
  @spec put(t(), String.t(), String.t()) :: t()
  def put(response, name, value), do: %{response | headers: [{name, value} | response.headers]}

  @doc "Adds the headers that every answer has; what it says itself stands."
  @spec protect(t(), Request.t()) :: t()
  def protect(response, request) do
    always = [{"cache-control", "no-store"} | @headers] ++ transport(request)
    missing = Enum.reject(always, fn {name, _} -> List.keymember?(response.headers, name, 0) end)
    %{response | headers: response.headers ++ missing}
  end

  defp transport(%Request{secure?: true}),
    do: [{"strict-transport-security", "max-age=31536000"}]

  defp transport(_request), do: []

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
