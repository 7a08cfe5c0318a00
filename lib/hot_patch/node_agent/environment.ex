defmodule HotPatch.NodeAgent.Environment do
  @moduledoc false
  # What a patch changes in the environments of applications: set in the moment in which its
  # modules become current, set again at every start, and put back by its rollback. Values are
  # the host's secrets as like as not: nothing here puts one into a text.

  alias HotPatch.Host.Config
  alias HotPatch.NodeAgent.AtomName
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Store.Applied
  alias HotPatch.Support.TermText

  require HotPatch.Support.Log, as: Log

  # Milliseconds that an application may take over its config_change/3.
  @within 5_000

  @type value :: {:ok, term()} | :none
  @type change :: %{application: atom(), key: atom(), old: value(), new: value()}

  @typedoc "A change before the patch is accepted: what comes from its archive is still text."
  @type foreseen :: %{
          application: atom(),
          key: atom() | String.t(),
          new: {:ok, term()} | {:text, String.t()}
        }

  # Keys become atoms: no archive needs as many.
  @most 1_000

  @doc """
  What applying these would change here: of applications that this node has loaded. No atom is
  made of what an archive says.
  """
  @spec foresee([Payload.setting()]) :: {:ok, [foreseen()]} | {:error, String.t()}
  def foresee(wanted) when length(wanted) > @most,
    do: {:error, "the patch has #{length(wanted)} settings, the limit is #{@most}"}

  def foresee(wanted) do
    {:ok,
     for {application, key, value} <- wanted, application = loaded(application) do
       %{application: application, key: known(key), new: foreseen(value)}
     end}
  end

  defp known(key) when is_binary(key) do
    String.to_existing_atom(key)
  rescue
    ArgumentError -> key
  end

  defp known(key), do: key

  defp foreseen({:text, text}), do: {:text, text}
  defp foreseen(value), do: {:ok, value}

  @doc "The changes themselves, of a patch that is accepted: text becomes atoms and terms."
  @spec accept([foreseen() | change()]) :: {:ok, [change()]} | {:error, String.t()}
  def accept(foreseen) do
    Enum.reduce_while(foreseen, {:ok, []}, fn one, {:ok, changes} ->
      case accept_one(one) do
        {:ok, change} -> {:cont, {:ok, changes ++ [change]}}
        {:error, text} -> {:halt, {:error, text}}
      end
    end)
  end

  defp accept_one(%{old: _} = change), do: {:ok, change}

  defp accept_one(%{application: application, key: key, new: new}) do
    case value(new) do
      {:ok, value} ->
        key = if is_binary(key), do: String.to_atom(key), else: key
        old = current(application, key)
        {:ok, %{application: application, key: key, old: old, new: {:ok, value}}}

      # Given as text with the apply: the reader of archives takes less than Erlang does.
      :error ->
        {:error, "the value given for #{key} of #{application} is no Erlang term"}
    end
  end

  defp loaded(name) when is_binary(name) do
    loaded(String.to_existing_atom(name))
  rescue
    ArgumentError -> nil
  end

  defp loaded(application), do: if(Application.spec(application), do: application)

  defp value({:text, text}), do: TermText.parse(text)
  defp value({:ok, value}), do: {:ok, value}

  @doc "The way back from a record's changes."
  @spec back([change()]) :: [change()]
  def back(changes) do
    for change <- changes,
        do: %{change | old: current(change.application, change.key), new: change.old}
  end

  @doc """
  For a patch that takes the place of all before it: what those have set and it does not goes
  back to what it was before the first of them.
  """
  @spec instead([foreseen()], [Applied.t()]) :: [foreseen() | change()]
  def instead(own, records) do
    mine = MapSet.new(own, &name/1)

    others =
      records
      |> Enum.flat_map(& &1.config)
      |> Enum.reject(&(name(&1) in mine))
      |> Enum.uniq_by(&name/1)

    own ++ back(others)
  end

  @doc "Makes changes current; as often as one likes."
  @spec set([change()]) :: :ok
  def set(changes), do: Enum.each(changes, &put(&1, &1.new))

  @doc "Takes back what was set, and is still so."
  @spec unset([change()]) :: :ok
  def unset(changes) do
    for change <- changes, current(change.application, change.key) == change.new do
      put(change, change.old)
    end

    :ok
  end

  # Persistent: an application that is loaded later does not set it back to its default.
  defp put(%{application: application, key: key}, {:ok, value}),
    do: Application.put_env(application, key, value, persistent: true)

  defp put(%{application: application, key: key}, :none),
    do: Application.delete_env(application, key, persistent: true)

  @doc """
  Tells the applications, as a release upgrade does: `config_change/3` of their callback module,
  with what has changed, is new, and is gone.
  """
  @spec tell([change()]) :: :ok
  def tell(changes) do
    for {application, changes} <- Enum.group_by(changes, & &1.application),
        {:ok, {module, _args}} <- [:application.get_key(application, :mod)],
        function_exported?(module, :config_change, 3),
        do: call(application, module, arguments(changes))

    :ok
  end

  defp arguments(changes) do
    changed =
      for %{key: key, old: {:ok, old}, new: {:ok, new}} <- changes, old != new, do: {key, new}

    new = for %{key: key, old: :none, new: {:ok, new}} <- changes, do: {key, new}
    gone = for %{key: key, old: {:ok, _}, new: :none} <- changes, do: key
    [changed, new, gone]
  end

  defp call(application, module, args) do
    {pid, monitor} = spawn_monitor(module, :config_change, args)

    receive do
      {:DOWN, ^monitor, :process, ^pid, :normal} -> :ok
      {:DOWN, ^monitor, :process, ^pid, _reason} -> warn(application, module, "failed")
    after
      @within ->
        Process.demonitor(monitor, [:flush])
        warn(application, module, "is not waited for any longer")
    end
  end

  defp warn(application, module, what) do
    Log.warning("HotPatch: #{inspect(module)}.config_change/3 of #{application} #{what}",
      application: application
    )
  end

  @doc "Sets again what the patches in force have set: a start begins with the release's own."
  @spec restore([Applied.t()]) :: :ok
  def restore(records) do
    changes = Enum.flat_map(records, & &1.config)
    set(changes)
    # What HotPatch itself reads has been read by now.
    if Enum.any?(changes, &(&1.application == :hot_patch)), do: Config.reload()
    :ok
  end

  @doc "The names of what is changed, for people."
  @spec names([foreseen() | change()]) :: [String.t()]
  def names(changes),
    do: for(change <- changes, do: "#{change.application}: #{AtomName.text(change.key)}")

  # Which key of which application.
  @spec name(foreseen() | change()) :: {atom(), atom() | String.t()}
  defp name(change), do: {change.application, change.key}

  defp current(application, key) do
    case Application.fetch_env(application, key) do
      {:ok, value} -> {:ok, value}
      :error -> :none
    end
  end
end
