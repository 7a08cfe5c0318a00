defmodule HotPatch.Host.ReleaseSource do
  @moduledoc false
  # Where the identity of the running system is read from, see HotPatch.Release.

  alias HotPatch.Host.Config
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Support.Hex

  @typedoc "Name and version of a release."
  @type id :: {String.t(), String.t()}

  @typedoc "One of `:release_handler.which_releases/0`; `libs` are texts such as \"stdlib-4.2\"."
  @type listed :: {name :: charlist(), vsn :: charlist(), libs :: [charlist()], status :: atom()}

  # How long the release handler may take to answer, in milliseconds. Where it does not, what it has
  # said before counts.
  @within 1_000

  # More applications than this are told by a digest: a version should fit a line.
  @spelled_out 3

  @installed {__MODULE__, :installed}
  @applications {__MODULE__, :applications}

  @doc "What the configuration says."
  @spec configured() :: id() | nil
  def configured do
    Config.current().release
  end

  @doc "The release that this VM's boot script is of; nil where the script is OTP's own."
  @spec booted() :: id() | nil
  def booted, do: released(:init.script_id())

  @doc false
  # Boot scripts of OTP itself are called "Erlang/OTP", and "OTP  APN 181 01" up to OTP 24.
  @spec released({charlist() | String.t(), charlist() | String.t()}) :: id() | nil
  def released({name, version}) do
    name = to_string(name)

    if name == "Erlang/OTP" or String.starts_with?(name, "OTP  APN 181"),
      do: nil,
      else: {name, to_string(version)}
  end

  @doc """
  The release that runs as OTP's release handler knows it; nil where there is no release handler.

  While it installs a release it answers nobody. It is not waited for then: what it has said last
  counts until it has ended.
  """
  @spec installed() :: id() | nil
  def installed do
    last = :persistent_term.get(@installed, nil)

    with pid when is_pid(pid) <- Process.whereis(:release_handler),
         false <- busy?(pid),
         {:ok, releases} <- ask() do
      id = choose(booted(), releases, versions())
      if id != last, do: :persistent_term.put(@installed, id)
      id
    else
      nil -> nil
      _at_work -> last
    end
  end

  @doc "What the release handler lists; an error where there is none, or it is at work and answers nobody."
  @spec listed() :: {:ok, [listed()]} | :error
  def listed do
    with pid when is_pid(pid) <- Process.whereis(:release_handler),
         false <- busy?(pid) do
      ask()
    else
      _none_or_at_work -> :error
    end
  end

  @doc "Whether the release handler is doing something."
  @spec changing?() :: boolean()
  def changing? do
    case Process.whereis(:release_handler) do
      nil -> false
      pid -> busy?(pid)
    end
  end

  # A server that waits for a request is in its loop; one that handles a request, and may wait for
  # others meanwhile, is elsewhere.
  defp busy?(pid) do
    case Process.info(pid, [:message_queue_len, :current_function]) do
      [message_queue_len: 0, current_function: {module, function, _arity}] ->
        module != :gen_server and {module, function} != {:erlang, :hibernate}

      _has_something_to_do_or_is_gone ->
        true
    end
  end

  # Its own function waits for ever. Called by name: a system need not have sasl.
  defp ask do
    {:ok, :erpc.call(node(), :release_handler, :which_releases, [], @within)}
  catch
    _class, _late_or_gone -> :error
  end

  @doc """
  Which of the releases that the release handler lists is the one that runs, given the boot
  script's and the versions of the applications that are loaded.

  One that was installed is `current`, and `permanent` when it was made so; the one that was booted is
  `old` then. But a VM may also be booted into another release than the permanent one without the
  release handler, and the versions of what is loaded tell that.
  """
  @spec choose(id() | nil, [listed()], %{String.t() => String.t()}) :: id() | nil
  def choose(booted, releases, versions) do
    current = Enum.find(releases, &match?({_, _, _, :current}, &1))
    permanent = Enum.find(releases, &match?({_, _, _, :permanent}, &1))

    cond do
      current != nil -> id(current)
      booted == nil -> nil
      replaced?(booted, releases) and fits?(permanent, versions) -> id(permanent)
      true -> booted
    end
  end

  defp replaced?(booted, releases),
    do: Enum.any?(releases, &match?({^booted, :old}, {id(&1), elem(&1, 3)}))

  defp fits?(nil, _versions), do: false

  defp fits?({_name, _vsn, libs, _status}, versions) do
    Enum.all?(libs, fn lib ->
      case lib |> to_string() |> String.split("-", parts: 2) do
        [app, vsn] -> Map.get(versions, app, vsn) == vsn
        [_app] -> true
      end
    end)
  end

  defp id({name, vsn, _libs, _status}), do: {to_string(name), to_string(vsn)}

  @doc "Whether no application of a system is loaded, as on an operator's own node."
  @spec idle?() :: boolean()
  def idle?, do: loaded() == []

  @doc """
  The version of a system without a release, made of its applications; nil where there are none.

  It is read from the code path, because that is the same at the start of a VM and later, and kept
  for the life of the VM.
  """
  @spec applications() :: String.t() | nil
  def applications do
    with nil <- :persistent_term.get(@applications, nil),
         loaded = loaded(),
         [_ | _] = found <- on_path(:code.get_path(), :code.lib_dir(), Map.new(loaded)) || loaded do
      version = spell(found)
      :persistent_term.put(@applications, version)
      version
    else
      [] -> nil
      version -> version
    end
  end

  @doc """
  The applications in the folders of a code path, the first of each name, with the version that is
  loaded or else that of the file. Those in OTP's own folder count only where there are no others:
  on a host's common OTP there is much that nobody has asked for.
  """
  @spec on_path([charlist()], charlist(), %{String.t() => String.t()}) ::
          [{String.t(), String.t()}] | nil
  def on_path(path, otp, loaded) do
    found =
      for folder <- path,
          folder != ~c".",
          file <- resources(folder),
          name = List.to_string(:filename.rootname(file)),
          not SystemLibrary.application?(name),
          vsn = loaded[name] || vsn(folder, file),
          do: {name, vsn, List.starts_with?(folder, otp ++ ~c"/")}

    found = Enum.uniq_by(found, &elem(&1, 0))
    {within, outside} = Enum.split_with(found, &elem(&1, 2))

    case if(outside == [], do: within, else: outside) do
      [] -> nil
      some -> for {name, vsn, _within?} <- some, do: {name, vsn}
    end
  end

  # Of archives too, which only the primitive loader looks into.
  defp resources(folder) do
    case :erl_prim_loader.list_dir(folder) do
      {:ok, files} -> for file <- files, :filename.extension(file) == ~c".app", do: file
      :error -> []
    end
  end

  defp vsn(folder, file) do
    with {:ok, bytes, _name} <- :erl_prim_loader.get_file(:filename.join(folder, file)),
         text = :unicode.characters_to_list(bytes),
         {:ok, tokens, _end} <- :erl_scan.string(text),
         {:ok, {:application, _name, properties}} <- :erl_parse.parse_term(tokens),
         {:vsn, vsn} <- List.keyfind(properties, :vsn, 0) do
      to_string(vsn)
    else
      _not_readable -> nil
    end
  end

  # Read from a table: nobody is asked, also while applications are being started.
  defp loaded do
    for {app, _description, vsn} <- :application.loaded_applications(),
        name = Atom.to_string(app),
        not SystemLibrary.application?(name),
        do: {name, to_string(vsn)}
  end

  defp versions do
    for {app, _description, vsn} <- :application.loaded_applications(),
        into: %{},
        do: {Atom.to_string(app), to_string(vsn)}
  end

  defp spell(applications) do
    case applications |> Enum.map(fn {name, vsn} -> "#{name}-#{vsn}" end) |> Enum.sort() do
      few when length(few) <= @spelled_out -> Enum.join(few, "+")
      many -> "#{length(many)}-applications-" <> digest(many)
    end
  end

  defp digest(versions) do
    hash = :crypto.hash(:sha256, Enum.join(versions, "+"))
    binary_part(Hex.encode(hash), 0, 12)
  end
end
