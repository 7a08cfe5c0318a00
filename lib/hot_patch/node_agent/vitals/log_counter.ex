defmodule HotPatch.NodeAgent.Vitals.LogCounter do
  @moduledoc false
  # Counts what is logged, where it is logged: as a filter, which sees an event before any
  # handler, and before others have made a text of it.

  @signs [:crashes, :errors, :restarts]

  @type t :: :counters.counters_ref()

  @doc "Begins to count; modules are those whose processes' crashes count."
  @spec attach([String.t()]) :: t()
  def attach(modules) do
    counters = :counters.new(length(@signs), [])
    _ = :logger.remove_primary_filter(__MODULE__)
    filter = {&__MODULE__.count/2, {counters, MapSet.new(modules)}}
    :ok = :logger.add_primary_filter(__MODULE__, filter)
    counters
  end

  @doc "Ends it."
  @spec detach(t()) :: :ok
  def detach(_counters) do
    _ = :logger.remove_primary_filter(__MODULE__)
    :ok
  end

  @doc "How many of each since it began."
  @spec counts(t()) :: %{HotPatch.Watch.sign() => non_neg_integer()}
  def counts(counters) do
    for {sign, n} <- Enum.with_index(@signs, 1), into: %{}, do: {sign, :counters.get(counters, n)}
  end

  @doc "Why errors are not logged on this node, and so cannot be counted; nil where they are."
  @spec unheard() :: String.t() | nil
  def unheard do
    %{level: level} = :logger.get_primary_config()

    if :logger.compare_levels(:error, level) == :lt,
      do: "not counted: the logger's level is #{level}, nothing below it is made an event"
  end

  @doc false
  # Runs in whoever logs: it changes nothing, and a filter that raises would be removed.
  @spec count(:logger.log_event(), {t(), MapSet.t(String.t())}) :: :ignore
  def count(%{level: level, msg: msg}, {counters, modules}) do
    if :logger.compare_levels(level, :error) != :lt do
      :counters.add(counters, 2, 1)
      if crash?(msg, modules), do: :counters.add(counters, 1, 1)
      if restart?(msg), do: :counters.add(counters, 3, 1)
    end

    :ignore
  rescue
    _of_a_form_unknown_to_us -> :ignore
  end

  # A process started by proc_lib, as all of OTP's behaviours are.
  defp crash?({:report, %{label: {:proc_lib, :crash}, report: [info | _]}}, modules) do
    {module, _function, _arity} = info[:initial_call]
    {_class, _reason, stack} = info[:error_info]
    ours?([module | Enum.map(stack, &elem(&1, 0))], modules)
  end

  # Any other: the VM itself tells.
  defp crash?(
         {:format, ~c"Error in process " ++ _rest, [_pid, _node, {_reason, stack}]},
         modules
       ),
       do: ours?(Enum.map(stack, &elem(&1, 0)), modules)

  defp crash?({~c"Error in process " ++ _rest, args}, modules),
    do: crash?({:format, ~c"Error in process ", args}, modules)

  defp crash?(_other, _modules), do: false

  defp ours?(stack, modules), do: Enum.any?(stack, &(Atom.to_string(&1) in modules))

  defp restart?({:report, %{label: {:supervisor, :child_terminated}}}), do: true
  defp restart?(_other), do: false
end
