defmodule HotPatch.Console.User do
  @moduledoc """
  Who uses the console: a name for the journal, and a role. A `:viewer` sees everything, an `:admin`
  acts.
  """

  @type role :: :viewer | :admin
  @type t :: %__MODULE__{name: String.t(), role: role()}
  @enforce_keys [:name, :role]
  defstruct [:name, :role]

  @doc """
  Whether a user may do what needs a role.

      iex> viewer = %HotPatch.Console.User{name: "bob", role: :viewer}
      iex> {HotPatch.Console.User.may?(viewer, :viewer), HotPatch.Console.User.may?(viewer, :admin)}
      {true, false}
  """
  @spec may?(t(), role()) :: boolean()
  def may?(%__MODULE__{role: :admin}, _needed), do: true
  def may?(%__MODULE__{role: role}, needed), do: role == needed

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
