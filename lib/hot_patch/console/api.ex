defmodule HotPatch.Console.API do
  @moduledoc false
  # The JSON interface: what HotPatch does, by HTTP. Parameters come as a form or in the query. Who accepts
  # nothing but text/plain gets what a terminal would show.

  alias HotPatch.Console.Commands
  alias HotPatch.Console.EventStream
  alias HotPatch.Console.Operations
  alias HotPatch.Console.Params
  alias HotPatch.Console.Problem
  alias HotPatch.Console.Progress
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Router
  alias HotPatch.Console.Sessions
  alias HotPatch.Host.RunningBuild
  alias HotPatch.Release
  alias HotPatch.Report

  @spec list(Router.request(), Router.access(), Router.form()) :: Router.response()
  def list(request, _access, _form), do: shown(request, HotPatch.list())
  @spec nodes(Router.request(), Router.access(), Router.form()) :: Router.response()
  def nodes(request, _access, _form), do: shown(request, HotPatch.nodes())
  @spec progress(Router.request(), Router.access(), Router.form()) :: Router.response()
  def progress(_request, _access, _form), do: json(Progress.events())
  @spec operations(Router.request(), Router.access(), Router.form()) :: Router.response()
  def operations(_request, _access, _form), do: json(Enum.map(Operations.list(), &plain/1))

  @spec events(Router.request(), Router.access(), Router.form()) :: Router.response()
  def events(request, access, _form), do: EventStream.response(request, access, &encode/1)

  @spec composition(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def composition(request, _access, _form, id), do: answer(request, HotPatch.composition(id))

  @spec survey(Router.request(), Router.access(), Router.form(), {atom(), String.t()}) ::
          Router.response()
  def survey(request, access, _form, {call, id}) do
    with_options(
      request,
      {call, request.query},
      &answer(request, apply(HotPatch, call, [id, &1 ++ Commands.looks(access)]))
    )
  end

  @spec look(Router.request(), Router.access(), Router.form(), atom()) :: Router.response()
  def look(request, _access, _form, call) do
    with_options(request, {call, request.query}, &answer(request, apply(HotPatch, call, [&1])))
  end

  @spec upload(Router.request(), Router.access(), Router.form()) :: Router.response()
  def upload(request, access, _form) do
    response =
      case Commands.upload(request, access) do
        {:ok, patch} ->
          shown(request, patch, 201)
          |> Response.put("location", "#{request.base}/api/patches/#{patch.id}")

        {:error, error} ->
          problem(request, error)
      end

    # The page's form was good for one upload; this is for the next.
    if access.session,
      do: Response.put(response, "x-form-token", Sessions.token(access.session)),
      else: response
  end

  @spec delete(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def delete(request, access, form, id) do
    with_options(request, {:delete, Map.merge(request.query, form)}, fn options ->
      case HotPatch.delete(id, options ++ Commands.who(request, access)) do
        :ok -> %Response{status: 204}
        {:error, error} -> problem(request, error)
      end
    end)
  end

  @spec antipatch(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def antipatch(request, _access, _form, id) do
    case HotPatch.export_antipatch(id) do
      {:ok, %{zip: zip}} ->
        %Response{headers: [{"content-type", "application/zip"}], body: zip}
        |> Response.put("content-disposition", attachment("back-#{id}.zip"))

      {:error, error} ->
        problem(request, error)
    end
  end

  @spec begin(Router.request(), Router.access(), Router.form(), {atom(), String.t()}) ::
          Router.response()
  def begin(request, access, form, {kind, _id} = what) do
    with_options(
      request,
      {kind, form},
      &carry_out(request, Commands.begin(what, request, access, &1))
    )
  end

  @spec restart(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def restart(request, access, form, name) do
    with {:ok, node} <- Params.node(name) do
      with_options(
        request,
        {:restart, form},
        &carry_out(request, Commands.restart(node, request, access, &1))
      )
    else
      :error ->
        problem(request, Problem.new(404, :unknown_node, "no connected node has this name"))
    end
  end

  @spec operation(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def operation(request, _access, _form, id) do
    case Operations.fetch(id) do
      {:ok, operation} ->
        if Request.text?(request), do: so_far(request, operation), else: json(plain(operation))

      :unknown ->
        problem(
          request,
          Problem.new(404, :unknown_operation, "this node knows no such operation")
        )
    end
  end

  # In text: how far it is, then what the call itself would have answered.
  defp so_far(_request, %{result: nil}),
    do: Response.text(Enum.map(Progress.events(), &[to_string(&1), "\n"]), 202)

  defp so_far(request, operation), do: answer(request, operation.result)

  @spec build(Router.request(), Router.access(), Router.form()) :: Router.response()
  def build(request, _access, _form) do
    digests = HotPatch.build_digests()
    release = Release.current()

    response =
      if Request.text?(request),
        do: digests |> Enum.sort() |> Enum.map(&sum/1) |> Response.text(),
        else: json(%{release: release, files: digests})

    # For a file beside the system's files, which sha256sum --check takes.
    file = "#{release.name}-#{release.version}.sha256"
    Response.put(response, "content-disposition", attachment(file))
  end

  defp sum({path, digest}), do: [digest, "  ", path, "\n"]

  @spec build_files(Router.request(), Router.access(), Router.form()) :: Router.response()
  def build_files(_request, _access, form) do
    # What a system is started with holds its secrets as like as not: that is for who is on its host.
    files =
      for {path, bytes} <- HotPatch.build_files(Map.get(form, "path", [])),
          not RunningBuild.settings?(path),
          do: {String.to_charlist(path), bytes}

    {:ok, {_name, zip}} = :zip.create(~c"build.zip", files, [:memory])
    %Response{headers: [{"content-type", "application/zip"}], body: zip}
  end

  @spec cancel(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def cancel(request, access, form, id) do
    with_options(
      request,
      {:cancel, form},
      &answer(request, Commands.cancel(id, request, access, &1))
    )
  end

  # As RFC 7240 has it: one who would rather not wait says so.
  defp carry_out(request, id) do
    if (Request.header(request, "prefer") || "") =~ "respond-async" do
      {:ok, operation} = Operations.fetch(id)

      shown(request, plain(operation), 202)
      |> Response.put("location", "#{request.base}/api/operations/#{id}")
      |> Response.put("preference-applied", "respond-async")
    else
      {:ok, operation} = Operations.await(id)
      answer(request, operation.result)
    end
  end

  defp plain(operation) do
    state =
      case operation.result do
        nil -> :running
        {:ok, _} -> :done
        {:error, _} -> :failed
      end

    operation
    |> Map.from_struct()
    |> Map.delete(:result)
    |> Map.merge(%{state: state, result: result(operation.result)})
  end

  defp result({_ok_or_error, result}), do: result
  defp result(nil), do: nil

  defp with_options(request, {call, form}, fun) do
    case Params.options(call, form) do
      {:ok, options} -> fun.(options)
      {:error, text} -> problem(request, text)
    end
  end

  defp answer(request, {:ok, result}), do: shown(request, result)
  defp answer(request, {:error, error}), do: problem(request, error)

  defp problem(request, %{status: _, detail: _} = problem),
    do: Problem.to_response(problem, request)

  defp problem(request, error), do: error |> Problem.from() |> Problem.to_response(request)

  defp shown(request, term, status \\ 200) do
    if Request.text?(request),
      do: term |> text() |> Response.lines(status) |> outcome(term),
      else: json(term, status)
  end

  defp text(list) when is_list(list), do: Enum.map_join(list, "\n", &text/1)
  defp text(%{id: id, state: state}), do: "#{state}: operation #{id}"
  defp text(result), do: to_string(result)

  # What a script that reads no tables asks of an apply.
  defp outcome(response, %Report{} = report),
    do:
      Response.put(
        response,
        "x-everywhere",
        if(Report.everywhere?(report), do: "yes", else: "no")
      )

  defp outcome(response, _other), do: response

  defp json(term, status \\ 200) do
    case HotPatch.to_json(term) do
      {:ok, json} -> Response.json(json, status)
      {:error, error} -> error |> Problem.from() |> Problem.to_response()
    end
  end

  defp encode(term) do
    {:ok, json} = HotPatch.to_json(term)
    json
  end

  defp attachment(name),
    do: ~s(attachment; filename="#{String.replace(name, ~r/[^A-Za-z0-9._-]/, "_")}")
end
