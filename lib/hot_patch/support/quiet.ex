defmodule HotPatch.Support.Quiet do
  @moduledoc false
  # Work that those whom the system serves shall not feel: it is done at low priority, so that whoever is ready to
  # run goes first, and so is what it has others do.
  #
  # Where the schedulers are full it is done like all else. The VM lets a process of low priority run once
  # in eight turns, and a turn takes long there: an operator would wait for minutes, and one more among many
  # is what nobody feels.

  # Processes that are ready to run, for each scheduler.
  @full 4

  @doc "Runs a function at low priority, in the calling process."
  @spec run((() -> result)) :: result when result: term()
  def run(fun) do
    before = Process.flag(:priority, if(full?(), do: :normal, else: :low))

    try do
      fun.()
    after
      Process.flag(:priority, before)
    end
  end

  @doc "A task at the priority of who has it done."
  @spec task((() -> term())) :: Task.t()
  def task(fun) do
    {:priority, priority} = Process.info(self(), :priority)

    Task.async(fn ->
      _normal = Process.flag(:priority, priority)
      fun.()
    end)
  end

  @doc "Whether there are so many that are ready to run that each waits long for its turn."
  @spec full?() :: boolean()
  def full?,
    do: :erlang.statistics(:run_queue) > @full * :erlang.system_info(:schedulers_online)
end
