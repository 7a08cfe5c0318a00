defmodule HotPatch.Console.Inets.Head do
  @moduledoc false
  # What the server lets one customise, called in the process of the connection: with the first header
  # of a request its time begins to run, and the server's own refusals get our headers. The time until
  # then is bounded by `Heads`.

  @behaviour :httpd_custom_api

  alias HotPatch.Console.Config
  alias HotPatch.Console.Response

  @impl :httpd_custom_api
  def request_header(header) do
    unless Process.get(__MODULE__), do: within(Config.current().request_seconds)
    {true, header}
  end

  @impl :httpd_custom_api
  def response_header(header), do: {true, header}

  @impl :httpd_custom_api
  def response_default_headers do
    for {name, value} <- Response.protection(),
        do: {String.to_charlist(name), String.to_charlist(value)}
  end

  @doc "Gives the request so many seconds from now."
  @spec within(pos_integer()) :: :ok
  def within(seconds) do
    no_deadline()
    # What the server sends itself when the head of a request takes too long.
    Process.put(__MODULE__, Process.send_after(self(), :timeout, seconds * 1000))
    :ok
  end

  @doc "Whether the first header of a request is there; also where its connection has ended."
  @spec begun?(connection :: pid()) :: boolean()
  def begun?(connection) do
    case Process.info(connection, :dictionary) do
      {:dictionary, entries} -> List.keymember?(entries, __MODULE__, 0)
      nil -> true
    end
  end

  @doc "Whoever this is has sent a request, or enough of it to be known: the connection is in use."
  @spec heard() :: :ok
  def heard do
    _ = Process.put({__MODULE__, :heard}, true)
    :ok
  end

  @doc "Whether a connection is in use; also where it has ended."
  @spec heard?(connection :: pid()) :: boolean()
  def heard?(connection) do
    case Process.info(connection, :dictionary) do
      {:dictionary, entries} -> List.keymember?(entries, {__MODULE__, :heard}, 0)
      nil -> true
    end
  end

  @doc "The request is here: the answer may take its time."
  @spec no_deadline() :: :ok
  def no_deadline do
    timer = Process.get(__MODULE__)
    _ = if is_reference(timer), do: Process.cancel_timer(timer)
    :ok
  end
end
