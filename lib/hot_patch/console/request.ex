defmodule HotPatch.Console.Request do
  @moduledoc """
  A request as the console sees it, whichever server it came through.

    * `:method`, `:path` - in capitals; the decoded parts of the path below the mount point
    * `:query`, `:headers` - of the query string and the head; names of headers in small letters
    * `:body` - all of it; `""` while the head is judged
    * `:peer` - address of the client, as text, for the journal
    * `:secure?` - whether it came over TLS
    * `:base` - path at which the console is mounted, `""` at the root
    * `:port` - at which the host application says it was asked, where that is not in the `host` header
    * `:form` - what a parser of the host application has made of the body; `nil` where nobody has
    * `:csrf` - the token that the host application wants to see in forms, or `nil`
    * `:conn` - within a Plug application the `Plug.Conn`, with its session and assigns; else `nil`
  """

  @type t :: %__MODULE__{
          method: String.t(),
          path: [String.t()],
          query: %{String.t() => [String.t()]},
          headers: %{String.t() => String.t()},
          body: binary(),
          peer: String.t(),
          secure?: boolean(),
          base: String.t(),
          port: :inet.port_number() | nil,
          form: %{String.t() => [String.t()]} | nil,
          csrf: String.t() | nil,
          conn: struct() | nil
        }
  defstruct method: "GET",
            path: [],
            query: %{},
            headers: %{},
            body: "",
            peer: "unknown",
            secure?: false,
            base: "",
            port: nil,
            form: nil,
            csrf: nil,
            conn: nil

  @doc """
  The parts of a path, decoded; an error if it cannot be one of the console's.

      iex> HotPatch.Console.Request.split("/patch/a%20b/")
      {:ok, ["patch", "a b"]}
      iex> HotPatch.Console.Request.split("/patch/%ff")
      :error
  """
  @spec split(String.t()) :: {:ok, [String.t()]} | :error
  def split(path) do
    parts = for part <- String.split(path, "/"), part != "", do: URI.decode(part)

    if Enum.all?(parts, &String.valid?/1) and not Enum.any?(parts, &(&1 in [".", ".."])),
      do: {:ok, parts},
      else: :error
  rescue
    # A percent sign without its two digits.
    ArgumentError -> :error
  end

  @doc """
  Decodes the text of a query or a form; every name has a list of values, and may say so with `[]`, as
  parsers of other libraries want it.

      iex> HotPatch.Console.Request.form("reason=ticket+1&nodes=a&nodes=b")
      {:ok, %{"reason" => ["ticket 1"], "nodes" => ["a", "b"]}}
      iex> HotPatch.Console.Request.form("nodes[]=a&nodes%5B%5D=b")
      {:ok, %{"nodes" => ["a", "b"]}}
      iex> HotPatch.Console.Request.form("reason=%zz")
      :error
  """
  @spec form(binary()) :: {:ok, %{String.t() => [String.t()]}} | :error
  def form(text) do
    with true <- String.valid?(text),
         pairs when is_list(pairs) <- :uri_string.dissect_query(text),
         pairs = for({name, value} <- pairs, do: {name, if(value == true, do: "", else: value)}),
         true <- Enum.all?(pairs, fn {name, value} -> String.valid?(name <> value) end) do
      {:ok, Enum.group_by(pairs, &String.replace_suffix(elem(&1, 0), "[]", ""), &elem(&1, 1))}
    else
      _not_a_form -> :error
    end
  end

  @doc "The value of a header, or nil."
  @spec header(t(), String.t()) :: String.t() | nil
  def header(request, name), do: request.headers[name]

  @doc "The value of a cookie, or nil."
  @spec cookie(t(), String.t()) :: String.t() | nil
  def cookie(request, name) do
    (header(request, "cookie") || "")
    |> String.split(";")
    |> Enum.find_value(fn pair ->
      case String.split(String.trim(pair), "=", parts: 2) do
        [^name, value] -> value
        _other -> nil
      end
    end)
  end

  @doc "How long the body is said to be; nil if that is not said, or no number."
  @spec content_length(t()) :: non_neg_integer() | nil
  def content_length(request) do
    case Integer.parse(header(request, "content-length") || "") do
      {length, ""} when length >= 0 -> length
      _none -> nil
    end
  end

  @doc "The one value of a name in the query, or nil."
  @spec query(t(), String.t()) :: String.t() | nil
  def query(request, name), do: request.query |> Map.get(name, []) |> List.first()

  @doc "Whether it asks for text for a terminal in place of JSON."
  @spec text?(t()) :: boolean()
  def text?(request), do: String.starts_with?(header(request, "accept") || "", "text/plain")

  @doc """
  Whether it asks for a stream of events. The page asks for one or HTML, as a host's pipeline for browsers lets
  nothing else through.
  """
  @spec stream?(t()) :: boolean()
  def stream?(request),
    do: String.starts_with?(header(request, "accept") || "", "text/event-stream")

  @doc "Whether it is for the JSON interface."
  @spec api?(t()) :: boolean()
  def api?(request), do: match?(["api" | _], request.path)

  defimpl Inspect do
    # Cookies, tokens and passwords are not to be logged.
    def inspect(request, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Console.Request<#{request.method} /#{Enum.join(request.path, "/")} from #{request.peer}>"
      )
    end
  end
end
