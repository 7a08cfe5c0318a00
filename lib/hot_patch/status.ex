defmodule HotPatch.Status do
  @moduledoc """
  The seven statuses of a file on a node, their fixed codes, and how they combine.

  Several statuses combine by taking the smallest code: over the files of a node, then
  over the nodes. Files that are no modules and were carried as they should be do not count where
  there are others: `not_beam` says what they are, and not that something went wrong (see
  `HotPatch.Report.FileResult`).

      iex> HotPatch.Status.combine([:ok, :not_loaded, :not_updated])
      :not_updated
  """

  @codes [
    error: 1,
    not_beam: 2,
    wrong_path: 3,
    not_updated: 4,
    not_changed: 5,
    ok: 6,
    not_loaded: 7
  ]
  @atoms Map.new(@codes, fn {status, code} -> {code, status} end)

  @typedoc """
    * `:error` (1) - cannot be loaded, or loading failed
    * `:not_beam` (2) - no Erlang module; carried to disk all the same
    * `:wrong_path` (3) - not the path from which the node loads that module
    * `:not_updated` (4) - disk can be replaced, memory cannot
    * `:not_changed` (5) - the running module already is this version
    * `:ok` (6) - will be loaded, or is loaded and running
    * `:not_loaded` (7) - the node does not run the module
  """
  @type t ::
          :error | :not_beam | :wrong_path | :not_updated | :not_changed | :ok | :not_loaded

  @type code :: 1..7

  @doc """
  All statuses, in the order of their codes.

      iex> HotPatch.Status.all() |> hd()
      :error
  """
  @spec all() :: [t()]
  def all, do: Keyword.keys(@codes)

  @doc """
  The code of a status.

      iex> HotPatch.Status.code(:ok)
      6
  """
  @spec code(t()) :: code()
  for {status, code} <- @codes do
    def code(unquote(status)), do: unquote(code)
  end

  @doc """
  A status with its code, as tables have it.

      iex> HotPatch.Status.text(:not_updated)
      "not_updated (4)"
  """
  @spec text(t()) :: String.t()
  def text(status), do: "#{status} (#{code(status)})"

  @doc """
  The status of a code, as external systems store it.

      iex> HotPatch.Status.from_code(3)
      {:ok, :wrong_path}
      iex> HotPatch.Status.from_code(8)
      :error
  """
  @spec from_code(integer()) :: {:ok, t()} | :error
  def from_code(code), do: Map.fetch(@atoms, code)

  @doc """
  Combines statuses into the one with the smallest code.

  Nothing to combine gives `:not_loaded`, which is neutral: it has the largest code.

      iex> HotPatch.Status.combine([:ok, :wrong_path, :not_beam])
      :not_beam
      iex> HotPatch.Status.combine([])
      :not_loaded
  """
  @spec combine(Enumerable.t()) :: t()
  def combine(statuses), do: Enum.min_by(statuses, &code/1, fn -> :not_loaded end)

  @doc """
  Whether applying a file with this status is impossible, so that the patch as a whole
  is refused.

      iex> Enum.filter(HotPatch.Status.all(), &HotPatch.Status.refuses?/1)
      [:error, :wrong_path]
  """
  @spec refuses?(t()) :: boolean()
  def refuses?(status), do: status in [:error, :wrong_path]
end
