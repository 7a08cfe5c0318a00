defmodule HotPatch.NodeAgent.InstructionRunner.Applications do
  @moduledoc false
  # Applications are stopped and started, each by the process that is to wait for it: what fails
  # ends that process.

  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.Support.FileName
  alias HotPatch.Swap

  @doc "An application that runs here, with how it was started; nil if it does not run."
  @spec running(String.t()) :: {atom(), atom()} | nil
  def running(name) do
    Enum.find(:application.info()[:started], fn {application, _type} ->
      Atom.to_string(application) == name
    end)
  end

  @doc "Stops one."
  @spec stop(atom()) :: :ok
  def stop(application), do: application |> :application.stop() |> done(:not_started)

  @doc "Starts one, unless it runs."
  @spec start(atom(), atom()) :: :ok
  def start(application, type),
    do: application |> :application.start(type) |> done(:already_started)

  @doc "Has one that is new here: its modules, and it loaded or started."
  @spec add(String.t(), atom()) :: :ok
  def add(name, how) do
    application = LoadedCode.accepted_module(name)
    {:ok, [{:application, _, properties}]} = :file.consult(:code.where_is_file(~c"#{name}.app"))
    # In embedded mode nobody else would.
    :ok = :code.ensure_modules_loaded(Keyword.get(properties, :modules, []))

    case how do
      :none -> :ok
      :load -> application |> :application.load() |> done(:already_loaded)
      type -> start(application, type)
    end
  end

  @doc "Forgets one that was stopped."
  @spec unload(String.t()) :: :ok
  def unload(name),
    do: name |> LoadedCode.accepted_module() |> :application.unload() |> done(:not_loaded)

  @doc "Stops one that is gone from the release, forgets it, and takes out those of its modules that no other has by now."
  @spec remove(String.t()) :: :ok
  def remove(name) do
    application = LoadedCode.accepted_module(name)
    modules = own_modules(application)
    _ = if running(name), do: stop(application)
    :ok = unload(name)
    Enum.each(modules, &Swap.take_out/1)
  end

  defp own_modules(application) do
    with {:ok, modules} <- :application.get_key(application, :modules),
         {:ok, vsn} <- :application.get_key(application, :vsn) do
      folder = "/#{application}-#{vsn}/ebin"
      Enum.filter(modules, &String.ends_with?(folder_of(&1), folder))
    else
      :undefined -> []
    end
  end

  defp folder_of(module) do
    case :code.is_loaded(module) do
      {:file, [_ | _] = file} -> file |> FileName.to_binary() |> Path.dirname()
      _not_from_a_file -> ""
    end
  end

  # It may have been so already.
  defp done(:ok, _already), do: :ok
  defp done({:error, {already, _application}}, already), do: :ok
  defp done({:error, reason}, _already), do: exit(reason)
end
