defmodule HotPatch.Proving.Load do
  @moduledoc """
  A load under which a patch is proved: a script (`load: "load.exs"`) with one module that has these callbacks. It runs
  in the VM that proves, and reaches the nodes by `:erpc`. Without a script the system's own start is the load.
  `mix hot_patch.rehearse --init load.exs` writes one to start from.
  """

  alias HotPatch.Error

  @doc "Starts the load; what it gives is handed to the others."
  @callback start(nodes :: [node()]) :: state :: term()
  @doc "Whether all is well now: asked after each step. It may wait for answers that are under way."
  @callback check(nodes :: [node()], state :: term()) :: :ok | {:error, String.t()}
  @doc "Ends the load, and says whether all that was asked has been answered."
  @callback stop(nodes :: [node()], state :: term()) :: :ok | {:error, String.t()}
  @doc "More environment variables for the n-th node, such as ports of its own."
  @callback environment(index :: pos_integer()) :: [{String.t(), String.t()}]
  @optional_callbacks environment: 1

  @template """
  defmodule Load do
    @behaviour HotPatch.Proving.Load

    # What the system does all day, begun here: clients that call, messages that come in. It goes on between
    # the steps, and while messages are played (--replay): in processes of its own.
    @impl true
    def start(nodes), do: for(node <- nodes, do: spawn(fn -> client(node) end))

    defp client(node) do
      ask(node)
      Process.sleep(100)
      client(node)
    end

    # In place of this question a call of your system. A node that is restarted is away for a while.
    defp ask(node) do
      :erpc.call(node, :erlang, :system_info, [:process_count])
    rescue
      _error -> :away
    end

    # After each step: is everybody there, is every answer right?
    @impl true
    def check(nodes, _clients) do
      case for node <- nodes, Node.ping(node) != :pong, do: node do
        [] -> :ok
        lost -> {:error, "\#{inspect(lost)} do not answer"}
      end
    end

    # At the end: was every call answered?
    @impl true
    def stop(_nodes, clients) do
      for client <- clients, do: Process.exit(client, :kill)
      :ok
    end

    # Ports and the like, another for each node. PORT is one that is free.
    @impl true
    def environment(_index), do: []
  end
  """

  @doc "The text of a script to start from."
  @spec template() :: String.t()
  def template, do: @template

  @doc false
  # The module of a script; this one where there is none.
  @spec read(Path.t() | nil) :: {:ok, module()} | {:error, Error.t()}
  def read(nil), do: {:ok, HotPatch.Proving.OwnStart}

  def read(path) do
    modules = for {module, _bytes} <- Code.compile_file(path), do: module

    case Enum.filter(modules, &load?/1) do
      [module] ->
        {:ok, module}

      _none_or_several ->
        {:error,
         Error.new(
           :build,
           "#{path}: it must have one module with start/1, check/2 and stop/2; --init writes one"
         )}
    end
  rescue
    error -> {:error, Error.new(:build, "#{path}: #{Exception.message(error)}")}
  end

  defp load?(module) do
    Enum.all?([start: 1, check: 2, stop: 2], fn {name, arity} ->
      function_exported?(module, name, arity)
    end)
  end

  @doc false
  @spec environment(module(), pos_integer()) :: [{String.t(), String.t()}]
  def environment(load, index) do
    if function_exported?(load, :environment, 1), do: load.environment(index), else: []
  end
end
