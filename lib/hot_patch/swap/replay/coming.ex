defmodule HotPatch.Swap.Replay.Coming do
  @moduledoc false
  # What comes with the new code besides code: environments of applications, and what applications and children
  # that are started with it will have there, tables and names. The new code is played where nothing of it
  # is there yet. So it reads the environments as they will be; and what it does not find and may be there by
  # then is not known.

  @typedoc """
  `settings` are the keys of environments that change, `:none` for one that goes; `starts?` says whether anything is
  started with the change, or called.
  """
  @type t :: %__MODULE__{
          settings: %{{application :: atom(), key :: atom()} => {:ok, term()} | :none},
          starts?: boolean()
        }
  defstruct settings: %{}, starts?: false

  @doc "What a function that reads an environment will give; `:as_now` where nothing of that changes."
  @spec answer(t(), module(), atom(), [term()]) :: {:ok, term()} | :as_now
  def answer(%__MODULE__{settings: none}, _module, _function, _arguments) when none == %{},
    do: :as_now

  def answer(coming, module, function, arguments) when module in [Application, :application],
    do: environment(coming, module, function, arguments)

  def answer(_coming, _module, _function, _arguments), do: :as_now

  # Of the application of the process that is played.
  defp environment(coming, :application, name, arguments)
       when {name, length(arguments)} in [{:get_env, 1}, {:get_all_env, 0}] do
    case :application.get_application() do
      {:ok, application} -> environment(coming, :application, name, [application | arguments])
      :undefined -> :as_now
    end
  end

  defp environment(coming, module, :get_all_env, [application]) do
    changed = for {{^application, key}, value} <- coming.settings, do: {key, value}

    if changed == [] do
      :as_now
    else
      now = module.get_all_env(application)
      others = Enum.reject(now, &List.keymember?(changed, elem(&1, 0), 0))
      {:ok, for({key, {:ok, value}} <- changed, do: {key, value}) ++ others}
    end
  end

  defp environment(coming, module, function, [application, key | default])
       when function in [:get_env, :fetch_env, :fetch_env!] do
    case coming.settings do
      %{{^application, ^key} => value} -> {:ok, given(module, function, value, default)}
      _as_it_is -> :as_now
    end
  end

  defp environment(_coming, _module, _function, _arguments), do: :as_now

  defp given(Application, :fetch_env, {:ok, value}, []), do: {:ok, value}
  defp given(Application, :fetch_env, :none, []), do: :error
  defp given(Application, :fetch_env!, {:ok, value}, []), do: value

  defp given(Application, :fetch_env!, :none, []),
    do: raise(ArgumentError, "the upgrade takes this key out of the environment")

  defp given(:application, :get_env, {:ok, value}, []), do: {:ok, value}
  defp given(:application, :get_env, :none, []), do: :undefined
  defp given(_module, :get_env, {:ok, value}, _default), do: value
  defp given(_module, :get_env, :none, [default]), do: default
  defp given(Application, :get_env, :none, []), do: nil

  @doc """
  Whether what was read is not there now, and may be there when the code runs: `result` is what reading gave, `:failed`
  where it ended with a badarg.
  """
  @spec absent?(t(), module(), atom(), [term()], {:ok, term()} | :failed) :: boolean()
  def absent?(%__MODULE__{starts?: false}, _module, _function, _arguments, _result), do: false

  def absent?(_coming, :ets, _function, [table | _], _result) when is_atom(table),
    do: :ets.whereis(table) == :undefined

  def absent?(_coming, :persistent_term, :get, [key | _], _result) do
    unset = make_ref()
    :persistent_term.get(key, unset) == unset
  end

  def absent?(_coming, module, name, [_name], {:ok, result})
      when name in [:whereis, :whereis_name] and module in [:erlang, Process, :global, Registry],
      do: result in [nil, :undefined]

  def absent?(_coming, Registry, _function, _arguments, :failed), do: true
  def absent?(_coming, _module, _function, _arguments, _result), do: false
end
