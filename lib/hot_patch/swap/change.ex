defmodule HotPatch.Swap.Change do
  @moduledoc false
  # One module of a swap. `md5` is that of the code that comes, nil where it is deleted;
  # `exports` are those of the code whose callbacks convert the states: the code that comes,
  # or, on the way down to an older version, the code that goes. `old_vsn` is what they are
  # called with: the version from which a process comes, or `{:down, vsn}`, that to which it
  # goes. A module that is added has no old version. `extra` is what they get besides. With
  # `convert?: false` no state changes, whatever the module exports. `arriving` are the exports of
  # the code that comes, and `callback_mode` what that says of itself, on the way down; nil where
  # they are not known. `funs` says which fun of the code that runs is which of the code that comes;
  # nil where there is none, or nobody is to stand still for them.
  alias HotPatch.Swap.FunRenewal

  @enforce_keys [:module, :kind, :exports, :md5]
  defstruct [
    :module,
    :kind,
    :exports,
    :md5,
    :old_vsn,
    :arriving,
    :callback_mode,
    :funs,
    extra: [],
    convert?: true,
    direction: :up
  ]

  @type t :: %__MODULE__{
          module: module(),
          kind: :replace | :add | :delete,
          direction: :up | :down,
          exports: [{String.t(), arity()}],
          md5: binary() | nil,
          old_vsn: term(),
          arriving: [{String.t(), arity()}] | nil,
          callback_mode: term(),
          funs: FunRenewal.of_module() | nil,
          extra: term(),
          convert?: boolean()
        }

  @converters [{"code_change", 3}, {"code_change", 4}, {"system_code_change", 4}]

  @doc "Whether states of the module's processes would be converted."
  @spec converts?(t()) :: boolean()
  def converts?(change), do: change.convert? and converter?(change.exports)

  @doc "Whether a module with these exports converts states."
  @spec converter?([{String.t(), arity()}]) :: boolean()
  def converter?(exports), do: Enum.any?(@converters, &(&1 in exports))

  @doc "The modules among these changes that have code already, which becomes old."
  @spec replaced([t()]) :: [module()]
  def replaced(changes),
    do: for(%{kind: kind, module: module} <- changes, kind != :add, do: module)
end
