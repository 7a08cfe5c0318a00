defmodule HotPatch.Error do
  @moduledoc """
  A call was refused or failed. Every `{:error, e}` of `HotPatch` carries one of these, or
  a `HotPatch.Refusal` when the archive itself was refused; the bang variants raise it.

  Fields:

    * `:reason` - an atom to match on, see `t:reason/0`
    * `:message` - the thing, the rule, and what to do next
    * `:report` - the `HotPatch.Report` of the attempt, where there is one; the `HotPatch.Rehearsal` where that is
      why an apply was refused
    * `:details` - what a program may want to know (node, option, holder, ...)
  """

  @typedoc """
    * `:invalid_option` - `details.option` names it
    * `:file` - the archive could not be read from or written to disk
    * `:unknown_patch` - no such id; `details.id`
    * `:ambiguous_patch` - a name that several patches share; `details.candidates`
    * `:damaged_patch` - the stored archive no longer has the digest of its id
    * `:not_applied` - no node has the patch applied, so there is nothing to take back
    * `:retired` - the patch is for another release than the one that runs
    * `:unreachable` - a node was named that does not answer; `details.nodes`
    * `:unmanaged` - a node was named that does not run HotPatch; `details.nodes`
    * `:incompatible` - a node cannot be attached: it runs another HotPatch, or an Erlang/OTP or
      Elixir that cannot run this one; `details.nodes`
    * `:not_attached` - a node cannot be detached, because HotPatch is part of what it runs
    * `:in_force` - a node cannot be detached while patches are in force there; `details.patches`
    * `:busy` - another operation holds a node; `details.node`, `details.holder`
    * `:refused` - nothing was changed anywhere; `report` says why
    * `:cancelled` - somebody has cancelled it (`HotPatch.cancel/2`); `details.outcome` says what became of
      what was done, as in `HotPatch.Cancellation`
    * `:not_under_way` - there is nothing of that kind to cancel
    * `:rolled_back` - it was applied, watched, and taken back; `report.watch` says why
    * `:failed` - the commit failed on a node; `report` says where and how
    * `:bad_signature` - the patch is not signed as the configuration demands, or wrongly
    * `:no_manifest` - the patch has no manifest, and the configuration demands one
    * `:key` - a key cannot be read or written
    * `:build` - no patch can be built from what was given
    * `:dangerous` - no patch was built because of what was found in it; `details.findings`
    * `:fatal_module` - a module of the archive would end the VM that loads it; `details.module`
    * `:untried` - no VM could be started in which modules are tried before a node loads them;
      `details.cause`
    * `:no_native` - this node cannot read archives; `details.cause`
    * `:reader` - the reader of archives failed on this one, or ended while it had it; `details.cause`
    * `:internal` - a bug or a broken node; `details` has what is known
  """
  @type reason ::
          :invalid_option
          | :file
          | :unknown_patch
          | :ambiguous_patch
          | :damaged_patch
          | :not_applied
          | :retired
          | :unreachable
          | :unmanaged
          | :incompatible
          | :not_attached
          | :in_force
          | :busy
          | :refused
          | :failed
          | :cancelled
          | :not_under_way
          | :rolled_back
          | :bad_signature
          | :no_manifest
          | :key
          | :build
          | :dangerous
          | :fatal_module
          | :untried
          | :no_native
          | :reader
          | :internal

  @type t :: %__MODULE__{
          reason: reason(),
          message: String.t(),
          report: HotPatch.Report.t() | HotPatch.Rehearsal.t() | nil,
          details: map()
        }

  defexception [:reason, :message, :report, details: %{}]

  # For people; the field has it as it is. What looks dangerous in a patch is told in lines that are ours: what stands
  # in them from outside, names of modules and functions, is printable already.
  @impl Exception
  def message(%{reason: :dangerous, message: message}),
    do: HotPatch.Support.Printable.lines(message)

  def message(error), do: HotPatch.Support.Printable.line(error.message)

  @doc false
  @spec new(reason(), String.t(), map()) :: t()
  def new(reason, message, details \\ %{}) do
    %__MODULE__{reason: reason, message: message, details: details}
  end

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
