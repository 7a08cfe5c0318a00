defmodule HotPatch.NodeAgent.AtomName do
  @moduledoc false
  # Names of atoms as Elixir inspects them, without the atoms: of a patch that is only looked at
  # none may be made.

  @alias ~r/\A[A-Z][A-Za-z0-9_]*(\.[A-Z][A-Za-z0-9_]*)*\z/
  @plain ~r/\A[a-z_][A-Za-z0-9_@]*[?!]?\z/

  @doc """
  An atom, or the text of one, as `inspect/1` gives it.

      iex> HotPatch.NodeAgent.AtomName.text("Elixir.Shop.Cart")
      "Shop.Cart"

      iex> HotPatch.NodeAgent.AtomName.text("shop_cart")
      ":shop_cart"
  """
  @spec text(atom() | String.t()) :: String.t()
  def text(atom) when is_atom(atom), do: inspect(atom)

  def text(name) do
    inspect(String.to_existing_atom(name))
  rescue
    ArgumentError -> unknown(name)
  end

  @doc """
  The other way: the name that an atom has as text, by what `text/1` gave.

      iex> HotPatch.NodeAgent.AtomName.name("Shop.Cart")
      "Elixir.Shop.Cart"

      iex> HotPatch.NodeAgent.AtomName.name(":shop_cart")
      "shop_cart"
  """
  @spec name(String.t()) :: String.t()
  def name(":\"" <> rest), do: String.trim_trailing(rest, "\"")
  def name(":" <> name), do: name
  def name(name), do: "Elixir." <> name

  defp unknown("Elixir." <> rest = name),
    do: if(rest =~ @alias, do: rest, else: ":" <> inspect(name))

  defp unknown(name), do: if(name =~ @plain, do: ":" <> name, else: ":" <> inspect(name))
end
