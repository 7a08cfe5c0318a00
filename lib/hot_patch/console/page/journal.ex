defmodule HotPatch.Console.Page.Journal do
  @moduledoc false
  # The journal, with filters.

  use HotPatch.Console.Page.Template, [:journal]

  alias HotPatch.Console.Page
  alias HotPatch.Console.Problem
  alias HotPatch.Console.Request
  alias HotPatch.Console.Router

  @shown 200
  @read 10_000

  @spec index(Router.request(), Router.access(), Router.form()) :: Router.response()
  def index(request, access, _form) do
    context = %{request: request, access: access, base: request.base}
    filter = Map.new(["patch", "what", "by", "node"], &{&1, chosen(Request.query(request, &1))})

    case HotPatch.journal(last: @read) do
      {:ok, %{items: entries} = answers} ->
        found = Enum.filter(entries, &match(&1, filter))

        content =
          journal(
            Map.merge(context, %{
              answers: {:ok, answers},
              filter: filter,
              entries: Enum.take(found, @shown),
              found: length(found),
              choices: choices(entries)
            })
          )

        Page.render(context, {"Journal", :journal}, content)

      {:error, error} ->
        Page.Problem.show(request, Problem.from(error))
    end
  end

  defp chosen(""), do: nil
  defp chosen(value), do: value

  defp match(entry, filter) do
    Enum.all?(filter, fn
      {_name, nil} -> true
      {"patch", patch} -> String.starts_with?(entry.patch || "", patch)
      {"what", what} -> Atom.to_string(entry.what) == what
      {"by", by} -> entry.by == by
      {"node", node} -> Enum.any?(entry.nodes, &(Atom.to_string(&1.node) == node))
    end)
  end

  # What there is to choose from is what there is.
  defp choices(entries) do
    [
      {"what", "What", entries |> Enum.map(&Atom.to_string(&1.what)) |> unique()},
      {"patch", "Patch",
       entries |> Enum.map(& &1.patch) |> Enum.filter(&is_binary/1) |> unique()},
      {"by", "Who", entries |> Enum.map(& &1.by) |> unique()},
      {"node", "Node",
       for(entry <- entries, node <- entry.nodes, do: Atom.to_string(node.node)) |> unique()}
    ]
  end

  defp unique(values), do: values |> Enum.reject(&is_nil/1) |> Enum.uniq() |> Enum.sort()
end
