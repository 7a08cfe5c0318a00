defmodule HotPatch.Console.Page.Actions do
  @moduledoc false
  # What is done to a patch: a page that repeats what will happen and asks for a reason, and then the act.

  use HotPatch.Console.Page.Template, [:confirm, :confirm_rehearsal, :confirm_delete]

  alias HotPatch.Console.Commands
  alias HotPatch.Console.Page
  alias HotPatch.Console.Page.Plans
  alias HotPatch.Console.Params
  alias HotPatch.Console.Response
  alias HotPatch.Console.Router
  alias HotPatch.Status

  @doc "The page before an apply or a rollback."
  @spec confirm(Router.request(), Router.access(), Router.form(), {atom(), String.t()}) ::
          Router.response()
  def confirm(request, access, _form, {kind, id}) do
    Page.Patches.with_patch(request, access, {id, kind}, fn context, patch ->
      restart? = kind == :rollback and Page.Patches.back_by_restart?(patch)
      restart = if restart?, do: [restart: :rolling], else: []
      options = if kind == :rollback, do: [operation: :rollback] ++ restart, else: []

      with {:ok, plan} <- HotPatch.plan(patch.id, options) do
        known = %{
          nodes: Enum.map(plan.nodes, & &1.node),
          chosen: Map.new([disk: plan.disk] ++ restart),
          demanded: [:reason]
        }

        more = %{
          kind: kind,
          plan: plan,
          plans: Plans.digest(plan),
          refusals: refusals(plan),
          restart?: restart?,
          known: known
        }

        {:ok, confirm(Map.merge(context, more))}
      end
    end)
  end

  @doc "The page before a rehearsal."
  @spec confirm_rehearsal(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def confirm_rehearsal(request, access, _form, id) do
    Page.Patches.with_patch(request, access, {id, :rehearse}, fn context, _patch ->
      nodes = for %{managed?: true, node: node} <- HotPatch.nodes(), do: node
      {:ok, confirm_rehearsal(Map.put(context, :known, %{nodes: nodes}))}
    end)
  end

  @doc "Begins an apply, a rollback or a rehearsal, and goes to where it can be watched."
  @spec begin(Router.request(), Router.access(), Router.form(), {atom(), String.t()}) ::
          Router.response()
  def begin(request, access, form, {kind, id} = what) do
    with {:ok, options} <- Params.options(kind, form),
         :ok <- reasoned(kind, options) do
      run = Commands.begin(what, request, access, options)
      Response.redirect(request, "/patch/#{part(id)}/results/#{run}")
    else
      {:error, text} -> Page.Problem.show(request, text)
    end
  end

  @spec confirm_delete(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def confirm_delete(request, access, _form, id) do
    Page.Patches.with_patch(request, access, {id, :delete}, fn context, _patch ->
      {:ok, confirm_delete(context)}
    end)
  end

  @spec delete(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def delete(request, access, form, id) do
    with {:ok, options} <- Params.options(:delete, form),
         :ok <- HotPatch.delete(id, options ++ Commands.who(request, access)) do
      Response.redirect(request, "/patch")
    else
      {:error, problem} -> Page.Problem.show(request, problem)
    end
  end

  # A page is read in haste; the journal is read afterwards. What changes nothing needs no reason.
  defp reasoned(:rehearse, _options), do: :ok

  defp reasoned(_change, options) do
    if Keyword.has_key?(options, :reason), do: :ok, else: {:error, "say why, for the journal"}
  end

  # What would have it refused, each once.
  defp refusals(plan) do
    for(node <- plan.nodes, text <- refusal(node), do: {text, node.node})
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort()
  end

  defp refusal(%{error: error}) when error != nil, do: [error]

  defp refusal(node) do
    for file <- node.files, Status.refuses?(file.status), do: "#{file.path}: #{file.reason}"
  end
end
