defmodule HotPatch.Console.Router do
  @moduledoc false
  # Which request is whose, what it needs, and how long its body may be.

  alias HotPatch.Console.API
  alias HotPatch.Console.Assets
  alias HotPatch.Console.Page

  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Params
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response

  # What handlers take and give; they live in API, Assets and below Page.
  @type request :: Request.t()
  @type access :: Authorization.t() | nil
  @type form :: Params.form()
  @type response :: Response.t()

  @enforce_keys [:role, :handler]
  defstruct [:role, :handler, body: :none]

  @typedoc """
  `body`: `:none`, `:form`, or `:archive`, which is streamed and whose form token is in a header. The handler
  is called with the request, who sends it (nil where anybody may), and the form.
  """
  @type t :: %__MODULE__{
          role: :anybody | :viewer | :admin,
          handler: (request(), access(), form() -> response()),
          body: :none | :form | :archive
        }

  @methods ["GET", "POST", "DELETE"]

  @doc "The route of a request, or which methods there are for its path."
  @spec find(String.t(), [String.t()]) :: {:ok, t()} | {:error, [String.t()]}
  def find("HEAD", path), do: find("GET", path)

  def find(method, path) do
    case route(method, path) do
      nil -> {:error, for(other <- @methods, other != method, route(other, path), do: other)}
      route -> {:ok, route}
    end
  end

  defp route("GET", []), do: view(&Page.Patches.redirect/3)
  defp route("GET", ["assets", name]), do: anybody(&Assets.show(&1, &2, &3, name))
  defp route("GET", ["login"]), do: anybody(&Page.Login.show/3)
  defp route("POST", ["login"]), do: %{anybody(&Page.Login.log_in/3) | body: :form}
  defp route("POST", ["logout"]), do: %{view(&Page.Login.log_out/3) | body: :form}

  defp route("GET", ["live"]), do: view(&Page.Live.show/3)
  defp route("GET", ["patch"]), do: view(&Page.Patches.index/3)
  defp route("GET", ["patch", id]), do: view(&Page.Patches.contents(&1, &2, &3, id))
  defp route("GET", ["patch", id, "check"]), do: view(&Page.Patches.check(&1, &2, &3, id))
  defp route("GET", ["patch", id, "plan"]), do: view(&Page.Patches.plan(&1, &2, &3, id))

  defp route("GET", ["patch", id, "rehearse"]),
    do: admin(&Page.Actions.confirm_rehearsal(&1, &2, &3, id))

  defp route("POST", ["patch", id, "rehearse"]),
    do: act(&Page.Actions.begin(&1, &2, &3, {:rehearse, id}))

  defp route("GET", ["patch", id, "results"]), do: view(&Page.Results.index(&1, &2, &3, id))

  defp route("GET", ["patch", id, "results", run]),
    do: view(&Page.Results.show(&1, &2, &3, {id, run}))

  defp route("GET", ["patch", id, "apply"]),
    do: admin(&Page.Actions.confirm(&1, &2, &3, {:apply, id}))

  defp route("POST", ["patch", id, "apply"]),
    do: act(&Page.Actions.begin(&1, &2, &3, {:apply, id}))

  defp route("GET", ["patch", id, "rollback"]),
    do: admin(&Page.Actions.confirm(&1, &2, &3, {:rollback, id}))

  defp route("POST", ["patch", id, "rollback"]),
    do: act(&Page.Actions.begin(&1, &2, &3, {:rollback, id}))

  defp route("GET", ["patch", id, "delete"]),
    do: admin(&Page.Actions.confirm_delete(&1, &2, &3, id))

  defp route("POST", ["patch", id, "delete"]), do: act(&Page.Actions.delete(&1, &2, &3, id))

  defp route("GET", ["nodes"]), do: view(&Page.Nodes.index/3)
  defp route("GET", ["nodes", "compared"]), do: view(&Page.Nodes.compared/3)
  defp route("GET", ["nodes", name, "restart"]), do: admin(&Page.Nodes.confirm(&1, &2, &3, name))
  defp route("POST", ["nodes", name, "restart"]), do: act(&Page.Nodes.restart(&1, &2, &3, name))

  defp route("GET", ["nodes", name, "restart", run]),
    do: view(&Page.Nodes.show(&1, &2, &3, {name, run}))

  defp route("GET", ["operations", id, "cancel"]),
    do: admin(&Page.Cancel.confirm(&1, &2, &3, id))

  defp route("POST", ["operations", id, "cancel"]),
    do: act(&Page.Cancel.cancel(&1, &2, &3, id))

  defp route("GET", ["journal"]), do: view(&Page.Journal.index/3)

  defp route("GET", ["api", "patches"]), do: view(&API.list/3)
  defp route("POST", ["api", "patches"]), do: %{admin(&API.upload/3) | body: :archive}
  defp route("GET", ["api", "patches", id]), do: view(&API.composition(&1, &2, &3, id))
  defp route("DELETE", ["api", "patches", id]), do: act(&API.delete(&1, &2, &3, id))

  defp route("GET", ["api", "patches", id, "check"]),
    do: view(&API.survey(&1, &2, &3, {:check, id}))

  defp route("GET", ["api", "patches", id, "plan"]),
    do: view(&API.survey(&1, &2, &3, {:plan, id}))

  defp route("GET", ["api", "patches", id, "antipatch"]),
    do: admin(&API.antipatch(&1, &2, &3, id))

  defp route("POST", ["api", "patches", id, "rehearse"]),
    do: act(&API.begin(&1, &2, &3, {:rehearse, id}))

  defp route("POST", ["api", "patches", id, "apply"]),
    do: act(&API.begin(&1, &2, &3, {:apply, id}))

  defp route("POST", ["api", "patches", id, "rollback"]),
    do: act(&API.begin(&1, &2, &3, {:rollback, id}))

  defp route("GET", ["api", "operations"]), do: view(&API.operations/3)
  defp route("GET", ["api", "operations", id]), do: view(&API.operation(&1, &2, &3, id))
  defp route("POST", ["api", "operations", id, "cancel"]), do: act(&API.cancel(&1, &2, &3, id))
  defp route("GET", ["api", "nodes"]), do: view(&API.nodes/3)
  defp route("POST", ["api", "nodes", name, "restart"]), do: act(&API.restart(&1, &2, &3, name))
  defp route("GET", ["api", "build"]), do: admin(&API.build/3)
  defp route("POST", ["api", "build", "files"]), do: act(&API.build_files/3)
  defp route("GET", ["api", "stragglers"]), do: view(&API.look(&1, &2, &3, :stragglers))
  defp route("GET", ["api", "releases"]), do: view(&API.look(&1, &2, &3, :releases))
  defp route("GET", ["api", "drift"]), do: view(&API.look(&1, &2, &3, :drift))
  defp route("GET", ["api", "journal"]), do: view(&API.look(&1, &2, &3, :journal))
  defp route("GET", ["api", "progress"]), do: view(&API.progress/3)
  defp route("GET", ["api", "events"]), do: view(&API.events/3)
  defp route(_method, _path), do: nil

  defp anybody(handler), do: %__MODULE__{role: :anybody, handler: handler}
  defp view(handler), do: %__MODULE__{role: :viewer, handler: handler}
  defp admin(handler), do: %__MODULE__{role: :admin, handler: handler}
  defp act(handler), do: %__MODULE__{role: :admin, handler: handler, body: :form}
end
