defmodule HotPatch.Console.Page.Cancel do
  @moduledoc false
  # Cancels what is under way: a page that asks what is to become of what is done, and then the act.

  use HotPatch.Console.Page.Template, [:confirm_cancel, :cancelled]

  alias HotPatch.Cancellation
  alias HotPatch.Console.Commands
  alias HotPatch.Console.Page
  alias HotPatch.Console.Params
  alias HotPatch.Console.Problem
  alias HotPatch.Console.Progress
  alias HotPatch.Console.Router

  @spec confirm(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def confirm(request, access, _form, id) do
    context = %{request: request, access: access, base: request.base, id: id}

    case Enum.find(Progress.operations(Progress.events()), &(&1.id == id)) do
      nil ->
        Page.Problem.show(
          request,
          Problem.new(404, :not_under_way, "it has ended by now; the journal says how")
        )

      operation ->
        content = confirm_cancel(Map.put(context, :operation, operation))
        Page.render(context, {"Cancel", :patch}, content)
    end
  end

  @spec cancel(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def cancel(request, access, form, id) do
    context = %{request: request, access: access, base: request.base}

    with {:ok, options} <- Params.options(:cancel, form),
         {:ok, %Cancellation{} = cancellation} <- Commands.cancel(id, request, access, options) do
      content = cancelled(Map.put(context, :cancellation, cancellation))
      Page.render(context, {"Cancelled", :patch}, content)
    else
      {:error, problem} -> Page.Problem.show(request, problem)
    end
  end
end
