defmodule HotPatch.NodeAgent.Upgrade.ApplicationData do
  @moduledoc false
  # What the application controller knows of an application, from its resource file: version, modules,
  # callback module, what it needs. It changes with the release, by the function by which OTP's release
  # handler does it. That one makes environments anew too, and forgets what was set since the boot: it is given
  # each as it is, because what changes in them is set key by key (HotPatch.NodeAgent.Environment).

  require HotPatch.Support.Log, as: Log

  @typedoc "Environments by application, as a `sys.config` has them."
  @type configuration :: [{atom(), keyword()}]

  @doc """
  Has the applications of these resource files known as those say, as far as they are loaded.
  `configuration` is what applications get that are loaded later.
  """
  @spec change([Path.t()], configuration()) :: :ok
  def change(files, configuration) do
    applications =
      for file <- files, {:ok, application} <- [read(file)], do: as_it_is(application)

    own = for {:application, name, _} <- applications, do: {name, Application.get_all_env(name)}
    names = Keyword.keys(own)
    config = own ++ Enum.reject(configuration, fn {name, _env} -> name in names end)

    case :application_controller.change_application_data(applications, config) do
      :ok ->
        :ok

      # The code runs, and what the files say is for people and for the next start of an application.
      {:error, reason} ->
        Log.error("HotPatch: the data of applications are as before: #{inspect(reason)}")
    end
  end

  @doc "An application's resource file."
  @spec read(Path.t()) :: {:ok, {:application, atom(), keyword()}} | {:error, term()}
  def read(file) do
    case :file.consult(file) do
      {:ok, [{:application, name, properties}]} -> {:ok, {:application, name, properties}}
      {:ok, _other} -> {:error, :no_resource_file}
      {:error, reason} -> {:error, reason}
    end
  end

  defp as_it_is({:application, name, properties}),
    do: {:application, name, Keyword.put(properties, :env, Application.get_all_env(name))}
end
