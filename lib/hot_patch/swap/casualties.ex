defmodule HotPatch.Swap.Casualties do
  @moduledoc false
  # Processes that a change is known to end: they work for a module that goes, or the code that comes
  # is none that they could run. A change with any is refused, unless the operator says that they
  # are to be ended: then that is done in the moment of the load, so that those who start them anew
  # start them in the new code, and it is reported. Left alone, they would die of their next message.
  #
  # What is known here is known of a module: what the behaviour in whose loop a process is will call.

  alias HotPatch.Support.Isolated
  alias HotPatch.Support.Table
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Target

  @typedoc "Why processes of a kind that work for a module would die, by both."
  @type reasons :: %{{module(), Target.kind()} => String.t()}
  @type t :: %{pid: pid(), module: module(), kind: Target.kind(), why: String.t()}

  @server [{"handle_call", 3}, {"handle_cast", 2}, {"handle_info", 2}]

  # Milliseconds that a module's callback_mode/0 may take.
  @answer_within 500

  @doc """
  What is known of changes. Where the new code can be called under another name (`shadows`), more
  is known.
  """
  @spec reasons([Change.t()], HotPatch.Strategy.transition(), [Shadow.t()]) :: reasons()
  def reasons(changes, transition, shadows \\ []) do
    names = Map.new(shadows, &{&1.module, &1.name})

    for change <- changes,
        change.kind in [:replace, :delete],
        {kind, why} <- reasons_of(change, transition, names[change.module]),
        into: %{},
        do: {{change.module, kind}, why}
  end

  defp reasons_of(%{kind: :delete, module: module}, _transition, _shadow) do
    why = "#{inspect(module)} goes, and they work for it"

    for kind <- [
          :server,
          :special,
          :event_manager,
          :supervisor,
          :hosted,
          :wrapper,
          :foreign,
          :agent,
          :below
        ],
        do: {kind, why}
  end

  # Where it is not known what comes, nothing is known.
  defp reasons_of(%{arriving: nil}, _transition, _shadow), do: []

  defp reasons_of(change, transition, shadow) do
    for {kind, why} <- [
          server: server(change, transition, shadow),
          below: below(change, transition),
          special: unless(arrives?(change, {"system_continue", 3}), do: "no system_continue/3"),
          event_manager: unless(arrives?(change, {"handle_event", 2}), do: "no handle_event/2")
        ],
        why != nil,
        runs?(kind, change.module),
        do: {kind, why(why, change)}
  end

  defp why({:mode, text}, _change), do: text
  defp why(text, change), do: "the code that comes for #{inspect(change.module)} has #{text}"

  # Only of what the module is now anything is lost.
  defp runs?(:special, module), do: Classification.exports?(module, [{:system_continue, 3}])
  defp runs?(:event_manager, module), do: Classification.exports?(module, [{:handle_event, 2}])
  defp runs?(kind, _module) when kind in [:server, :below], do: true

  # All callback modules of a gen_statem work on the same data, and the one in whose turn it is is asked
  # to convert it. It asks each of them for its callback mode.
  defp below(change, transition) do
    if transition != :none and statem?(change.module) and Change.converts?(change) do
      {:mode,
       "#{inspect(change.module)} converts states, and its gen_statems have another callback module now, " <>
         "which does not: they would come back to it (pop_callback_module) with data as of before"}
    end
  end

  defp server(%{module: module} = change, transition, shadow) do
    cond do
      statem?(module) and not arrives?(change, {"callback_mode", 0}) ->
        "no callback_mode/0, and its processes are gen_statems"

      statem?(module) ->
        mode(change, transition, shadow)

      not Classification.behaves?(module) ->
        nil

      arrives?(change, {"callback_mode", 0}) ->
        "a callback_mode/0, and its processes are gen_servers"

      not Enum.any?(@server, &arrives?(change, &1)) ->
        "none of the callbacks of a gen_server"

      true ->
        nil
    end
  end

  # A gen_statem asks for its callback mode when it starts and when it changes code by itself: then
  # the code that is current says it.
  defp mode(%{module: module} = change, transition, shadow) do
    now = callback_mode(module)
    coming = coming(change, shadow)

    told? =
      change.direction == :up and transition == :suspend and
        Classification.change_code?(change, [3, 4])

    if now != nil and not told? and changed?(now, coming, change) do
      shown = if coming, do: inspect(coming), else: "another"

      {:mode,
       "the callback mode of #{inspect(module)} changes from #{inspect(now)} to #{shown}, and " <>
         "its gen_statems keep the one that they have"}
    end
  end

  defp coming(%{direction: :up}, shadow), do: shadow && callback_mode(shadow)
  defp coming(%{callback_mode: mode}, _shadow), do: mode

  defp changed?(now, nil, change) do
    now = List.wrap(now)
    handles? = arrives?(change, {"handle_event", 4})

    (:handle_event_function in now and not handles?) or
      (:state_functions in now and handles? and
         not function_exported?(change.module, :handle_event, 4))
  end

  defp changed?(now, coming, _change),
    do: Enum.sort(List.wrap(now)) != Enum.sort(List.wrap(coming))

  @doc "What the running code of a module says of itself; nil if it is no gen_statem, or fails."
  @spec callback_mode(module()) :: term()
  def callback_mode(module) do
    if statem?(module) do
      case Isolated.run(&module.callback_mode/0, @answer_within) do
        {:ok, mode} -> mode
        _failed_or_late -> nil
      end
    end
  end

  defp statem?(module), do: function_exported?(module, :callback_mode, 0)
  defp arrives?(change, function), do: function in change.arriving

  @doc "Those among processes that have been found."
  @spec among([Target.t()], reasons()) :: [t()]
  def among(_targets, reasons) when reasons == %{}, do: []

  def among(targets, reasons) do
    for %{pid: pid, kind: kind, modules: modules} <- targets,
        {module, why} <- Enum.take(known(modules, kind, reasons), 1),
        Process.alive?(pid),
        do: %{pid: pid, module: module, kind: kind, why: why}
  end

  defp known(modules, kind, reasons) do
    for {module, _change_code?} <- modules, why = reasons[{module, kind}], do: {module, why}
  end

  @doc """
  What has been found, with those marked that are to be ended: nothing is converted in them. An event
  manager only loses its handler.
  """
  @spec mark(Discovery.found(), reasons()) :: Discovery.found()
  def mark(found, reasons) when reasons == %{}, do: found

  def mark(found, reasons) do
    ends = MapSet.new(among(found.targets, reasons), & &1.pid)

    %{
      found
      | targets:
          for target <- found.targets do
            if target.kind != :event_manager and target.pid in ends,
              do: %{target | ends?: true},
              else: target
          end
    }
  end

  @doc "Ends them; an event manager goes on without its handler."
  @spec finish([t()]) :: [pid()]
  def finish(casualties) do
    pids = for %{kind: kind, pid: pid} <- casualties, kind != :event_manager, uniq: true, do: pid
    Enum.each(pids, &Process.exit(&1, :kill))
    pids
  end

  @doc "That a change is refused because of them, and what can be done."
  @spec refused([t(), ...]) :: String.t()
  def refused(casualties), do: casualties |> by_reason() |> refused_for()

  @doc "The same of those that were put together by why they would die."
  @spec refused_for(%{(why :: String.t()) => [pid()]}) :: String.t()
  def refused_for(by_reason) do
    lines =
      for {why, pids} <- by_reason,
          do: "#{text(why, pids)} (#{Description.names(pids)})"

    "#{Enum.join(lines, "; ")}. Stop them first, or do it with purge: :force, which " <>
      "ends them in the moment of the load"
  end

  @doc "For each reason how many would die of it, in words, and the first of them by name."
  @spec alike([t()]) :: [{text :: String.t(), named :: [String.t()]}]
  def alike(casualties) do
    for {why, pids} <- by_reason(casualties), do: {text(why, pids), Description.first_names(pids)}
  end

  @doc "The processes, by why they would die."
  @spec by_reason([t()]) :: %{(why :: String.t()) => [pid()]}
  def by_reason(casualties), do: Enum.group_by(casualties, & &1.why, & &1.pid)

  defp text(why, pids),
    do: "#{Table.count(length(pids), "process", "processes")} would die: #{why}"
end
