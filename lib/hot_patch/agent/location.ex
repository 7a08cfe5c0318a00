defmodule HotPatch.Agent.Location do
  @moduledoc false
  # Where a file of an archive belongs on this node.
  #
  # An archive path is right when it is a suffix of the path from which the node loads (or
  # would load) the file, reaching at least from the application's folder:
  # `my_app-1.2.0/ebin/Elixir.MyApp.Foo.beam`, or from `releases/1.2.0/consolidated/...`.

  alias HotPatch.Agent.Running
  alias HotPatch.Attachment
  alias HotPatch.Release
  alias HotPatch.SystemLibrary

  @typedoc """
  The place that a path names: an application's folder and what is below it, or that of a
  release version.
  """
  @type anchor ::
          {:application, name :: String.t(), vsn :: String.t() | nil, folder :: String.t(),
           below :: Path.t()}
          | {:release, vsn :: String.t(), below :: Path.t()}

  @type result ::
          {:ok, :loaded | :on_disk | :new, target :: Path.t()}
          | {:absent, reason :: String.t()}
          | {:wrong_path, reason :: String.t()}
          | {:error, reason :: String.t()}

  @doc "Where a module's file belongs, and whether the node has that module already."
  @spec of_module(Path.t(), String.t()) :: result()
  def of_module(path, name) do
    anchor = anchor(path)

    with :ok <- not_system(anchor, name),
         :ok <- not_sticky(name),
         :ok <- right_version(anchor, name) do
      case Running.path(name) do
        {have, actual} when is_binary(actual) -> compare(path, anchor, actual, have)
        {:loaded, :no_file} -> would_load(path, anchor, :loaded)
        :none -> would_load(path, anchor, :new)
        :system -> {:error, system_reason(name, "Erlang/OTP")}
      end
    end
  end

  @typedoc """
  Both places of a module that moves, and where this node has it now: still in its former place
  (`:moves`), or in the new one already (`:moved`).
  """
  @type move ::
          {:ok, :moves | :moved, :loaded | :on_disk | :new, target :: Path.t(),
           former :: Path.t() | nil}
          | {:absent | :wrong_path | :error, reason :: String.t()}

  @doc "Where the file of a module belongs that moves from one application to another."
  @spec of_move(Path.t(), Path.t(), String.t()) :: move()
  def of_move(path, former_path, name) do
    with :ok <- allowed(anchor(path), name),
         :ok <- not_sticky(name),
         :ok <- allowed(anchor(former_path), nil),
         {:ok, target} <- new_place(would_load(path, anchor(path), :new), name),
         {:ok, former} <- former_place(would_load(former_path, anchor(former_path), :new)) do
      case Running.path(name) do
        {have, ^target} -> {:ok, :moved, have, target, former}
        {have, ^former} -> {:ok, :moves, have, target, former}
        {:loaded, :no_file} -> {:ok, :moves, :loaded, target, former}
        :none -> {:ok, :moves, :new, target, former}
        :system -> {:error, system_reason(name, "Erlang/OTP")}
        {_have, actual} -> {:wrong_path, elsewhere(name, former_path, actual)}
      end
    end
  end

  defp allowed(anchor, module) do
    with :ok <- not_system(anchor, module), do: right_version(anchor, module)
  end

  # A node that runs the module would be left without it.
  defp new_place({:ok, _have, target}, _name), do: {:ok, target}

  defp new_place({:absent, reason}, name) do
    if Running.path(name) == :none,
      do: {:absent, reason},
      else: {:error, "#{name} moves, and #{reason}"}
  end

  defp new_place(wrong, _name), do: wrong

  defp former_place({:ok, _have, former}), do: {:ok, former}
  defp former_place({:absent, _reason}), do: {:ok, nil}
  defp former_place(wrong), do: wrong

  defp elsewhere(name, former_path, actual) do
    "the patch moves #{name} from #{former_path}, but the node loads it from #{suggested(actual)}: " <>
      "build the patch from what runs"
  end

  @doc "Where a file that is no module belongs."
  @spec of_file(Path.t()) :: result()
  def of_file(path) do
    anchor = anchor(path)

    with :ok <- not_system(anchor, nil),
         :ok <- right_version(anchor, nil) do
      would_be(path, anchor, :new)
    end
  end

  defp anchor(path) do
    parts = Path.split(path)

    ebin_anchor(parts) || release_anchor(parts) || known_anchor(parts) || versioned_anchor(parts)
  end

  defp ebin_anchor(parts) do
    case Enum.reverse(parts) do
      [file, "ebin", folder | _] -> application(folder, "ebin/" <> file)
      _ -> nil
    end
  end

  defp release_anchor(parts) do
    case Enum.drop_while(parts, &(&1 != "releases")) do
      ["releases", vsn, part | rest] -> {:release, vsn, Path.join([part | rest])}
      _ -> nil
    end
  end

  defp known_anchor(parts) do
    first(parts, fn folder -> Running.application_folder(elem(split(folder), 0)) != :unknown end)
  end

  defp versioned_anchor(parts), do: first(parts, &(&1 =~ ~r/\A[a-z][a-z0-9_]*-\d/))

  defp first(parts, wanted?) do
    case Enum.drop_while(parts, &(not wanted?.(&1))) do
      [folder, part | rest] -> application(folder, Path.join([part | rest]))
      _ -> nil
    end
  end

  defp application(folder, below) do
    {name, vsn} = split(folder)
    {:application, name, vsn, folder, below}
  end

  # "my_app-1.2.0": no application's name can hold a dash.
  defp split(folder) do
    case String.split(folder, "-", parts: 2) do
      [name, vsn] -> {name, vsn}
      [name] -> {name, nil}
    end
  end

  # Both the place that the archive names and the place where the module really is.
  defp not_system(anchor, module) do
    case system_application(anchor) || (module && system_owner(module)) do
      nil ->
        :ok

      application ->
        {:error, system_reason(module || application, SystemLibrary.owner(application))}
    end
  end

  defp system_application({:application, name, _vsn, _folder, _below}) do
    if SystemLibrary.application?(name), do: name
  end

  defp system_application(_anchor), do: nil

  defp system_owner(module) do
    with {_have, actual} when is_binary(actual) <- Running.path(module),
         {:application, _, _, _, _} = anchor <- anchor(actual),
         application when is_binary(application) <- system_application(anchor) do
      application
    else
      _ -> if carried?(module), do: "hot_patch"
    end
  end

  defp carried?(name) do
    case Running.module(name) do
      {:ok, module} -> Attachment.carried?(module)
      :unknown -> false
    end
  end

  # The folders of OTP itself are, and were told apart before: this is one of somebody's own.
  defp not_sticky(name) do
    with {:ok, module} <- Running.module(name), true <- :code.is_sticky(module) do
      {:error,
       "#{name} is protected on this node: its folder#{folder_of(name)} is sticky (code:stick_dir/1), and the VM " <>
         "loads nothing else in its place; call code:unstick_dir/1 with it first, if the module is to be patched"}
    else
      _ -> :ok
    end
  end

  defp folder_of(name) do
    case Running.path(name) do
      {_have, path} when is_binary(path) -> " #{Path.dirname(path)}"
      _ -> ""
    end
  end

  defp system_reason(what, owner) do
    "#{what} belongs to #{owner}: system libraries are never patched, they change with an upgrade"
  end

  defp right_version({:application, name, vsn, _folder, _below}, _module) when is_binary(vsn) do
    case running_version(name) do
      running when running in [nil, vsn] ->
        :ok

      running ->
        {:error,
         "made for #{name} #{vsn}, but this node runs #{name} #{running}: a patch is for one version"}
    end
  end

  defp right_version({:release, vsn, _below}, _module) do
    %Release{version: running} = Release.current()

    if vsn == running or Release.root() == nil do
      :ok
    else
      {:error,
       "made for release version #{vsn}, but this node runs #{running}: a patch is for one version"}
    end
  end

  defp right_version(_anchor, _module), do: :ok

  defp running_version(name) do
    with {:ok, application, folder} <- Running.application_folder(name) do
      case Application.spec(application, :vsn) do
        nil -> folder |> Path.basename() |> split() |> elem(1)
        vsn -> to_string(vsn)
      end
    else
      :unknown -> nil
    end
  end

  # The node has a file for this module: the archive must name that very place.
  defp compare(path, anchor, actual, have) do
    if anchor != nil and suffix?(path, actual) do
      {:ok, have, actual}
    else
      {:wrong_path, "the node loads it from #{suggested(actual)}: name it so in the archive"}
    end
  end

  # The code path has only these folders.
  defp would_load(path, anchor, have) do
    case anchor && anchor |> elem(tuple_size(anchor) - 1) |> Path.split() do
      nil -> no_anchor(path)
      [folder, _file] when folder in ["ebin", "consolidated"] -> would_be(path, anchor, have)
      _ -> {:wrong_path, "modules are loaded from an application's ebin folder: put it there"}
    end
  end

  # No such file yet, so the place follows from the archive's path.
  defp would_be(path, {:application, name, _vsn, folder, below}, have) do
    case Running.application_folder(name) do
      {:ok, _application, root} ->
        target = Path.join(root, below)

        if suffix?(path, target) do
          {:ok, have, target}
        else
          {:wrong_path,
           "#{name} is at #{root} on this node, not in a folder called #{folder}: " <>
             "name it #{Path.join(Path.basename(root), below)} in the archive"}
        end

      :unknown ->
        {:absent, "the application #{name} is not on this node"}
    end
  end

  defp would_be(path, {:release, vsn, below}, have) do
    case Release.root() do
      nil ->
        {:absent, "this node does not run from a release, so it has no releases/#{vsn}"}

      root ->
        target = Path.join([root, "releases", vsn, below])
        if suffix?(path, target), do: {:ok, have, target}, else: no_anchor(path)
    end
  end

  defp would_be(path, nil, _have), do: no_anchor(path)

  defp no_anchor(path) do
    {:wrong_path,
     "#{path} names no application's folder: begin it with one, as in my_app-1.2.0/ebin/my_app.beam"}
  end

  defp suffix?(path, actual), do: String.ends_with?(actual, "/" <> path)

  # The shortest right path: from the application's folder, or from releases/.
  defp suggested(actual) do
    parts = Path.split(actual)
    depth = if match?([_, "consolidated", _, "releases" | _], Enum.reverse(parts)), do: 4, else: 3
    parts |> Enum.take(-depth) |> Path.join()
  end
end
