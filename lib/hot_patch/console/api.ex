defmodule HotPatch.Console.API do
  @moduledoc false
  # The JSON interface: what HotPatch does, by HTTP. Parameters come as a form or in the query.

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

  @spec list(Router.request(), Router.access(), Router.form()) :: Router.response()
  def list(_request, _access, _form), do: json(HotPatch.list())
  @spec nodes(Router.request(), Router.access(), Router.form()) :: Router.response()
  def nodes(_request, _access, _form), do: json(HotPatch.nodes())
  @spec progress(Router.request(), Router.access(), Router.form()) :: Router.response()
  def progress(_request, _access, _form), do: json(Progress.events())
  @spec operations(Router.request(), Router.access(), Router.form()) :: Router.response()
  def operations(_request, _access, _form), do: json(Enum.map(Operations.list(), &plain/1))

  @spec events(Router.request(), Router.access(), Router.form()) :: Router.response()
  def events(request, access, _form), do: EventStream.response(request, access, &encode/1)

  @spec composition(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def composition(_request, _access, _form, id), do: answer(HotPatch.composition(id))

  @spec survey(Router.request(), Router.access(), Router.form(), {atom(), String.t()}) ::
          Router.response()
  def survey(request, _access, _form, {call, id}) do
    with_options(call, request.query, &answer(apply(HotPatch, call, [id, &1])))
  end

  @spec look(Router.request(), Router.access(), Router.form(), atom()) :: Router.response()
  def look(request, _access, _form, call) do
    with_options(call, request.query, &answer(apply(HotPatch, call, [&1])))
  end

  @spec upload(Router.request(), Router.access(), Router.form()) :: Router.response()
  def upload(request, access, _form) do
    response =
      case Commands.upload(request, access) do
        {:ok, patch} ->
          json(patch, 201) |> Response.put("location", "#{request.base}/api/patches/#{patch.id}")

        {:error, error} ->
          problem(error)
      end

    # The page's form was good for one upload; this is for the next.
    if access.session,
      do: Response.put(response, "x-form-token", Sessions.token(access.session)),
      else: response
  end

  @spec delete(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def delete(request, access, form, id) do
    with_options(:delete, Map.merge(request.query, form), fn options ->
      case HotPatch.delete(id, options ++ Commands.who(request, access)) do
        :ok -> %Response{status: 204}
        {:error, error} -> problem(error)
      end
    end)
  end

  @spec antipatch(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def antipatch(_request, _access, _form, id) do
    case HotPatch.export_antipatch(id) do
      {:ok, %{zip: zip}} ->
        %Response{headers: [{"content-type", "application/zip"}], body: zip}
        |> Response.put("content-disposition", ~s(attachment; filename="#{file_name(id)}"))

      {:error, error} ->
        problem(error)
    end
  end

  @spec begin(Router.request(), Router.access(), Router.form(), {atom(), String.t()}) ::
          Router.response()
  def begin(request, access, form, {kind, _id} = what) do
    with_options(kind, form, &carry_out(request, Commands.begin(what, request, access, &1)))
  end

  @spec restart(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def restart(request, access, form, name) do
    with {:ok, node} <- Params.node(name) do
      with_options(
        :restart,
        form,
        &carry_out(request, Commands.restart(node, request, access, &1))
      )
    else
      :error ->
        Problem.to_response(Problem.new(404, :unknown_node, "no connected node has this name"))
    end
  end

  @spec operation(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def operation(_request, _access, _form, id) do
    case Operations.fetch(id) do
      {:ok, operation} ->
        json(plain(operation))

      :unknown ->
        Problem.to_response(
          Problem.new(404, :unknown_operation, "this node knows no such operation")
        )
    end
  end

  @spec cancel(Router.request(), Router.access(), Router.form(), String.t()) ::
          Router.response()
  def cancel(request, access, form, id) do
    with_options(:cancel, form, &answer(Commands.cancel(id, request, access, &1)))
  end

  # As RFC 7240 has it: one who would rather not wait says so.
  defp carry_out(request, id) do
    if (Request.header(request, "prefer") || "") =~ "respond-async" do
      {:ok, operation} = Operations.fetch(id)

      json(plain(operation), 202)
      |> Response.put("location", "#{request.base}/api/operations/#{id}")
      |> Response.put("preference-applied", "respond-async")
    else
      {:ok, operation} = Operations.await(id)
      answer(operation.result)
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

  defp with_options(call, form, fun) do
    case Params.options(call, form) do
      {:ok, options} -> fun.(options)
      {:error, text} -> problem(text)
    end
  end

  defp answer({:ok, result}), do: json(result)
  defp answer({:error, error}), do: problem(error)

  defp problem(error), do: error |> Problem.from() |> Problem.to_response()

  defp json(term, status \\ 200) do
    case HotPatch.to_json(term) do
      {:ok, json} -> Response.json(json, status)
      {:error, error} -> problem(error)
    end
  end

  defp encode(term) do
    {:ok, json} = HotPatch.to_json(term)
    json
  end

  defp file_name(id), do: "back-" <> String.replace(id, ~r/[^A-Za-z0-9._-]/, "_") <> ".zip"
end
