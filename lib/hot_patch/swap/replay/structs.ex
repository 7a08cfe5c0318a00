defmodule HotPatch.Swap.Replay.Structs do
  @moduledoc false
  # Elixir's functions go by the code of a struct: by what implements a protocol for it, or by functions of its module. Where a
  # copy of that is there, it is gone by in the place of the original.

  alias HotPatch.Swap.Replay.Closed
  alias HotPatch.Swap.Replay.Sandbox

  # Functions of Enum that go along all elements, whatever else is implemented.
  @along ~w(all? any? each filter find flat_map group_by join map map_join map_reduce reduce reject reverse sort
            sort_by sum to_list uniq with_index)a

  @doc "The elements of a struct that a function of Enum goes along; `:unknown` where its code is not copied."
  @spec elements(struct(), atom()) :: {:ok, list()} | :unknown
  def elements(struct, function) when function in @along do
    with copy when copy != nil <- implementation(Enumerable, struct),
         {:done, elements} <- copy.reduce(struct, {:cont, []}, Closed.collector()) do
      {:ok, Enum.reverse(elements)}
    else
      _another -> :unknown
    end
  end

  def elements(_struct, _function), do: :unknown

  @doc "The copy of what implements a protocol for a struct; nil where there is none."
  @spec implementation(module(), struct()) :: module() | nil
  def implementation(protocol, %{__struct__: module}) when is_atom(module) do
    Sandbox.inside().family[Module.safe_concat(protocol, module)]
  rescue
    # There is no such name.
    ArgumentError -> nil
  end

  def implementation(_protocol, _no_struct), do: nil
end
