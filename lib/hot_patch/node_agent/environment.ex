defmodule HotPatch.NodeAgent.Environment do
  @moduledoc false
  # What a patch changes in the environments of applications: set in the moment in which its
  # modules become current, set again at every start, and put back by its rollback. It is merged over
  # what is there, as config.exs does: who changes the address of an endpoint does not take its keys
  # away. Values are the host's secrets as like as not: nothing here puts one into a text.

  alias HotPatch.Host.Config
  alias HotPatch.NodeAgent.AtomName
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Store.Applied
  alias HotPatch.Support.ConfigMerge
  alias HotPatch.Support.Isolated
  alias HotPatch.Support.TermText

  require HotPatch.Support.Log, as: Log

  # Milliseconds that an application may take over its config_change/3.
  @within 5_000

  @type value :: {:ok, term()} | :none
  @type change :: Applied.setting()

  @typedoc """
  A change before the patch is accepted: what comes from its archive is still text. `base` is what it
  is merged over, where that is not what is there. What a new release sets is whole, in External Term Format, and what
  it has no more is gone.
  """
  @type foreseen :: %{
          application: atom(),
          key: atom() | String.t(),
          base: value() | :current,
          new: {:ok, term()} | {:text, String.t()} | {:etf, binary()} | :gone
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
       %{application: application, key: known(key), base: :current, new: foreseen(value)}
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
      case accept_one(one, changes) do
        {:ok, changes} -> {:cont, {:ok, changes}}
        {:error, text} -> {:halt, {:error, text}}
      end
    end)
  end

  defp accept_one(%{old: _} = change, changes), do: {:ok, changes ++ [change]}

  # The next boot of that release sets it by itself.
  defp accept_one(%{new: new, application: application, key: key}, changes)
       when new == :gone or elem(new, 0) == :etf do
    key = atom(key)
    value = with {:etf, bytes} <- new, do: {:ok, :erlang.binary_to_term(bytes)}
    value = if value == :gone, do: :none, else: value
    old = current(application, key)
    change = %{application: application, key: key, old: old, new: value, given: :back}
    {:ok, changes ++ [Map.put(change, :defaults, [])]}
  end

  defp accept_one(%{application: application, key: key, new: new} = one, changes) do
    case value(new) do
      {:ok, value} ->
        {:ok, with_own(changes, %{one | key: atom(key)}, value)}

      # Given as text with the apply: the reader of archives takes less than Erlang does.
      :error ->
        {:error, "the value given for #{key} of #{application} is no Erlang term"}
    end
  end

  defp atom(key) when is_binary(key), do: String.to_atom(key)
  defp atom(key), do: key

  # Several for one key come one over the other, and are one change.
  defp with_own(changes, one, value) do
    {same, others} = Enum.split_with(changes, &(name(&1) == name(one)))
    others ++ [over(same, one, value)]
  end

  defp over([%{given: {:merge, given}, old: old} = change], _one, value) do
    %{
      change
      | new: merged(change.new, value),
        given: {:merge, ConfigMerge.merge(given, value)},
        defaults: Keyword.merge(defaults(change.key, old, value), change.defaults)
    }
  end

  defp over(_none_or_back, %{application: application, key: key} = one, value) do
    old = current(application, key)
    base = if one.base == :current, do: old, else: one.base

    %{
      application: application,
      key: key,
      old: old,
      new: merged(base, value),
      given: {:merge, value},
      defaults: defaults(key, old, value)
    }
  end

  # An endpoint of Phoenix keeps what it has a default for when it is told of values without it: what the
  # default is has to be known before, to be told on the way back.
  defp defaults(endpoint, old, value) do
    before = with {:ok, before} <- old, do: before

    if Keyword.keyword?(value) and endpoint?(endpoint) do
      for {key, _value} <- value,
          not (Keyword.keyword?(before) and Keyword.has_key?(before, key)),
          {:ok, default} <- [Isolated.run(fn -> endpoint.config(key) end, @within)],
          do: {key, default}
    else
      []
    end
  end

  defp endpoint?(module),
    do: function_exported?(module, :config, 1) and function_exported?(module, :config_change, 2)

  defp merged({:ok, below}, value), do: {:ok, ConfigMerge.merge(below, value)}
  defp merged(:none, value), do: {:ok, value}

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
  def back(changes), do: for(change <- changes, do: way_back([change]))

  # From changes of one key, the first of them first. Where that key is as the last of them has left it
  # it becomes what it was before the first, to the letter; where the system began anew with another
  # configuration, or the host has set something since, only what the patches have set goes.
  defp way_back([%{application: application, key: key} = first | _] = changes) do
    old = current(application, key)
    last = List.last(changes)

    new =
      if old == last.new,
        do: first.old,
        else: changes |> Enum.reverse() |> Enum.reduce(old, &without/2)

    defaults = for change <- changes, one <- Map.get(change, :defaults, []), do: one
    back = %{application: application, key: key, old: old, new: new, given: :back}
    Map.put(back, :defaults, Enum.uniq_by(defaults, &elem(&1, 0)))
  end

  defp without(%{given: {:merge, above}, old: {:ok, before}}, {:ok, current}),
    do: {:ok, ConfigMerge.unmerge(current, above, before)}

  # There was nothing before: who has put more there since keeps that.
  defp without(%{given: {:merge, above}, old: :none}, {:ok, current}) do
    case Keyword.keyword?(current) && ConfigMerge.unmerge(current, above, []) do
      [_ | _] = others -> {:ok, others}
      _nothing_else -> :none
    end
  end

  defp without(change, _current), do: change.old

  @doc """
  For a patch that takes the place of all before it: what those have set and it does not goes
  back to what it was before the first of them, and what it sets comes over that.
  """
  @spec instead([foreseen()], [Applied.t()]) :: [foreseen() | change()]
  def instead(own, records) do
    before = records |> Enum.flat_map(& &1.config) |> Enum.group_by(&name/1)
    mine = MapSet.new(own, &name/1)
    others = for {name, changes} <- before, name not in mine, do: way_back(changes)

    own =
      for one <- own do
        case Map.fetch(before, name(one)) do
          {:ok, changes} -> %{one | base: way_back(changes).new}
          :error -> one
        end
      end

    own ++ others
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
  with what has changed, is new, and is gone; the values are whole, as they are set now. Then looks
  whether that is what is there. Gives what is not as it should be, in words.
  """
  @spec tell([change()]) :: [String.t()]
  def tell(changes) do
    changes = Enum.reject(changes, &(&1.old == &1.new))

    told =
      for {application, changes} <- Enum.group_by(changes, & &1.application),
          {:ok, {module, _args}} <- [:application.get_key(application, :mod)],
          Code.ensure_loaded?(module) and function_exported?(module, :config_change, 3),
          text = call(application, module, arguments(changes)),
          do: text

    told ++ for(change <- changes, current(change) != change.new, do: not_so(change))
  end

  defp not_so(change) do
    "#{name_text(change)} is not what was set: something else has changed it just now"
  end

  defp arguments(changes) do
    changed =
      for %{key: key, old: {:ok, old}, new: {:ok, new}} = change <- changes,
          old != new,
          do: {key, with_defaults(new, change)}

    new = for %{key: key, old: :none, new: {:ok, new}} <- changes, do: {key, new}
    gone = for %{key: key, old: {:ok, _}, new: :none} <- changes, do: key
    [changed, new, gone]
  end

  defp with_defaults(new, %{given: :back, defaults: [_ | _] = defaults}) do
    if Keyword.keyword?(new), do: Keyword.merge(defaults, new), else: new
  end

  defp with_defaults(new, _change), do: new

  defp call(application, module, args) do
    {pid, monitor} = spawn_monitor(module, :config_change, args)

    receive do
      {:DOWN, ^monitor, :process, ^pid, :normal} -> nil
      {:DOWN, ^monitor, :process, ^pid, _reason} -> warn(application, module, "failed")
    after
      @within ->
        Process.demonitor(monitor, [:flush])
        warn(application, module, "is not waited for any longer")
    end
  end

  defp warn(application, module, what) do
    text = "#{inspect(module)}.config_change/3 of #{application} #{what}"
    Log.warning("HotPatch: #{text}", application: application)
    "#{text}: the environment is set, but what the application made of it is not known"
  end

  @doc """
  Sets again what the patches in force have set: a start begins with the release's own, over which it
  comes, whatever that is by now.
  """
  @spec restore([Applied.t()]) :: :ok
  def restore(records) do
    changes = Enum.flat_map(records, & &1.config)
    Enum.each(changes, &set_again/1)
    # What HotPatch itself reads has been read by now.
    if Enum.any?(changes, &(&1.application == :hot_patch)), do: Config.reload()
    :ok
  end

  defp set_again(%{given: {:merge, value}} = change),
    do: put(change, merged(current(change), value))

  # What was put back is there already, after a start.
  defp set_again(%{given: :back}), do: :ok
  defp set_again(%{given: :replace} = change), do: put(change, change.new)

  @doc "The names of what is changed, for people."
  @spec names([foreseen() | change()]) :: [String.t()]
  def names(changes), do: changes |> Enum.map(&name_text/1) |> Enum.uniq()

  defp name_text(change), do: "#{change.application}: #{AtomName.text(change.key)}"

  # Which key of which application.
  @spec name(foreseen() | change()) :: {atom(), atom() | String.t()}
  defp name(change), do: {change.application, change.key}

  defp current(change), do: current(change.application, change.key)

  defp current(application, key) do
    case Application.fetch_env(application, key) do
      {:ok, value} -> {:ok, value}
      :error -> :none
    end
  end
end
