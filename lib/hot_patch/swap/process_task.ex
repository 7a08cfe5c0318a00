defmodule HotPatch.Swap.ProcessTask do
  @moduledoc false
  # What is to be done with each process concerned: how it stands still, which conversions it
  # runs before the load, and what its module has to do by itself.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Signal

  @typedoc """
  How a process stands still: inside a function of ours (HotPatch.Swap.Parking), or suspended
  by a system message, where its behaviour has to do more than to keep a state. Or it does not,
  and is suspended only for its own change, in its turn.
  """
  @type how :: :still | :suspended | :in_turn

  @typedoc """
  One process; `conversions` may be empty, and `later` are the modules that have to do it by
  themselves.
  """
  @type t :: {pid(), how(), conversions :: %{module() => Conversion.t()}, later :: [module()]}

  @doc """
  The work on targets, in windows: enough of them at a time to keep the schedulers busy, few
  enough that answers do not pile up. Conversions answer under a ref, and end with a signal.
  """
  @spec of([Discovery.target()], Ready.t(), {reference(), Signal.t()}, pos_integer()) :: [[t()]]
  def of(targets, ready, under, window \\ 1_000) do
    conversions = conversions(ready, under)
    hold = hold(ready, under)

    # Most targets are alike: what is to be done for one is worked out once for all of them.
    {work, _alike} =
      Enum.map_reduce(targets, %{}, fn target, alike ->
        key = {target.kind, target.modules, target[:keeps?], target[:ends?], target[:holds?]}
        alike = Map.put_new_lazy(alike, key, fn -> split(target, conversions, hold) end)
        {how, mine, later} = alike[key]
        {{target.pid, how, mine, later}, alike}
      end)

    Enum.chunk_every(work, window)
  end

  @doc "The work of one process, of which nothing is kept: it is only tried."
  @spec rehearsal(t()) :: t()
  def rehearsal({pid, how, mine, later}) do
    mine = Map.new(mine, fn {module, one} -> {module, %{one | rehearsal?: true}} end)
    {pid, how, mine, later}
  end

  @doc "Processes in which nothing is to be converted."
  @spec bystanders([pid()], pos_integer()) :: [[t()]]
  def bystanders(pids, window \\ 1_000) do
    for(pid <- pids, do: {pid, :still, %{}, []}) |> Enum.chunk_every(window)
  end

  @doc "The modules that have to do it by themselves, by process."
  @spec later([[t()]]) :: [{pid(), module()}]
  def later(windows) do
    for window <- windows, {pid, _how, _mine, later} <- window, module <- later, do: {pid, module}
  end

  @doc "What a process is sent that changes a module's state by itself."
  @spec messages(HotPatch.Swap.Job.t()) :: %{module() => tuple()}
  def messages(job) do
    Map.new(job.changes, &{&1.module, {:change_code, &1.module, &1.old_vsn, &1.extra}})
  end

  # One conversion for each changed module that has a callback for it and a shadow.
  defp conversions(ready, under) do
    shadows = Map.new(ready.shadows, &{&1.module, &1})
    gone = for %{kind: :delete, module: module} <- ready.job.changes, do: module

    for change <- ready.job.changes, into: %{} do
      conversion = conversion(change, shadow(change, shadows), under)
      conversion = conversion && %{conversion | gone: gone, funs: ready.funs}
      {change.module, {change, conversion}}
    end
  end

  # Of those that keep their state, but for the funs in it.
  defp hold(%{funs: nil}, _under), do: %{}

  defp hold(ready, under) do
    for change <- ready.job.changes, into: %{} do
      base = conversion(change, %{name: change.module, lambdas?: false}, under)
      {change.module, %{base | keeps?: true, funs: ready.funs}}
    end
  end

  # The way down is known to the code that is current until the load.
  defp shadow(%{direction: :down, module: module}, _shadows),
    do: %{name: module, lambdas?: false}

  defp shadow(change, shadows), do: shadows[change.module]

  defp conversion(_change, nil, _under), do: nil

  defp conversion(change, shadow, {ref, signal}) do
    %{
      module: change.module,
      shadow: shadow.name,
      lambdas?: shadow.lambdas?,
      md5: change.md5,
      old_vsn: change.old_vsn,
      extra: change.extra,
      kind: nil,
      rehearsal?: false,
      keeps?: false,
      gone: [],
      funs: nil,
      signal: signal,
      ref: ref
    }
  end

  # It stands still, and is ended with the load.
  defp split(%{ends?: true}, _conversions, _hold), do: {:still, %{}, []}

  defp split(%{modules: modules} = target, conversions, hold) do
    {mine, later} =
      for {module, true} <- modules, reduce: {%{}, []} do
        {mine, later} ->
          {change, conversion} = conversions[module]
          kind = Shadow.kind(target.kind, change)

          if conversion == nil or hidden?(target, change) do
            {mine, [module | later]}
          else
            rehearsal? = itself?(kind, conversion)
            keeps? = Map.get(target, :keeps?, false)
            conversion = %{conversion | kind: kind, rehearsal?: rehearsal?, keeps?: keeps?}
            {Map.put(mine, module, conversion), if(rehearsal?, do: [module | later], else: later)}
          end
      end

    mine = if mine == %{} and later == [], do: held(target, hold), else: mine
    {how(target, mine, later), mine, later}
  end

  defp held(%{holds?: true, modules: [{module, _} | _], kind: kind}, hold)
       when is_map_key(hold, module) do
    kind = if kind == :event_manager, do: :event, else: :server
    %{module => %{hold[module] | kind: kind}}
  end

  defp held(_target, _hold), do: %{}

  # An event manager has a state for each handler; a new state that holds funs is converted once
  # more, by the module itself.
  defp how(%{kind: kind}, mine, []) when kind in [:server, :special, :holder] do
    if Enum.any?(mine, fn {_module, conversion} -> conversion.lambdas? end),
      do: :suspended,
      else: :still
  end

  defp how(_target, _mine, _later), do: :suspended

  # A wrapper's state is the library's, which alone knows how to hand it on.
  defp hidden?(%{kind: :wrapper}, _change), do: true

  # Which child specs an older supervisor has is not known before it is loaded.
  defp hidden?(%{kind: :supervisor}, %{direction: :down}), do: true

  # A special process that handles replace_state itself shows its state, not what
  # system_code_change gets.
  defp hidden?(target, %{module: module}) do
    target.kind == :special and function_exported?(module, :system_replace_state, 2)
  end

  # Some keep more than their state up to date when they change code by themselves: for them
  # the conversion is a rehearsal.
  defp itself?(:supervisor, _conversion), do: true

  defp itself?(:statem, %{module: module, shadow: shadow}) do
    function_exported?(module, :callback_mode, 0) and
      module.callback_mode() != shadow.callback_mode()
  end

  defp itself?(_kind, _conversion), do: false
end
