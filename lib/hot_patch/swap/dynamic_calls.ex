defmodule HotPatch.Swap.DynamicCalls do
  @moduledoc false
  # What shadows call instead of a module whose name is known only when the code runs (see
  # native/beam/src/shadow/by_name.rs). Before the load that name still leads to the version
  # before; here it leads to the shadow of the module, if there is one.
  #
  # `call` takes the arguments of the function first, then the module and the function: so they stand
  # in the registers already where the VM's own instruction for such a call wants them. The others
  # have the names of the functions in whose place they are called.

  import Kernel,
    except: [apply: 3, function_exported?: 3, struct: 1, struct: 2, struct!: 1, struct!: 2]

  # What a module's shadow is called after it.
  @suffix "@hot_patch"
  # In the dictionary of a process that is not to make any.
  @without :"$hot_patch_without_calls"
  # The most arguments of a call by name in a module that has a shadow.
  @most 32

  @doc "How the native core names shadows, and where it leads their calls by name."
  @spec naming() :: {suffix :: String.t(), helper :: String.t()}
  def naming, do: {@suffix, Atom.to_string(__MODULE__)}

  @doc "Whether a module is a shadow, by its name."
  @spec shadow?(module()) :: boolean()
  def shadow?(module), do: module |> Atom.to_string() |> String.ends_with?(@suffix)

  @doc """
  Runs a function as long as it makes no call by a name that is known only now: what it leads to is
  not known either. `:called` if it does; that call is not made.
  """
  @spec without((() -> result)) :: {:ok, result} | :called when result: term()
  def without(fun) do
    Process.put(@without, :allowed)
    result = fun.()
    if Process.delete(@without) == :called, do: :called, else: {:ok, result}
  end

  for count <- 0..@most do
    arguments = Macro.generate_arguments(count, __MODULE__)

    @doc false
    def call(unquote_splicing(arguments), module, function),
      do: Kernel.apply(leads_to(module), function, unquote(arguments))
  end

  @doc false
  @spec apply(module(), atom(), [term()]) :: term()
  def apply(module, function, arguments),
    do: Kernel.apply(leads_to(module), function, arguments)

  @doc false
  @spec make_fun(module(), atom(), arity()) :: fun()
  def make_fun(module, function, arity),
    do: :erlang.make_fun(leads_to(module), function, arity)

  @doc false
  @spec capture(module(), atom(), arity()) :: fun()
  def capture(module, function, arity), do: make_fun(module, function, arity)

  @doc false
  @spec function_exported(module(), atom(), arity()) :: boolean()
  def function_exported(module, function, arity),
    do: :erlang.function_exported(leads_to(module), function, arity)

  @doc false
  @spec ensure_loaded?(module()) :: boolean()
  def ensure_loaded?(module), do: Code.ensure_loaded?(leads_to(module))

  # What Elixir from 1.17 on calls for `value.field`, where the value may be a module.
  @doc false
  @spec no_parens_remote(term(), atom()) :: {:ok, term()} | :error
  def no_parens_remote(module, function)
      when is_atom(module) and module not in [nil, true, false],
      do: {:ok, Kernel.apply(leads_to(module), function, [])}

  def no_parens_remote(_other, _field), do: :error

  @doc false
  @spec struct(module() | struct(), Enum.t()) :: struct()
  def struct(of, fields \\ []), do: of |> made_by_shadow() |> Kernel.struct(fields)

  @doc false
  @spec struct!(module() | struct(), Enum.t()) :: struct()
  def struct!(of, fields \\ []) do
    # Which fields it must have is known to the function with one argument alone.
    if is_atom(of) and leads_to(of) != of,
      do: leads_to(of).__struct__(fields),
      else: Kernel.struct!(of, fields)
  end

  @doc false
  @spec from_struct(module() | struct()) :: map()
  def from_struct(of), do: of |> made_by_shadow() |> Map.from_struct()

  # A struct that a shadow makes has the name of the module for which the shadow stands.
  defp made_by_shadow(of) when is_atom(of) do
    case leads_to(of) do
      ^of -> of
      shadow -> shadow.__struct__()
    end
  end

  defp made_by_shadow(of), do: of

  # No atom is made: a shadow that is loaded has one. A name that is no atom, or as long as an atom
  # can be, is none of a shadow; what comes of it is the caller's matter.
  defp leads_to(module) when is_atom(module) do
    # Whoever catches this is found out by what is noted.
    if Process.get(@without) != nil do
      Process.put(@without, :called)
      throw(:hot_patch_call_by_name)
    end

    shadow = String.to_existing_atom(Atom.to_string(module) <> @suffix)
    if :erlang.module_loaded(shadow), do: shadow, else: module
  rescue
    _error in [ArgumentError, SystemLimitError] -> module
  end

  defp leads_to(module), do: module
end
