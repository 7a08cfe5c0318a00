defmodule HotPatch.NodeAgent.StaticFiles do
  @moduledoc false
  # Static files of Phoenix endpoints. An endpoint reads its manifest, which says under which name with a digest each
  # file is served, when it starts, and keeps it. Told that its configuration has changed, it reads it again
  # (Phoenix.Endpoint.Supervisor, config_change/3), which is what its config_change/2 is for.

  require HotPatch.Support.Log, as: Log

  alias HotPatch.Support.Cause

  # Where it keeps what the manifest says of each file; versions of Phoenix before 1.7.13 never take in another.
  @latest :cache_static_manifest_latest

  @doc """
  Has the endpoints whose manifests are among these paths of a patch read them again; gives the paths of files that
  are served under another name now, as templates name them, with that name.
  """
  @spec read_again([String.t()]) :: %{String.t() => String.t()}
  def read_again(paths) do
    for endpoint <- endpoints(),
        manifest = manifest(endpoint),
        Enum.any?(paths, &of?(&1, manifest)),
        change <- reread(endpoint),
        into: %{},
        do: change
  end

  defp endpoints do
    for name <- Process.registered(),
        :erlang.module_loaded(name),
        function_exported?(name, :static_lookup, 1),
        function_exported?(name, :config_change, 2),
        :ets.whereis(name) != :undefined,
        do: name
  end

  # Below the folder of its application.
  defp manifest(endpoint) do
    case endpoint.config(:cache_static_manifest) do
      {application, path} -> {application, path}
      path when is_binary(path) -> {endpoint.config(:otp_app), path}
      _none -> nil
    end
  end

  # A path of a patch begins with the application's folder, which may have its version.
  defp of?(path, {application, manifest}) do
    case String.split(path, "/", parts: 2) do
      [folder, ^manifest] -> hd(String.split(folder, "-")) == Atom.to_string(application)
      _ -> false
    end
  end

  defp reread(endpoint) do
    before = latest(endpoint)
    true = :ets.delete(endpoint, @latest)
    :ok = endpoint.config_change([], [])
    now = latest(endpoint)

    for {path, name} <- now, before[path] not in [nil, name] do
      {"/" <> path, endpoint.static_path("/" <> path)}
    end
  rescue
    error ->
      why = Cause.of(:error, error, __STACKTRACE__)
      Log.warning("HotPatch: #{inspect(endpoint)} has not read its static manifest again: #{why}")
      []
  end

  defp latest(endpoint) do
    case :ets.lookup(endpoint, @latest) do
      [{@latest, latest}] when is_map(latest) -> latest
      _none -> %{}
    end
  end
end
