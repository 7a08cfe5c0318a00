defmodule HotPatch.Swap.Views do
  @moduledoc false
  # Connected LiveViews: which there are, and how one is made to render what it shows once more, in the
  # code that is current now.
  #
  # The library has a function for that, for code reloaders (Hosted.reload/0). It is called inside the process, by way of replace_state:
  # nothing but a system message is sent, and where the new code fails to render, the view goes on as
  # it was, with what its browser shows.

  alias HotPatch.Support.Cause
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.SysMessage

  @channel Phoenix.LiveView.Channel

  @reloads {0, 18, 4}

  # Not all render at once, so that whoever wants something else of a view comes between.
  @at_a_time 100
  @within 5_000

  @typedoc """
  How many have rendered; how many were left as they are, because of `temporary_assigns`; of how many it
  is not known, as they were busy for long or are gone; and of those that could not, why, by view.
  """
  @type rendered :: %{
          again: non_neg_integer(),
          left: non_neg_integer(),
          unknown: non_neg_integer(),
          failed: [{pid(), module(), String.t()}]
        }

  @doc "Whether LiveView is running here, in a version that can render again."
  @spec running?() :: boolean()
  # Versions before have no clause for it, and would hand it on to the user's code.
  def running?, do: :erlang.module_loaded(@channel) and Hosted.version() >= @reloads

  @doc "The LiveViews that are connected to this node, each with its module."
  @spec connected() :: [{pid(), module()}]
  def connected do
    for pid <- Process.list(),
        {:initial_call, {:proc_lib, :init_p, _arity}} <- [Process.info(pid, :initial_call)],
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        {view, _function, _arity} = call <- [dictionary[:"$initial_call"]],
        Hosted.library(call) == @channel,
        do: {pid, view}
  end

  @doc """
  Has views render again; with `events`, names with what is told to the page under each, as
  `Phoenix.LiveView.push_event/3` does.
  """
  @spec render_again([{pid(), module()}], [{String.t(), map()}]) :: rendered()
  def render_again(views, events \\ []) do
    nobody = %{again: 0, left: 0, unknown: 0, failed: []}

    views
    |> Enum.chunk_every(@at_a_time)
    |> Enum.reduce(nobody, &render_some(Map.new(&1), events, &2))
  end

  defp render_some(views, events, rendered) do
    ref = SysMessage.open()
    pids = Map.keys(views)
    Enum.each(pids, fn pid -> SysMessage.run_in(pid, &render(&1, events, ref)) end)
    deadline = System.monotonic_time(:millisecond) + @within

    {silent, rendered} =
      SysMessage.collect_until({ref, pids}, deadline, rendered, &note(&1, &2, &3, views))

    SysMessage.close(ref)
    %{rendered | unknown: rendered.unknown + length(silent)}
  end

  defp note(_pid, :ok, rendered, _views), do: {:done, %{rendered | again: rendered.again + 1}}

  defp note(_pid, :left, rendered, _views), do: {:done, %{rendered | left: rendered.left + 1}}

  defp note(pid, {:failed, why}, rendered, views),
    do: {:done, %{rendered | failed: [{pid, views[pid], why} | rendered.failed]}}

  # Runs inside. What is not mounted yet will be, by the new code.
  defp render(state, events, ref) do
    {state, answer} =
      case {Hosted.shape(state), state} do
        {:temporary, _state} -> {state, :left}
        {_shape, %{socket: %{private: %{}}}} -> {rendered(state, events), :ok}
        _not_mounted -> {state, :ok}
      end

    SysMessage.tell(ref, ref, answer)
    state
  rescue
    # Its message shows all assigns, which are nobody else's business.
    error in KeyError -> failed(state, ref, "there is no #{inspect(error.key)}")
    error -> failed(state, ref, Cause.of(:error, error, __STACKTRACE__))
  catch
    kind, reason -> failed(state, ref, Cause.of(kind, reason, __STACKTRACE__))
  end

  # Where a code reloader is at work, it would compile.
  defp rendered(%{socket: %{private: private} = socket} = state, events) do
    {reloader, quiet} = Map.pop(private, :phoenix_reloader)
    socket = Enum.reduce(events, %{socket | private: quiet}, &push_event/2)
    state = Hosted.forget_rendered(%{state | socket: socket})

    case apply(@channel, :handle_info, [Hosted.reload(), state]) do
      {:noreply, %{socket: new} = state} -> %{state | socket: with_reloader(new, reloader)}
      _other -> raise "LiveView has not rendered it"
    end
  end

  defp failed(state, ref, why) do
    SysMessage.tell(ref, ref, {:failed, why})
    state
  end

  defp with_reloader(socket, nil), do: socket

  defp with_reloader(%{private: private} = socket, reloader),
    do: %{socket | private: Map.put(private, :phoenix_reloader, reloader)}

  defp push_event({name, payload}, socket),
    do: apply(Phoenix.LiveView, :push_event, [socket, name, payload])
end
