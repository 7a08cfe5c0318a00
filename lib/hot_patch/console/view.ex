defmodule HotPatch.Console.View do
  @moduledoc false
  # What the templates say in small: statuses, times, sizes, links.

  alias HotPatch.Console.HTML
  alias HotPatch.Console.Sessions
  alias HotPatch.Status
  alias HotPatch.Support.Table

  @meanings %{
    error: "cannot be loaded, or loading failed",
    not_beam: "no Erlang module; carried to disk all the same",
    wrong_path: "not the path from which the node loads it",
    not_updated: "on disk, but not in memory: a restart is needed",
    not_changed: "already runs",
    ok: "is, or will be, loaded and running",
    not_loaded: "the node does not run it"
  }

  # Shapes that differ without their colours; the two tones come from the style.
  @shapes %{
    error:
      ~s(<path d="M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2l-3.7-3.7V5.2z"/><path d="m5.7 5.7 4.6 4.6m0-4.6-4.6 4.6"/>),
    not_beam:
      ~s(<path d="M3.5 1.5h6l3 3v10h-9z"/><path d="M9.5 1.5v3h3M5.8 8.2h4.4M5.8 11h4.4"/>),
    wrong_path:
      ~s(<path d="M2 4.5h7.5a3.5 3.5 0 0 1 0 7H4"/><path d="m6.5 8.7-2.8 2.8 2.8 2.8"/>),
    not_updated:
      ~s(<path d="M13.6 5.5A6.2 6.2 0 1 0 14.2 8"/><path d="M14 2v3.6h-3.6M8 4.8V8l2.2 1.4"/>),
    not_changed: ~s(<path d="M3 6h10M3 10h10"/>),
    ok: ~s(<circle cx="8" cy="8" r="6.5"/><path d="m5 8.3 2.1 2.1L11 6.2"/>),
    not_loaded:
      ~s(<circle cx="8" cy="8" r="6.2" stroke-dasharray="2.4 2.4"/><path d="M5.6 8h4.8"/>)
  }

  @doc "A status, by colour, symbol, word and code."
  @spec status(Status.t()) :: HTML.safe()
  for {status, shape} <- @shapes do
    word = status |> Atom.to_string() |> String.replace("_", " ")
    code = Status.code(status)

    def status(unquote(status)) do
      {:safe,
       unquote(
         ~s(<span class="status s-#{status}" title="#{@meanings[status]}"><svg viewBox="0 0 16 16" aria-hidden="true">#{shape}</svg>#{word} <small class="code">#{code}</small></span>)
       )}
    end
  end

  @doc "All statuses and what they mean."
  @spec meanings() :: [{Status.t(), String.t()}]
  def meanings, do: for(status <- Status.all(), do: {status, @meanings[status]})

  @doc "How many files have which status."
  @spec tally([%{status: Status.t()}] | %{Status.t() => pos_integer()}) :: [
          {Status.t(), pos_integer()}
        ]
  def tally(files) when is_list(files), do: files |> Enum.frequencies_by(& &1.status) |> tally()
  def tally(counts), do: for(status <- Status.all(), count = counts[status], do: {status, count})

  @doc "Stragglers in lines, those of a kind in one, with the stack of the first."
  @spec stragglers([HotPatch.Straggler.t()]) :: [{String.t(), [String.t()]}]
  def stragglers(stragglers) do
    for alike <- HotPatch.Straggler.alike(stragglers) do
      [line] = HotPatch.Straggler.lines(alike)
      {line, hd(alike).stack}
    end
  end

  @doc "A time, to the second."
  @spec time(DateTime.t() | nil) :: HTML.safe() | nil
  def time(nil), do: nil

  def time(at) do
    iso = DateTime.to_iso8601(at)

    {:safe,
     ["<time datetime=\"", iso, "\">", Calendar.strftime(at, "%Y-%m-%d %H:%M:%S"), "</time>"]}
  end

  defdelegate bytes(size), to: Table
  defdelegate count(number, one, more), to: Table
  defdelegate milliseconds(microseconds), to: Table

  @doc "A module's name as its authors write it."
  @spec module_name(String.t() | nil) :: String.t() | nil
  def module_name("Elixir." <> name), do: name
  def module_name(name), do: name

  @doc "An atom as words."
  @spec words(atom() | String.t()) :: String.t()
  def words(atom), do: atom |> to_string() |> String.replace("_", " ")

  @doc "How a finding of this severity is marked."
  @spec severity_flag(atom()) :: String.t()
  def severity_flag(:danger), do: "bad"
  def severity_flag(:warning), do: "warn"
  def severity_flag(_info), do: ""

  @doc "One part of a path, for a link."
  @spec part(String.t()) :: String.t()
  def part(text), do: URI.encode(text, &URI.char_unreserved?/1)

  @doc "The hidden fields by which a form is known as ours, and new; and as the host application's."
  @spec form_token(map()) :: HTML.safe()
  def form_token(context), do: {:safe, [own_token(context), host_token(context)]}

  defp own_token(%{access: %{session: session}}) when session != nil,
    do: hidden("form", Sessions.token(session))

  defp own_token(_context), do: []

  defp host_token(%{request: %{csrf: token}}) when token != nil, do: hidden("_csrf_token", token)
  defp host_token(_context), do: []

  defp hidden(name, value),
    do: [~s(<input type="hidden" name="), name, ~s(" value="), HTML.escape(value), ~s(">)]

  @doc "Whether who looks at the page may act."
  @spec admin?(map()) :: boolean()
  def admin?(%{access: %{user: %{role: role}}}), do: role == :admin
  def admin?(_context), do: false
end
