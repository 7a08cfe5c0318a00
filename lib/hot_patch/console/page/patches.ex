defmodule HotPatch.Console.Page.Patches do
  @moduledoc false
  # System/Patch: the list and the upload on the left; on the right one patch: what is in it, what a
  # check and a plan say of it. What is done to it is in Page.Actions.

  use HotPatch.Console.Page.Template, [:patches, :welcome, :contents, :check, :plan]

  alias HotPatch.Composition
  alias HotPatch.Console.Commands
  alias HotPatch.Console.Page
  alias HotPatch.Console.Params
  alias HotPatch.Console.Problem
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Router
  alias HotPatch.Patch
  alias HotPatch.PatchName
  alias HotPatch.Release
  alias HotPatch.Status

  @spec redirect(Router.request(), Router.access(), Router.form()) :: Router.response()
  def redirect(request, _access, _form), do: Response.redirect(request, "/patch")

  @spec index(Router.request(), Router.access(), Router.form()) :: Router.response()
  def index(request, access, _form) do
    most = HotPatch.Host.Config.current().max_archive_bytes
    context = %{request: request, access: access, patch: nil, list: HotPatch.list()}

    page(context, nil, welcome(Map.merge(context, %{most: most, meanings: meanings()})))
  end

  @spec contents(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def contents(request, access, _form, id) do
    with_patch(request, access, {id, :contents}, fn context, patch ->
      with {:ok, composition} <- HotPatch.composition(patch) do
        {statuses, unknown} = compared(patch)

        {:ok,
         contents(
           Map.merge(context, %{
             composition: composition,
             declared: Composition.declared(composition),
             refused: Composition.refused(composition),
             groups: groups(composition, statuses),
             unknown: unknown
           })
         )}
      end
    end)
  end

  @spec check(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def check(request, access, _form, id) do
    surveyed(request, access, {id, :check}, fn context, report ->
      check(Map.put(context, :report, report))
    end)
  end

  @spec plan(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def plan(request, access, _form, id) do
    surveyed(request, access, {id, :plan}, fn context, plan ->
      plans = HotPatch.Console.Page.Plans.digest(plan)
      plan(Map.merge(context, %{plan: plan, plans: plans, calls: calls(context, plan)}))
    end)
  end

  # What comes is in the archive; what comes back by a rollback is not.
  defp calls(%{operation: :apply, patch: patch}, plan) do
    case HotPatch.composition(patch) do
      {:ok, composition} -> Page.Pictures.calls(plan, composition)
      {:error, _no_longer_kept} -> nil
    end
  end

  defp calls(_rollback, _plan), do: nil

  defp surveyed(request, access, {_id, call} = tab, fun) do
    with_patch(request, access, tab, fn context, patch ->
      with {:ok, options} <- options(call, request.query),
           {:ok, result} <- apply(HotPatch, call, [patch.id, options ++ Commands.looks(access)]) do
        {:ok, fun.(Map.put(context, :operation, options[:operation] || :apply), result)}
      end
    end)
  end

  defp options(call, query) do
    with {:error, text} <- Params.options(call, query),
         do: {:error, Problem.from(text)}
  end

  @doc """
  A page about one patch. `fun` gives its content; where it gives an error, that is the content, and the
  patch with its other pages stays in sight.
  """
  @spec with_patch(Request.t(), term(), {String.t(), tab :: atom()}, (map(), Patch.t() -> term())) ::
          Response.t()
  def with_patch(request, access, {id, tab}, fun) do
    context = %{request: request, access: access, base: request.base, list: HotPatch.list()}

    case PatchName.find(context.list.items, id) do
      {:error, %{reason: :unknown_patch}} ->
        Page.Problem.show(
          request,
          Problem.new(404, :unknown_patch, "no patch has this id; it may have been deleted")
        )

      {:error, error} ->
        Page.Problem.show(request, Problem.from(error))

      {:ok, patch} ->
        context = Map.put(context, :patch, patch)

        case fun.(context, patch) do
          {:ok, content} -> page(context, tab, content)
          {:error, %{__exception__: true} = error} -> problem(context, tab, Problem.from(error))
          {:error, problem} -> problem(context, tab, problem)
        end
    end
  end

  defp problem(context, tab, problem) do
    page(context, tab, Page.Notice.problem(problem), problem.status)
  end

  defp page(%{patch: patch} = context, tab, content, status \\ 200) do
    assigns =
      Map.merge(context, %{
        base: context.request.base,
        patch: patch,
        tab: tab,
        content: content
      })

    title = if patch, do: patch.id, else: "Patch"
    Page.render(context, {title, :patch}, patches(assigns), status)
  end

  # By the folder of its application; the order is that of the archive.
  defp groups(composition, statuses) do
    composition.files
    |> Enum.map(&Map.put(Map.from_struct(&1), :changed, statuses[&1.path]))
    |> Enum.chunk_by(&application(&1.path))
    |> Enum.map(fn [first | _] = files -> {application(first.path), files} end)
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.map(fn {name, parts} -> {name, Enum.concat(parts)} end)
    |> Enum.sort()
  end

  defp application(path) do
    case path
         |> Path.split()
         |> Enum.split_while(&(&1 not in ["ebin", "priv", "consolidated"])) do
      {[_ | _] = before, [_ | _]} -> List.last(before)
      {[_file], []} -> "."
      {[first | _], []} -> first
      {[], _} -> "."
    end
  end

  # Whether a file is another than what the nodes have is what a check finds.
  defp compared(%Patch{state: :retired}), do: {%{}, "the patch is retired"}

  defp compared(patch) do
    case HotPatch.check(patch.id, configuration: :leave) do
      {:ok, report} ->
        files = for node <- report.nodes, file <- node.files, do: {file.path, file.status}

        {files
         |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
         |> Map.new(fn {path, statuses} -> {path, change(statuses)} end), nil}

      {:error, error} ->
        {%{}, Exception.message(error)}
    end
  end

  defp change(statuses) do
    case Status.combine(statuses) do
      :not_changed -> if Enum.all?(statuses, &(&1 == :not_changed)), do: :same, else: :changed
      status when status in [:ok, :not_updated] -> :changed
      :not_loaded -> :new
      status -> status
    end
  end

  @doc "The pages of a patch: what there is to see and to do, as it is now."
  @spec tabs(Patch.t(), boolean()) :: [{atom(), String.t(), String.t()}]
  def tabs(patch, admin?) do
    current? = patch.state != :retired and patch.kept_on != []
    applied? = (patch.applied_on != [] and patch.state != :retired) or back_by_restart?(patch)

    for {true, tab, path, text} <- [
          {patch.kept_on != [], :contents, "", "Contents"},
          {current?, :check, "/check", "Check"},
          {current?, :plan, "/plan", "Plan"},
          {current? and admin?, :rehearse, "/rehearse", "Rehearse"},
          {current? and admin?, :apply, "/apply", "Apply"},
          {true, :results, "/results", "Results"},
          {applied? and admin?, :rollback, "/rollback", "Roll back"},
          {patch.kept_on != [] and admin?, :delete, "/delete", "Delete"}
        ],
        do: {tab, path, text}
  end

  @doc "Whether this node has come by a restart to where an upgrade leads: no node has a record of it, and it goes back so."
  @spec back_by_restart?(Patch.t()) :: boolean()
  def back_by_restart?(%Patch{upgrade: nil}), do: false

  def back_by_restart?(%Patch{release: from} = patch) do
    current = Release.current()

    patch.applied_on == [] and current.name == from.name and current.version == patch.upgrade
  end

  @doc false
  @spec kind(map()) :: String.t()
  def kind(file),
    do: HotPatch.Composition.Entry.kind_text(struct(HotPatch.Composition.Entry, file))
end
