defmodule HotPatch.NodeAgent.InstructionRunner do
  @moduledoc false
  # Carries out what the instructions of a patch want done beside its modules: before the pause
  # what can still be taken back, applications stopped and calls made; after the resume the rest.
  # Each step runs in a process of its own, which is not waited for beyond its time.

  alias HotPatch.NodeAgent.InstructionRunner.Applications
  alias HotPatch.NodeAgent.InstructionRunner.Children
  alias HotPatch.NodeAgent.InstructionRunner.Restarter
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.Support.Cause
  alias HotPatch.Support.Isolated
  alias HotPatch.Swap.Description

  # Milliseconds that a step may take after the resume.
  @within 10_000

  @typedoc """
  What was done before the pause: `stopped` applications with how they ran, the last one first;
  `children` of supervisors as they were, and `left`, those among them that were stopped because
  their module goes, the last one first. `leaves` are applications that run until the new code does, and are stopped
  then. Should this process die, `keeper` starts again what was
  stopped.
  """
  @type begun :: %{
          stopped: [{atom(), atom()}],
          leaves: [{atom(), atom()}],
          children: Children.known(),
          left: [Children.child()],
          gone: [module()],
          keeper: pid() | nil
        }

  @doc """
  Does what comes before the pause, with the modules that go; with why it could not, if so. What was
  done is to be undone.
  """
  @spec begin(Instructions.t(), [module()], integer()) :: {begun(), String.t() | nil}
  def begin(instructions, gone, deadline) do
    {steps, _later} = Instructions.split(instructions)
    keeper = if Enum.any?(steps, &stops?/1), do: Restarter.start()

    leaves =
      for %{what: :remove_application, how: :later, subject: name} <- instructions.steps,
          running = Applications.running(name),
          do: running

    begun = %{stopped: [], leaves: leaves, children: %{}, left: [], gone: gone, keeper: keeper}
    begin_each(steps, begun, deadline)
  end

  defp begin_each([], begun, _deadline), do: {begun, nil}

  defp begin_each([step | rest], begun, deadline) do
    {begun, result} = prepare(step, begun, deadline)

    case result do
      :ok -> begin_each(rest, begun, deadline)
      {:error, text} -> {begun, "#{step.text} failed before the pause: #{text}"}
    end
  end

  defp stops?(step),
    do: step.what in [:remove_application, :restart_application] or step.how == :children

  defp prepare(%{what: :apply} = step, begun, deadline),
    do: {begun, ended(run(fn -> call(step) end, left(deadline)))}

  defp prepare(%{how: :children} = step, begun, deadline) do
    module = LoadedCode.accepted_module(step.subject)

    asked = fn -> {Children.known(module), Children.leaving(module, begun.gone)} end

    case run(asked, left(deadline)) do
      {:ok, {known, leaving}} ->
        stop_children(leaving, put_in(begun.children[module], known), deadline)

      error ->
        {begun, error}
    end
  end

  defp prepare(step, begun, deadline) do
    case Applications.running(step.subject) do
      nil ->
        {begun, :ok}

      {application, _type} = running ->
        # One that is late ends all the same: it counts as stopped before it is.
        Restarter.stops(begun.keeper, running)
        begun = %{begun | stopped: [running | begun.stopped]}
        {begun, ended(run(fn -> Applications.stop(application) end, left(deadline)))}
    end
  end

  defp stop_children([], begun, _deadline), do: {begun, :ok}

  defp stop_children([child | rest], begun, deadline) do
    # One that is late ends all the same: it counts as stopped before it is.
    Restarter.stops(begun.keeper, child)
    begun = %{begun | left: [child | begun.left]}

    case run(fn -> Children.stop_for_now(child) end, left(deadline)) do
      {:ok, :ok} -> stop_children(rest, begun, deadline)
      error -> {begun, error}
    end
  end

  @doc "Starts again what was stopped; what could not be, in words."
  @spec undo(begun() | nil) :: [String.t()]
  def undo(nil), do: []

  def undo(%{stopped: stopped, left: left, keeper: keeper}) do
    failed = start_children(left) ++ start(stopped)
    Restarter.done(keeper)
    failed
  end

  @doc "The applications that were stopped, and how they ran."
  @spec stopped(begun() | nil) :: [{atom(), atom()}]
  def stopped(nil), do: []
  def stopped(%{stopped: stopped, leaves: leaves}), do: stopped ++ leaves

  # Milliseconds for which processes stand still at most so that applications which they may call run before they go
  # on.
  @within_pause 200

  @doc """
  Starts the applications that come, in their order, while processes stand still: converted, they may call them. Who
  needs one of those that stand still to start is left to it, and is waited for after the resume.
  """
  @spec start_ahead(Instructions.t()) :: :ok
  def start_ahead(instructions) do
    case Instructions.coming(instructions) do
      [] ->
        :ok

      some ->
        # What fails is tried again after the resume, and told then.
        {pid, monitor} =
          spawn_monitor(fn ->
            HotPatch.Swap.Guard.outlive_application()
            for {name, type} <- some, do: Applications.add(name, type)
          end)

        receive do
          {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
        after
          @within_pause ->
            Process.demonitor(monitor, [:flush])
            :ok
        end
    end
  end

  @doc """
  Does what comes after the resume. Where a step fails, those behind it are left out, but for
  applications that wait to be started again.
  """
  @spec finish(Instructions.t(), begun()) :: :ok | {:error, String.t()}
  def finish(instructions, begun) do
    {_before, steps} = Instructions.split(instructions)
    ran = Map.new(instructions.ran ++ begun.stopped)

    failed =
      case Enum.reduce_while(steps, :ok, &later(&1, &2, begun, ran)) do
        :ok -> []
        {:error, text} -> [text | steps |> again(ran) |> start()]
      end

    # Taken back, a patch leaves nothing stopped that ran before it.
    failed =
      failed ++
        start(for {name, _type} = one <- instructions.ran, not named?(steps, name), do: one)

    Restarter.done(begun.keeper)
    if failed == [], do: :ok, else: {:error, Enum.join(failed, "; ")}
  end

  defp later(step, :ok, begun, ran) do
    case ended(run(fn -> do_later(step, begun, ran) end, @within)) do
      :ok -> {:cont, :ok}
      {:error, text} -> {:halt, {:error, "#{step.text} failed after the resume: #{text}"}}
    end
  end

  defp do_later(%{what: :apply} = step, _begun, _ran), do: call(step)

  defp do_later(%{what: :add_application} = step, _, _),
    do: Applications.add(step.subject, step.how)

  defp do_later(%{what: :remove_application, how: :later} = step, _, _),
    do: Applications.remove(step.subject)

  defp do_later(%{what: :remove_application} = step, _, _), do: Applications.unload(step.subject)

  defp do_later(%{what: :restart_application} = step, _begun, ran) do
    Enum.each(again([step], ran), fn {application, type} ->
      Applications.start(application, type)
    end)
  end

  defp do_later(%{how: :children} = step, begun, _ran) do
    module = LoadedCode.accepted_module(step.subject)
    Children.follow(module, Map.get(begun.children, module, %{}), begun.left)
  end

  defp do_later(_for_modules_alone, _begun, _ran), do: :ok

  defp again(steps, ran) do
    for %{what: :restart_application, subject: name} <- steps,
        {application, _type} = one <- ran,
        Atom.to_string(application) == name,
        do: one
  end

  defp named?(steps, application),
    do: Enum.any?(steps, &(not &1.module and &1.subject == Atom.to_string(application)))

  defp start(applications) do
    for {application, type} <- applications,
        {:error, text} <- [run(fn -> Applications.start(application, type) end, @within)],
        do: "#{application} could not be started again: #{text}"
  end

  defp start_children(children) do
    for {supervisor, id} = child <- children,
        {:error, text} <- [run(fn -> Children.start_again(child) end, @within)],
        do:
          "the child #{inspect(id)} of #{inspect(supervisor)} could not be started again: #{text}"
  end

  # What a call gives says nothing; one that fails ends its process.
  defp call(step) do
    apply(
      LoadedCode.accepted_module(step.subject),
      LoadedCode.accepted_module(step.function),
      Instructions.term!(step.term)
    )
  end

  defp ended({:ok, _result}), do: :ok
  defp ended(error), do: error

  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  # What it starts shall not end with the application HotPatch, nor what it does with this process.
  defp run(fun, within) do
    step = fn ->
      HotPatch.Swap.Guard.outlive_application()
      fun.()
    end

    case Isolated.run(step, within, &Description.process/1) do
      {:ok, result} -> {:ok, result}
      {:died, reason} -> {:error, Cause.of_exit(reason)}
      {:late, where} -> {:error, "it took too long, #{where}"}
    end
  end
end
