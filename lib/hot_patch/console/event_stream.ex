defmodule HotPatch.Console.EventStream do
  @moduledoc false
  # Progress as server-sent events: all that is under way at the beginning, and again after each
  # change. Several changes within a moment are told as one.

  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Progress
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Sessions
  alias HotPatch.Event

  # What holds nodes without telling of itself is looked for so often, in milliseconds; it also finds out
  # whether the client is still there, and whether it still may see this.
  @look 2_000
  @moment 80

  # A browser opens a stream again by itself; a client that is gone is not kept for ever.
  @lifetime 600_000

  # So many at a time on this node.
  @most 50
  @counter {__MODULE__, :counter}

  @doc "Makes the counter of open streams."
  @spec prepare() :: :ok
  def prepare, do: :persistent_term.put(@counter, :atomics.new(1, []))

  @doc """
  A stream of what `encode` makes of the events: those under way, and those that have just ended. It ends with
  the access of the one who asked for it.
  """
  @spec response(Request.t(), Authorization.t(), ([Event.t()] -> iodata())) :: Response.t()
  def response(request, access, encode) do
    may? = fn -> Authorization.goes_on?(access, request) end

    %Response{
      headers: [{"content-type", "text/event-stream"}, {"x-accel-buffering", "no"}],
      body:
        {:stream,
         &run(&1, Authorization.subject(access), %{send: &1, may?: may?, encode: encode})}
    }
  end

  defp run(send, subject, state) do
    counter = :persistent_term.get(@counter)

    try do
      if :atomics.add_get(counter, 1, 1) <= @most and Sessions.watch(subject) == :ok do
        :ok = HotPatch.subscribe()
        until = System.monotonic_time(:millisecond) + @lifetime
        loop(Map.merge(state, %{last: nil, until: until}), [])
      else
        # The page asks again and again instead.
        send.("event: full\ndata:\n\n")
      end
    after
      :atomics.sub(counter, 1, 1)
      HotPatch.unsubscribe()
    end
  end

  # Whoever was logged out just before the stream was known there is found out here.
  defp loop(state, ended) do
    cond do
      ended == :access or not state.may?.() -> state.send.("event: ended\ndata:\n\n")
      System.monotonic_time(:millisecond) > state.until -> :closed
      true -> show(state, ended)
    end
  end

  defp show(state, ended) do
    text = state.encode.(Progress.events() ++ ended)
    answer = if text == state.last, do: state.send.(": \n\n"), else: tell(state, text)
    if answer == :ok, do: loop(%{state | last: text}, wait()), else: :closed
  end

  defp tell(state, text) do
    lines = text |> IO.iodata_to_binary() |> String.split("\n")
    state.send.(["event: progress\n", Enum.map(lines, &["data: ", &1, "\n"]), "\n"])
  end

  # The ends of operations, which the list of those under way does not have any more.
  defp wait do
    receive do
      {HotPatch, event} -> gather(ended(event), System.monotonic_time(:millisecond) + @moment)
      {Sessions, :ended} -> :access
    after
      @look -> []
    end
  end

  defp gather(ended, until) do
    receive do
      {HotPatch, event} -> gather(ended ++ ended(event), until)
      {Sessions, :ended} -> :access
    after
      max(0, until - System.monotonic_time(:millisecond)) -> ended
    end
  end

  defp ended(%Event{node: nil, phase: :ended} = event), do: [event]
  defp ended(_event), do: []
end
