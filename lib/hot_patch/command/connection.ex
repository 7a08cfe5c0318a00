defmodule HotPatch.Command.Connection do
  @moduledoc false
  # A terminal's way to a running cluster: it connects as a hidden node, which only calls. Names become atoms: they are
  # the operator's own words, in a VM that lives for one call.

  @doc "Connects to a node by its full name; `cookie` is nil for that of this user."
  @spec open(String.t(), String.t() | nil) :: {:ok, node()} | {:error, String.t()}
  def open(text, cookie) do
    node = String.to_atom(text)

    with :ok <- distribute(if(text =~ ".", do: :longnames, else: :shortnames)) do
      if cookie, do: Node.set_cookie(node, String.to_atom(cookie))

      if Node.connect(node) == true,
        do: {:ok, node},
        else:
          {:error,
           "#{node} cannot be reached: is it up, is that its full name, and the cookie right?"}
    end
  end

  # It needs no port of its own, nor an epmd on this host.
  defp distribute(domain) do
    host = if domain == :longnames, do: "@127.0.0.1", else: ""
    own = String.to_atom("hot_patch_remote_#{System.pid()}#{host}")

    with false <- Node.alive?(),
         {:error, reason} <-
           :net_kernel.start(own, %{name_domain: domain, hidden: true, dist_listen: false}) do
      {:error, "distribution does not start on this host: #{inspect(reason)}"}
    else
      _ -> :ok
    end
  end

  # Milliseconds between two looks at a node that is being restarted.
  @every 500

  @doc "Whether there is a connection."
  @spec open?(node()) :: boolean()
  def open?(node), do: node in Node.list(:connected)

  @doc """
  Waits until a node that is being restarted has come to run the release that it boots, which is the new one when it
  serves in that, and the former one else; gives which releases there are on which nodes.
  """
  @spec settled(node(), integer()) :: {:ok, HotPatch.Answers.t()} | {:error, String.t()}
  def settled(node, deadline) do
    with true <- Node.connect(node) == true,
         {:ok, %{items: items} = answers} <- call(node, HotPatch, :releases, []),
         true <- Enum.any?(items, &(&1.node == node and &1.running? and &1.status == :permanent)) do
      {:ok, answers}
    else
      _not_yet ->
        receive do
        after
          @every -> :ok
        end

        if System.monotonic_time(:millisecond) < deadline,
          do: settled(node, deadline),
          else:
            {:error, "#{node} is not back, or has not come to serve: look at its log and console"}
    end
  end

  @doc "Calls a function on a node; an error says what was wrong with that, or is one of HotPatch."
  @spec call(node(), module(), atom(), [term()]) :: term() | {:error, String.t() | Exception.t()}
  def call(node, module, function, arguments) do
    :erpc.call(node, module, function, arguments)
  rescue
    error in ErlangError ->
      case error.original do
        {:exception, :undef, [{_module, function, _, _} | _]} ->
          {:error, "HotPatch on #{node} does not have #{function}: it is another version"}

        {:exception, %HotPatch.Error{} = error, _stack} ->
          {:error, error}

        {:erpc, :noconnection} ->
          {:error,
           "the connection to #{node} was lost; what was begun goes on there, unless the node has ended: see its journal"}

        reason ->
          {:error, "#{node} failed: #{inspect(reason, limit: 20)}"}
      end
  end
end
