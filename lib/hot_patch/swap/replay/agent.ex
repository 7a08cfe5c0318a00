defmodule HotPatch.Swap.Replay.Agent do
  @moduledoc false
  # One message to an Agent, handled as Elixir's Agent.Server handles it (agent/server.ex). What is done with the state comes with the
  # message: a fun, or a function with arguments. Both run as everything does that is played: a fun of a module
  # that has a shadow is the shadow's (HotPatch.Swap.Replay.Funs), one of another module leaves the message aside.

  alias HotPatch.Swap.Replay.Gate

  @doc "What the server would do at a call, as a gen_server's callback says it."
  @spec call(term(), term()) :: tuple()
  def call({:get, fun}, state), do: {:reply, run(fun, state), state}
  def call({:update, fun}, state), do: {:reply, :ok, run(fun, state)}

  def call({:get_and_update, fun}, state) do
    case run(fun, state) do
      {reply, state} -> {:reply, reply, state}
      other -> {:stop, {:bad_return_value, other}, state}
    end
  end

  @doc "The same at a cast."
  @spec cast(term(), term()) :: tuple()
  def cast({:cast, fun}, state), do: {:noreply, run(fun, state)}

  defp run({module, function, arguments}, state),
    do: Gate.through(module, function, [state | arguments])

  defp run(fun, state), do: Gate.run(fun, [state])
end
