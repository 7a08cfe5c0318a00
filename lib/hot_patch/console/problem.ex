defmodule HotPatch.Console.Problem do
  @moduledoc false
  # Errors as problem details (RFC 9457), and what HTTP calls them.

  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Error
  alias HotPatch.Refusal

  @statuses %{
    invalid_option: 422,
    unknown_patch: 404,
    ambiguous_patch: 409,
    not_applied: 409,
    retired: 409,
    unreachable: 503,
    unmanaged: 409,
    busy: 409,
    refused: 409,
    cancelled: 409,
    not_under_way: 404,
    no_native: 503
  }

  @titles %{
    400 => "Bad request",
    401 => "Not logged in",
    403 => "Not allowed",
    404 => "Not found",
    405 => "Method not allowed",
    409 => "Conflict",
    411 => "Length required",
    413 => "Too large",
    415 => "Unsupported media type",
    421 => "Misdirected request",
    422 => "Cannot be processed",
    429 => "Too many attempts",
    500 => "Failed",
    503 => "Not available"
  }

  @type t :: %{status: 400..599, reason: atom(), detail: String.t(), more: map()}

  @doc "A problem in words."
  @spec new(400..599, atom(), String.t(), map()) :: t()
  def new(status, reason, detail, more \\ %{}),
    do: %{status: status, reason: reason, detail: detail, more: more}

  @doc "The problem that an error of the API is, or an option that cannot be, which a text tells."
  @spec from(Exception.t() | String.t()) :: t()
  def from(text) when is_binary(text), do: new(422, :invalid_option, text)

  def from(%Refusal{} = refusal) do
    new(422, :archive_refused, refusal.message, Map.take(refusal, [:rule, :entry]))
  end

  def from(%Error{reason: reason, message: message} = error) do
    more = Map.take(error, [:details, :report])
    new(Map.get(@statuses, reason, 500), reason, message, more)
  end

  @doc "What a status is called."
  @spec title(400..599) :: String.t()
  def title(status), do: Map.get(@titles, status, "Error")

  @headlines %{
    busy: "Something else is under way",
    refused: "Refused",
    failed: "Failed",
    cancelled: "Cancelled",
    not_under_way: "Not under way",
    archive_refused: "The archive was refused",
    retired: "Retired",
    unreachable: "A node does not answer",
    role: "For admins",
    replayed: "Sent already",
    form: "Out of date",
    origin: "From another site"
  }

  @doc "What a page calls a problem."
  @spec headline(t()) :: String.t()
  def headline(problem), do: Map.get(@headlines, problem.reason, title(problem.status))

  @doc "The problem in the form that a request asks for."
  @spec to_response(t(), Request.t()) :: Response.t()
  def to_response(problem, request) do
    if Request.text?(request),
      do: Response.lines([problem.detail, report(problem.more)], problem.status),
      else: to_response(problem)
  end

  # After an empty line.
  defp report(%{report: report}) when report != nil, do: ["\n\n", to_string(report)]
  defp report(_more), do: []

  @doc "The problem as JSON."
  @spec to_response(t()) :: Response.t()
  def to_response(problem) do
    body =
      Map.merge(problem.more, %{
        type: "urn:hot_patch:#{problem.reason}",
        title: title(problem.status),
        status: problem.status,
        detail: problem.detail,
        reason: problem.reason
      })

    case HotPatch.to_json(body) do
      {:ok, json} -> Response.json(json, problem.status, "application/problem+json")
      {:error, error} -> without_library(problem.status, error)
    end
  end

  # JSON is written by the native library; this much is known without it.
  defp without_library(status, _error) do
    Response.json(
      ~s({"type":"urn:hot_patch:no_native","status":#{status},"detail":"this node lacks HotPatch's native library"}),
      status,
      "application/problem+json"
    )
  end
end
