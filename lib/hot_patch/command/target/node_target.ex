defmodule HotPatch.Command.Target.NodeTarget do
  @moduledoc false
  # A cluster by one of its nodes: the public functions of HotPatch, called there.

  @behaviour HotPatch.Command.Target

  alias HotPatch.Command.Connection
  alias HotPatch.Command.Target
  alias HotPatch.Report

  @type t :: %__MODULE__{node: node()}
  @enforce_keys [:node]
  defstruct [:node]

  @spec open(String.t(), String.t() | nil) :: {:ok, t()} | {:error, String.t()}
  def open(name, cookie),
    do: with({:ok, node} <- Connection.open(name, cookie), do: {:ok, %__MODULE__{node: node}})

  @impl Target
  def source(target) do
    %{
      digests: fn -> told(call(target, :build_digests, [])) end,
      contents: fn paths -> told(call(target, :build_files, [paths])) end
    }
  end

  # Nothing goes on without an answer.
  defp told({:error, error}), do: raise(text(error))
  defp told(answer), do: answer

  @impl Target
  def release(target) do
    case Connection.call(target.node, HotPatch.Release, :current, []) do
      %{name: name, version: version} -> {:ok, "#{name}-#{version}"}
      {:error, error} -> failed(error)
    end
  end

  @impl Target
  def upload(target, zip, name) do
    case call(target, :upload, [zip, [name: name]]) do
      {:ok, patch} -> {:ok, patch.id}
      {:error, error} -> failed(error)
    end
  end

  @impl Target
  def delete(target, id) do
    case call(target, :delete, [id, []]) do
      :ok -> :ok
      {:error, error} -> failed(error)
    end
  end

  @impl Target
  def plan(target, id, options) do
    case call(target, :plan, [id, options]) do
      {:ok, plan} -> {:ok, to_string(plan)}
      {:error, error} -> failed(error)
    end
  end

  @impl Target
  def apply(target, id, options, bars?) do
    options = Keyword.put_new(options, :progress, if(bars?, do: :bar, else: :none))

    case call(target, :apply, [id, options]) do
      {:ok, report} ->
        {:ok, %{text: to_string(report), everywhere?: Report.everywhere?(report)}}

      {:error, error} ->
        failed(error)
    end
  end

  @impl Target
  def rollback_line(target, id), do: "mix hot_patch.remote #{target.node} rollback #{id}"

  @impl Target
  def permanent_line(target, version),
    do: "mix hot_patch.remote #{target.node} make-permanent #{version}"

  defp call(target, function, arguments),
    do: Connection.call(target.node, HotPatch, function, arguments)

  defp failed(error), do: {:error, {text(error), report(error)}}

  defp text(error) when is_exception(error), do: Exception.message(error)
  defp text(text), do: text

  defp report(%HotPatch.Error{report: report}) when report != nil, do: to_string(report)
  defp report(_error), do: nil
end
