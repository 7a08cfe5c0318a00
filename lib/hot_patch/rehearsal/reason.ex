defmodule HotPatch.Rehearsal.Reason do
  @moduledoc false
  # Why a callback failed, without any value: what exceptions say in words is made of states as like as not. The
  # kind of the failure stays, the name of an exception, and of the rest the form.

  alias HotPatch.Rehearsal.Form

  @longest 200

  @doc """
  What was caught.

      iex> HotPatch.Rehearsal.Reason.caught(:error, {:badmatch, {:secret, 1}})
      "badmatch {_, _}"
      iex> HotPatch.Rehearsal.Reason.caught(:error, %KeyError{key: :zone, term: %{to: "0123"}})
      "KeyError: no key zone in %{to}"
      iex> HotPatch.Rehearsal.Reason.caught(:throw, "0123")
      "throw binary"
  """
  @spec caught(:error | :exit | :throw, term()) :: String.t()
  def caught(:error, %KeyError{key: key, term: term}) when is_atom(key),
    do: cut("KeyError: no key #{key} in #{Form.of(term)}")

  def caught(:error, %UndefinedFunctionError{module: module, function: name, arity: arity})
      when is_atom(module) and module != nil and is_integer(arity),
      do: cut("#{Exception.format_mfa(module, name, arity)} is undefined")

  def caught(:error, %FunctionClauseError{}), do: "no clause of the function takes it"
  def caught(:error, :function_clause), do: "no clause of the function takes it"
  def caught(:error, %module{__exception__: true} = error), do: cut(exception(module, error))
  def caught(:error, atom) when is_atom(atom), do: cut("#{atom}")

  def caught(:error, {name, about}) when is_atom(name),
    do: cut("#{name} #{Form.of(about)}")

  def caught(:error, other), do: cut("error #{Form.of(other)}")
  def caught(kind, reason), do: cut("#{kind} #{Form.of(reason)}")

  @doc """
  What was given in place of a new state.

      iex> HotPatch.Rehearsal.Reason.given({:error, :no_way})
      "it gives {:error, atom}, and no new state"
  """
  @spec given(term()) :: String.t()
  def given({:error, {:child_of_a_module_that_goes, child}}) when is_atom(child),
    do: cut("it names a child of #{inspect(child)}, a module that goes with this change")

  def given(:works_for_another), do: "its loop does not show that it works for the module"

  def given({:error, {:unknown_state_of_library, _module}}),
    do: "the library's state is of a form that is not known here"

  def given({:error, {:not_its_socket, _module}}), do: "it gives another socket than it got"
  def given({:error, reason}), do: "it gives {:error, #{Form.of(reason)}}, and no new state"
  def given(other), do: "it gives #{Form.of(other)}, and no new state"

  defp exception(module, %{term: term}), do: "#{inspect(module)} of #{Form.of(term)}"
  defp exception(module, _error), do: inspect(module)

  defp cut(text), do: String.slice(text, 0, @longest)
end
