defmodule HotPatch.Console.Page.Problem do
  @moduledoc false
  # A page that says what is wrong, with the status that HTTP has for it.

  use HotPatch.Console.Page.Template, [:problem]

  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Page
  alias HotPatch.Console.Problem

  @doc "The page of a problem, or of what one is made from."
  @spec show(HotPatch.Console.Request.t(), Problem.t() | Exception.t() | String.t()) ::
          HotPatch.Console.Response.t()
  def show(request, %{__exception__: true} = error), do: show(request, Problem.from(error))
  def show(request, text) when is_binary(text), do: show(request, Problem.from(text))

  def show(request, problem) do
    access =
      case Authorization.identify(request) do
        {:ok, access} -> access
        {:error, _nobody} -> nil
      end

    title = Problem.headline(problem)
    content = problem(%{title: title, problem: problem, base: request.base})
    context = %{request: request, access: access}
    Page.render(context, {title, :none}, content, problem.status)
  end
end
