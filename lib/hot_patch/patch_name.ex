defmodule HotPatch.PatchName do
  @moduledoc false
  # Which patch somebody means: the one with this id, or this name, or whose id alone begins so.

  alias HotPatch.Error
  alias HotPatch.Patch
  alias HotPatch.Support.Suggestion

  @typedoc "A patch, or what is left of one that is deleted."
  @type named :: Patch.t() | %{id: String.t(), name: String.t()}

  # Behind the name of a patch its id has this many digits of the digest, and a dash before them.
  @digits 12

  @doc """
  What is known of a patch of which there is only the id.

      iex> HotPatch.PatchName.of_id("fix-3fa9c1d2e0b4")
      %{id: "fix-3fa9c1d2e0b4", name: "fix"}
  """
  @spec of_id(String.t()) :: named()
  def of_id(id), do: %{id: id, name: binary_part(id, 0, max(byte_size(id) - @digits - 1, 0))}

  @doc "Finds a patch among all."
  @spec find([one], term()) :: {:ok, one} | {:error, Error.t()} when one: named()
  def find(patches, id) when is_binary(id) and id != "" do
    case Enum.find(patches, &(&1.id == id)) do
      nil -> by_name(patches, id)
      patch -> {:ok, patch}
    end
  end

  def find(patches, other), do: {:error, unknown(other, patches)}

  defp by_name(patches, name) do
    case Enum.filter(patches, &(&1.name == name)) do
      [patch] -> {:ok, patch}
      [] -> by_prefix(patches, name)
      several -> {:error, ambiguous("several patches are named #{name}", several)}
    end
  end

  defp by_prefix(patches, prefix) do
    case Enum.filter(patches, &String.starts_with?(&1.id, prefix)) do
      [patch] -> {:ok, patch}
      [] -> {:error, unknown(prefix, patches)}
      several -> {:error, ambiguous("the ids of several patches begin with #{prefix}", several)}
    end
  end

  defp ambiguous(what, patches) do
    ids = Enum.map(patches, & &1.id)

    Error.new(:ambiguous_patch, "#{what}: say which of #{Enum.join(ids, ", ")}", %{
      candidates: ids
    })
  end

  defp unknown(id, patches) do
    Error.new(
      :unknown_patch,
      "no patch has the id #{inspect(id, printable_limit: 80)}: #{known(id, patches)}",
      %{id: id}
    )
  end

  defp known(_id, []), do: "none is uploaded, see HotPatch.upload/2"

  defp known(id, patches) do
    names = Enum.map(patches, & &1.id) ++ Enum.map(patches, & &1.name)
    question = if is_binary(id), do: Suggestion.question(id, names), else: ""
    "there are #{Enum.map_join(patches, ", ", & &1.id)}#{question}"
  end
end
