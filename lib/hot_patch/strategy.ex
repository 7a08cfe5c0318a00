defmodule HotPatch.Strategy do
  @moduledoc false
  # How a change comes about on a node: how processes come to the other code, and what is done with
  # modules that run code when they are loaded. An apply is told both. The record of the patch keeps
  # them, because the way back has to be the same: states that no code_change has converted on the way
  # up are not for a code_change on the way down. A rollback may be told otherwise.
  #
  # `purge: :force` is no part of it. It is a decision about the processes that are there in that
  # moment, so that it has to be told anew each time.

  alias HotPatch.Options

  @typedoc """
  How processes come to the new code: suspended, all at once; none of them, because their
  state's format does not change; or each in its turn after the load, because the new code
  accepts the old state too.
  """
  @type transition :: unquote(Options.spec(:apply, :transition))

  @typedoc "What becomes of modules that run code when they are loaded."
  @type on_load :: unquote(Options.spec(:apply, :on_load))

  @type t :: %{
          transition: transition(),
          on_load: on_load()
        }

  @typedoc "A payload: what is not told is nil."
  @type told :: %{
          :kind => :apply | :rollback,
          :transition => atom(),
          :on_load => atom(),
          optional(atom()) => term()
        }

  @typedoc "The record of a patch on a node."
  @type recorded :: %{:strategy => t(), optional(atom()) => term()}

  @default Map.take(Options.defaults(:apply), [:transition, :on_load])

  @doc "That of an apply that is told nothing."
  @spec default() :: t()
  def default, do: @default

  @doc "The strategy of a payload on a node that has this record of the patch, or none."
  @spec of(told(), recorded() | nil) :: t()
  def of(%{kind: :apply} = payload, _record), do: told(payload, @default)
  def of(%{kind: :rollback} = payload, record), do: told(payload, back(record))

  defp told(payload, otherwise) do
    %{
      transition: payload.transition || otherwise.transition,
      on_load: payload.on_load || otherwise.on_load
    }
  end

  @doc "The way back from a patch. States that were converted one by one are in the new format by now."
  @spec back(recorded() | nil) :: t()
  def back(%{strategy: %{transition: :compatible} = strategy}),
    do: %{strategy | transition: :suspend}

  def back(%{strategy: strategy}), do: strategy
  def back(_no_record), do: @default

  @doc "What there is to be known of a strategy; nothing of the one that is the default."
  @spec lines(t() | nil) :: [String.t()]
  def lines(nil), do: []

  def lines(strategy) do
    Enum.concat([
      if(strategy.transition == :none,
        do: ["transition none: nobody is suspended, no state is converted"],
        else: []
      ),
      if(strategy.transition == :compatible,
        do: ["transition compatible: each process converts its state in its own turn"],
        else: []
      ),
      if(strategy.on_load == :load,
        do: ["on_load load: modules that run code when they are loaded are loaded one by one"],
        else: []
      )
    ])
  end

  @doc "Where a rollback is told to go another way than the patch came, in words."
  @spec differs(t(), recorded() | nil) :: [String.t()]
  def differs(_strategy, nil), do: []

  def differs(strategy, record) do
    for {option, value} <- back(record), strategy[option] != value do
      "the patch came with #{option} #{record.strategy[option]}, and is to go back with #{strategy[option]}"
    end
  end
end
