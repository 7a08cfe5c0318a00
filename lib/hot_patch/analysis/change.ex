defmodule HotPatch.Analysis.Change do
  @moduledoc """
  What becomes of one module in a change.

    * `:module` - its name, as it stands in its file
    * `:operation` - `:add`, `:replace`, `:delete`
    * `:roles` - what it is to the system: `:gen_server`, `:gen_statem`, `:gen_event`, `:supervisor`,
      `:live_view`, `:channel`, `:live_component`, `:components` (of functions), `:special_process`, `:application`, `:protocol`, `:implementation`, `:nif`, `:on_load`,
      `:behaviour`, `:macros`, `:macros_only`, `:struct`; `:pure` where it is nothing but functions
    * `:functions` - those added, removed and changed, as `"name/arity"`; `nil` if they could not be
      compared. Digests of single functions do not depend on lines, nor on how the compiler numbers
      things
    * `:exports_added`, `:exports_removed`
    * `:calls` - modules of the change that it calls; `:callers` - modules outside that call it
    * `:code_change` - what is known of the one that converts the states: `:absent`, `:keeps` (all it
      does is to give the state back), `:untouched` (its text is as before), `:touched`. Unless it is
      absent or keeps the state it is called, on the way up as on the way down: that its text is as
      before does not say that it does what it did
    * `:state_moves?` - whether the state of its processes changes its form, or may: it may wherever
      a `code_change` is called
    * `:pause` - `:none`, `:state`, `:supervisor`: for whom processes have to stand still; `:why`
      says why so
  """

  @type functions :: %{added: [String.t()], removed: [String.t()], changed: [String.t()]}
  @type t :: %__MODULE__{
          module: String.t(),
          operation: :add | :replace | :delete,
          roles: [atom()],
          functions: functions() | nil,
          exports_added: [String.t()],
          exports_removed: [String.t()],
          calls: [String.t()],
          callers: [String.t()],
          code_change: :absent | :keeps | :untouched | :touched,
          state_moves?: boolean(),
          pause: :none | :state | :supervisor,
          why: String.t()
        }
  @keys [
    :module,
    :operation,
    :roles,
    :functions,
    :exports_added,
    :exports_removed,
    :calls,
    :callers,
    :code_change,
    :state_moves?,
    :pause,
    :why
  ]
  @enforce_keys @keys
  defstruct @keys

  @roles ~w(gen_server gen_statem gen_event supervisor live_view channel live_component components
            special_process application protocol implementation nif on_load behaviour macros macros_only struct pure)a
  @words ~w(add replace delete absent keeps untouched touched none state supervisor added removed changed)a

  @doc false
  @spec vocabulary() :: [atom()]
  def vocabulary, do: @roles ++ @words ++ [:state_moves | @keys]

  @doc false
  @spec new(map()) :: t()
  def new(read) do
    {moves, read} = Map.pop!(read, :state_moves)
    struct!(__MODULE__, Map.put(read, :state_moves?, moves))
  end

  defimpl Inspect do
    def inspect(change, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Analysis.Change<#{change.operation} #{change.module} #{Enum.join(change.roles, ",")}>"
      )
    end
  end
end
