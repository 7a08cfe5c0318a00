defmodule HotPatch.NodeAgent.Location do
  @moduledoc false
  # Where a file of an archive belongs on this node.
  #
  # An archive path is right when it is a suffix of the path from which the node loads (or
  # would load) the file, reaching at least from the application's folder:
  # `my_app-1.2.0/ebin/Elixir.MyApp.Foo.beam`, or from `releases/1.2.0/consolidated/...`.
  #
  # What belongs to the system, and what it boots by, is refused: by the path that the archive names,
  # and by the place to which that leads here, through whatever links.

  alias HotPatch.Host.Attachment
  alias HotPatch.Host.BootFile
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

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
      case LoadedCode.path(name) do
        {have, actual} when is_binary(actual) -> compare(path, anchor, actual, have)
        {:loaded, :no_file} -> would_load(path, anchor, :loaded)
        :none -> would_load(path, anchor, :new)
        :system -> {:error, SystemLibrary.reason(name, "erts")}
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
    with :ok <- of_this_version(anchor(path), name),
         :ok <- not_sticky(name),
         :ok <- of_this_version(anchor(former_path), nil),
         {:ok, target} <- path |> would_go() |> new_place(name),
         {:ok, former} <- former_path |> would_go() |> former_place() do
      case LoadedCode.path(name) do
        {have, ^target} -> {:ok, :moved, have, target, former}
        {have, ^former} -> {:ok, :moves, have, target, former}
        {:loaded, :no_file} -> {:ok, :moves, :loaded, target, former}
        :none -> {:ok, :moves, :new, target, former}
        :system -> {:error, SystemLibrary.reason(name, "erts")}
        {_have, actual} -> {:wrong_path, elsewhere(name, former_path, actual)}
      end
    end
  end

  defp of_this_version(anchor, module) do
    with :ok <- not_system(anchor, module), do: right_version(anchor, module)
  end

  defp would_go(path), do: path |> would_load(anchor(path), :new) |> allowed()

  # A node that runs the module would be left without it.
  defp new_place({:ok, _have, target}, _name), do: {:ok, target}

  defp new_place({:absent, reason}, name) do
    if LoadedCode.path(name) == :none,
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

    with :ok <- no_boot_file(path, anchor),
         :ok <- not_system(anchor, nil),
         :ok <- right_version(anchor, nil) do
      path |> would_be(anchor, :new) |> allowed()
    end
  end

  # By the path that the archive names.
  defp no_boot_file(path, anchor) do
    kind =
      case anchor do
        {:release, _vsn, below} -> BootFile.in_version(below)
        {:application, _name, _vsn, _folder, _below} -> nil
        nil -> BootFile.kind(path)
      end

    if kind, do: {:error, BootFile.reason(path, kind)}, else: :ok
  end

  # Why a file must not be put where it would go on this node; nil if it may be.
  @spec forbidden(Path.t()) :: String.t() | nil
  defp forbidden(target) do
    place = Folder.resolve(target)
    # Only a link leads there, for what the archive names has been looked at.
    owner = if place != Path.expand(target), do: system_folder(place)

    cond do
      kind = boots_by(place) -> BootFile.reason(target, kind)
      owner -> SystemLibrary.reason(target, owner)
      below?(place, Folder.resolve(Store.directory())) -> "#{target} is among HotPatch's own data"
      true -> nil
    end
  end

  @doc """
  Why an application's resource file must not be changed; nil of any other file. That it is in an archive is
  no harm where it is the node's own: it is easily taken along with the modules.
  """
  @spec resource_file(Path.t()) :: String.t() | nil
  def resource_file(target) do
    with {:application, name, _vsn, _folder, below} <- anchor(target),
         kind when kind != nil <- BootFile.in_application(name, below) do
      BootFile.reason(target, kind)
    else
      _ -> nil
    end
  end

  defp allowed({:ok, _have, target} = found) do
    case forbidden(target) do
      nil -> found
      reason -> {:error, reason}
    end
  end

  defp allowed(other), do: other

  # By the place to which it leads.
  defp boots_by(place) do
    root = Release.root() && Folder.resolve(Release.root())

    cond do
      place in booted_by() -> "what this VM was booted by"
      root && below?(place, root) -> place |> Path.relative_to(root) |> BootFile.kind()
      true -> nil
    end
  end

  # The same for as long as the VM runs, and asked for every file.
  defp booted_by do
    key = {__MODULE__, :booted_by}

    with nil <- :persistent_term.get(key, nil) do
      paths = Enum.map(BootFile.of_this_vm(), &Folder.resolve/1)
      :persistent_term.put(key, paths)
      paths
    end
  end

  defp below?(place, folder), do: String.starts_with?(place, folder <> "/")

  # The application of the system whose folder has this file.
  defp system_folder(place) do
    Enum.find_value(:code.get_path(), fn ebin ->
      folder = ebin |> FileName.to_binary() |> Path.dirname()
      {name, _vsn} = folder |> Path.basename() |> split()
      if SystemLibrary.application?(name) and below?(place, Folder.resolve(folder)), do: name
    end)
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
    first(parts, fn folder ->
      LoadedCode.application_folder(elem(split(folder), 0)) != :unknown
    end)
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
        {:error, SystemLibrary.reason(module || application, application)}
    end
  end

  defp system_application({:application, name, _vsn, _folder, _below}) do
    if SystemLibrary.application?(name), do: name
  end

  defp system_application(_anchor), do: nil

  defp system_owner(module) do
    with {_have, actual} when is_binary(actual) <- LoadedCode.path(module),
         {:application, _, _, _, _} = anchor <- anchor(actual),
         application when is_binary(application) <- system_application(anchor) do
      application
    else
      _ -> if carried?(module), do: "hot_patch"
    end
  end

  defp carried?(name) do
    case LoadedCode.module(name) do
      {:ok, module} -> Attachment.carried?(module)
      :unknown -> false
    end
  end

  # The folders of OTP itself are, and were told apart before: this is one of somebody's own.
  defp not_sticky(name) do
    with {:ok, module} <- LoadedCode.module(name),
         true <- :code.is_sticky(module),
         # What the VM itself brings is told apart below.
         false <- LoadedCode.path(name) == :system do
      {:error,
       "#{name} is protected on this node: its folder#{folder_of(name)} is sticky (code:stick_dir/1), and the VM " <>
         "loads nothing else in its place; call code:unstick_dir/1 with it first, if the module is to be patched"}
    else
      _ -> :ok
    end
  end

  defp folder_of(name) do
    case LoadedCode.path(name) do
      {_have, path} when is_binary(path) -> " #{Path.dirname(path)}"
      _ -> ""
    end
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
    with {:ok, application, folder} <- LoadedCode.application_folder(name) do
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
    case LoadedCode.application_folder(name) do
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
