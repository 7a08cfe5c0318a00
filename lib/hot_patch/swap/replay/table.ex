defmodule HotPatch.Swap.Replay.Table do
  @moduledoc false
  # What is done with calls that lead out of a replay. Two lists say it: gate.txt beside this file, and what the
  # native core knows to have no effects. What is in neither is not run.
  #
  # A line of gate.txt is a kind, a module and its functions:
  #
  #   * `read` - it reads what others may change; old and new code get the same answer
  #   * `own` - it has to do with the dictionary of the process that calls it
  #   * `record KIND ANSWER` - it is noted, not done, and the caller gets the answer
  #   * `pure` - it only works something out

  @gate Path.join(__DIR__, "gate.txt")
  @pure Path.expand("../../../../native/beam/src/functions/pure.txt", __DIR__)
  @external_resource @gate
  @external_resource @pure

  @type kind :: :message | :reply | :timer | :signal | :log | :telemetry
  @type answer :: :ok | true | :second | :ref
  @type rule :: :pure | :read | :own | {:record, kind(), answer()}

  # They tell of the process or of the clock: those are read.
  @not_pure ~w(self/0)

  split = fn text -> for line <- String.split(text, "\n", trim: true), do: String.split(line) end

  functions = fn module, words ->
    for word <- words do
      {at, 1} = word |> String.reverse() |> :binary.match("/")
      name = binary_part(word, 0, byte_size(word) - at - 1)
      [arity | _places] = word |> binary_part(byte_size(name) + 1, at) |> String.split(":")
      {String.to_atom(module), String.to_atom(name), String.to_integer(arity)}
    end
  end

  pure =
    for [module | words] <- @pure |> File.read!() |> split.(),
        words = if(module == "erlang", do: words -- @not_pure, else: words),
        function <- functions.(module, words),
        do: {function, :pure}

  gate =
    for line <- @gate |> File.read!() |> split.(),
        {rule, module, words} =
          (case line do
             ["record", kind, answer, module | words] ->
               {{:record, String.to_atom(kind), String.to_atom(answer)}, module, words}

             [kind, module | words] ->
               {String.to_atom(kind), module, words}
           end),
        function <- functions.(module, words),
        do: {function, rule}

  # gate.txt comes second: what it says goes before.
  @rules Map.new(pure ++ gate)

  @modules @rules |> Map.keys() |> Enum.map(&elem(&1, 0)) |> MapSet.new()

  @doc "Whether calls of a module's functions are decided by name: it is not copied."
  @spec knows?(module()) :: boolean()
  def knows?(module), do: MapSet.member?(@modules, module)

  @doc "What is done with a call of a function; nil where nothing is known of it."
  @spec rule(module(), atom(), arity()) :: rule() | nil
  def rule(module, function, arity) do
    case @rules do
      %{{^module, ^function, ^arity} => rule} -> rule
      _unknown -> nil
    end
  end
end
