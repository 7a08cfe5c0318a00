defmodule HotPatch.Console.Inets.Heads do
  @moduledoc false
  # Bounds the time until a request's first header is there, from outside of its connection. From
  # then on `Head` does it; before, none of our code runs in there, and of OTP's HTTP server the
  # older ones count from the connection on, the newer ones anew with every byte.

  alias HotPatch.Console.Inets.Head

  @typedoc "Connections and when each was first seen, in milliseconds of monotonic time."
  @type seen :: %{pid() => integer()}

  @doc "Ends those that were seen `seconds` ago and have not begun a request; gives all that there are."
  @spec sweep(server :: pid(), seen(), seconds :: pos_integer()) :: seen()
  def sweep(server, seen, seconds) do
    now = System.monotonic_time(:millisecond)
    seen = for pid <- connections(server), into: %{}, do: {pid, Map.get(seen, pid, now)}

    for {pid, since} <- seen, now - since >= seconds * 1000, not Head.begun?(pid) do
      # What the server sends itself when a request takes too long.
      send(pid, :timeout)
    end

    seen
  end

  defp connections(server) do
    for instance <- children(server, :httpd_instance_sup),
        supervisor <- children(instance, :httpd_connection_sup),
        {_id, pid, _, _} when is_pid(pid) <- Supervisor.which_children(supervisor),
        do: pid
  catch
    # The server is about to end, which its owner is told.
    :exit, _reason -> []
  end

  defp children(supervisor, kind) do
    for {{^kind, _address, _port, _profile}, pid, _, _} when is_pid(pid) <-
          Supervisor.which_children(supervisor),
        do: pid
  end
end
