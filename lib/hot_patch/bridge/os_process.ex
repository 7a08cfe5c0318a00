defmodule HotPatch.Bridge.OSProcess do
  @moduledoc false
  # The reader as a program of its own: what ends it does not end the VM.

  @behaviour HotPatch.Bridge

  alias HotPatch.Bridge
  alias HotPatch.Bridge.OSProcess.Server
  alias HotPatch.Support.FileName

  @impl Bridge
  def status do
    path = Server.executable()

    # Looks for the right to run it, too.
    if :os.find_executable(FileName.to_charlist(path)) != false,
      do: :ok,
      else: {:error, "HotPatch's archive reader #{path} is not there or cannot be run"}
  end

  @impl Bridge
  def request(name, blobs, options, about) do
    case Process.whereis(Server) do
      nil -> alone(name, blobs, options, about)
      server -> call(server, {:request, name, blobs, options, about})
    end
  end

  # Where the application does not run, as in a Mix task: a server for this call only.
  defp alone(name, blobs, options, about) do
    {:ok, server} = GenServer.start(Server, [])
    answer = call(server, {:request, name, blobs, options, about})
    stop(server)
    answer
  end

  defp stop(server) do
    GenServer.stop(server)
  catch
    # It has ended already, and the answer says so.
    :exit, _reason -> :ok
  end

  # The server sees to it that every request is answered in time.
  defp call(server, request) do
    GenServer.call(server, request, :infinity)
  catch
    :exit, _reason ->
      about = elem(request, 4)

      {:error,
       Bridge.failed(about, "the process that talks to the reader ended", %{cause: :exit})}
  end
end
