defmodule HotPatch.Support.FaultPoint do
  @moduledoc false
  # Numbered steps of apply and rollback, so that a test can end the node at each of them as
  # `kill -9` or a power cut would, or have something else go wrong there. Nothing happens unless
  # a test has set one.

  @key {__MODULE__, :armed}

  @typedoc "A step; `{:file, n, of}` is just before the n-th file is put in place."
  @type point :: atom() | {:file, pos_integer(), pos_integer()}

  @doc "All steps in their order, those of single files aside."
  @spec points() :: [atom()]
  def points do
    [
      :reserved,
      :intent_written,
      :files_staged,
      :prepared,
      :early_kept,
      :early_placed,
      :held,
      :decision_journaled,
      :decided,
      :loaded,
      :decision_written,
      {:file, :any, :any},
      :files_replaced,
      :state_written,
      :journal_written,
      :intent_removed,
      :ended
    ]
  end

  @typedoc "What happens there: the node ends, or a function is called by whoever comes there."
  @type action :: :kill | mfa_with_args()
  @type mfa_with_args :: {module(), atom(), [term()]}

  @doc "Ends this node at a step when it comes there for the n-th time, or calls a function."
  @spec arm(point(), pos_integer(), action()) :: :ok
  def arm(point, nth \\ 1, action \\ :kill) do
    counter = :counters.new(1, [])
    :persistent_term.put(@key, {point, nth, counter, action})
  end

  @doc "Goes on at all steps again; says whether it is too late, and this node about to end."
  @spec disarm() :: :ok | :reached
  def disarm do
    armed = :persistent_term.get(@key, nil)
    _ = :persistent_term.erase(@key)

    case armed do
      {_point, nth, counter, _action} ->
        if :counters.get(counter, 1) >= nth, do: :reached, else: :ok

      nil ->
        :ok
    end
  end

  @doc "A step is reached."
  @spec point(point()) :: :ok
  def point(point) do
    case :persistent_term.get(@key, nil) do
      nil -> :ok
      armed -> reached(point, armed)
    end
  end

  defp reached(point, {armed, nth, counter, action}) do
    if same?(point, armed) do
      :counters.add(counter, 1, 1)
      if :counters.get(counter, 1) == nth, do: strike(action)
    end

    :ok
  end

  defp strike(:kill), do: kill()
  defp strike({module, function, args}), do: apply(module, function, args)

  defp same?({:file, n, of}, {:file, armed_n, armed_of}),
    do: armed_n in [n, :any] and armed_of in [of, :any]

  defp same?(point, armed), do: point == armed

  # Not by the VM's own means, which would tidy up.
  @spec kill() :: no_return()
  defp kill do
    _ = :os.cmd(~c"kill -9 #{System.pid()}")

    :timer.sleep(:infinity)
  end
end
