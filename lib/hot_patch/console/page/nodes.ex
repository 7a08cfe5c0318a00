defmodule HotPatch.Console.Page.Nodes do
  @moduledoc false
  # System/Nodes: what each node runs, and its restart.

  use HotPatch.Console.Page.Template, [:system, :compared, :confirm_restart, :restart]

  alias HotPatch.Console.Commands
  alias HotPatch.Console.HTML
  alias HotPatch.Console.Operations
  alias HotPatch.Console.Page
  alias HotPatch.Console.Page.Results
  alias HotPatch.Console.Params
  alias HotPatch.Console.Problem
  alias HotPatch.Console.Response
  alias HotPatch.Console.Router

  # A page shall not wait longer for a node that is slow.
  @within 10_000

  @spec index(Router.request(), Router.access(), Router.form()) :: Router.response()
  def index(request, access, _form) do
    context = %{request: request, access: access, base: request.base}
    content = system(Map.merge(context, %{nodes: HotPatch.nodes(), compared: nil}))
    Page.render(context, {"Nodes", :nodes}, content)
  end

  @doc "Drift, stragglers and releases, which take a node longer to find out: a piece of the page, or all of it."
  @spec compared(Router.request(), Router.access(), Router.form()) :: Router.response()
  def compared(request, access, _form) do
    context = %{request: request, access: access, base: request.base}

    piece =
      compared(%{
        drift: HotPatch.drift(timeout: @within),
        stragglers: HotPatch.stragglers(timeout: @within),
        releases: HotPatch.releases(timeout: @within)
      })

    if request.headers["x-piece"] == "1" do
      Response.html(HTML.to_iodata(piece))
    else
      content = system(Map.merge(context, %{nodes: HotPatch.nodes(), compared: piece}))
      Page.render(context, {"Nodes", :nodes}, content)
    end
  end

  @spec confirm(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def confirm(request, access, _form, name) do
    context = %{request: request, access: access, base: request.base}
    nodes = HotPatch.nodes()

    case Enum.find(nodes, &(Atom.to_string(&1.node) == name and &1.managed?)) do
      nil ->
        Page.Problem.show(request, unknown())

      info ->
        others =
          for other <- nodes,
              other.managed?,
              other.node != info.node,
              same_release?(other, info),
              do: other.node

        content = confirm_restart(Map.merge(context, %{info: info, others: others}))
        Page.render(context, {"Restart #{name}", :nodes}, content)
    end
  end

  @spec restart(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def restart(request, access, form, name) do
    with {:ok, node} <- Params.node(name),
         {:ok, options} <- Params.options(:restart, form) do
      run = Commands.restart(node, request, access, options)
      Response.redirect(request, "/nodes/#{part(name)}/restart/#{run}")
    else
      :error -> Page.Problem.show(request, unknown())
      {:error, text} -> Page.Problem.show(request, text)
    end
  end

  @spec show(Router.request(), Router.access(), Router.form(), {String.t(), String.t()}) ::
          Router.response()
  def show(request, access, _form, {_name, run}) do
    context = %{request: request, access: access, base: request.base}

    case Operations.fetch(run) do
      {:ok, %{kind: :restart} = operation} ->
        content = restart(Map.merge(context, Results.outcome(operation)))
        Page.render(context, {"Restart", :nodes}, content)

      _unknown ->
        Page.Problem.show(
          request,
          Problem.new(404, :unknown_operation, "this node does not know it any more")
        )
    end
  end

  defp same_release?(one, other), do: one.release.name == other.release.name

  defp unknown,
    do: Problem.new(404, :unknown_node, "no connected node with HotPatch has this name")
end
