defmodule HotPatch.Console.Page.Live do
  @moduledoc false
  # What is under way, on every page: as it is now, and as a stream of the same piece of HTML.

  use HotPatch.Console.Page.Template, [:live]

  alias HotPatch.Console.EventStream
  alias HotPatch.Console.HTML
  alias HotPatch.Console.Progress
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Router

  # A browser that has no streams asks for it again and again.
  @spec show(Router.request(), Router.access(), Router.form()) :: Router.response()
  def show(request, access, _form) do
    if Request.stream?(request),
      do:
        EventStream.response(request, access, &HTML.to_iodata(fragment(request.base, access, &1))),
      else: Response.html(HTML.to_iodata(fragment(request.base, access)))
  end

  @doc "The piece of HTML, for who looks at it."
  @spec fragment(String.t(), Router.access(), [HotPatch.Event.t()]) :: HTML.safe()
  def fragment(base, access, events \\ Progress.events()) do
    operations =
      for operation <- Progress.operations(events), do: Map.put(operation, :rows, rows(operation))

    admin? = admin?(%{access: access})
    live(%{base: base, admin?: admin?, operations: operations})
  end

  defp rows(operation), do: for({node, event} <- operation.nodes, do: {node, event, steps(event)})

  # A node's phases before the one it is in are done.
  defp steps(event) do
    phases = Progress.phases(event)
    reached = Enum.find_index(phases, &(&1 == event.phase))

    for {phase, index} <- Enum.with_index(phases) do
      cond do
        reached == nil -> {phase, if(event.state == :failed, do: :failed, else: :done)}
        index < reached -> {phase, :done}
        index == reached -> {phase, event.state}
        true -> {phase, :ahead}
      end
    end
  end
end
