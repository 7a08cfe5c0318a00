defmodule HotPatch.Store.Archives do
  @moduledoc false
  # Uploaded archives, one file each, with what is known about the upload beside it.

  alias HotPatch.Config
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Store.Dir

  @typedoc "What is kept beside an archive."
  @type t :: %{
          required(:id) => String.t(),
          required(:name) => String.t(),
          required(:sha256) => <<_::256>>,
          required(:size) => pos_integer(),
          required(:files) => non_neg_integer(),
          required(:modules) => non_neg_integer(),
          required(:release) => Release.t(),
          required(:uploaded_at) => DateTime.t(),
          required(:by) => String.t(),
          # Not of one that was kept by a version without manifests.
          optional(:signed_by) => String.t() | nil
        }

  @doc """
  Keeps an archive. Keeping it again leaves the first record as it is, unless the patch has
  ended since. No more is kept than `config :hot_patch, max_kept_bytes: n` allows.
  """
  @spec put(t(), binary()) :: :ok | {:error, File.posix() | :quota}
  def put(%{id: id} = record, bytes) do
    case fetch(id) do
      {:ok, first, ^bytes} ->
        if ended?(first), do: Store.write_term(record(id), record), else: :ok

      _ ->
        with :ok <- room(byte_size(bytes)),
             :ok <- Store.write(archive(id), bytes),
             do: Store.write_term(record(id), record)
    end
  end

  @doc "How many bytes of archives this node keeps at most."
  @spec quota() :: pos_integer()
  def quota, do: Config.current().max_kept_bytes

  defp room(size) do
    kept = list() |> Enum.map(& &1.size) |> Enum.sum()
    if kept + size <= quota(), do: :ok, else: {:error, :quota}
  end

  defp ended?(%{id: id, uploaded_at: at}) do
    case Store.Applied.state().retired do
      %{^id => retired_at} -> DateTime.compare(at, retired_at) == :lt
      _ -> false
    end
  end

  @doc "An archive's record and bytes; `:damaged` if the bytes no longer have their digest."
  @spec fetch(String.t()) :: {:ok, t(), binary()} | :unknown | :damaged
  def fetch(id) do
    with true <- safe?(id),
         {:ok, record} <- Store.read_term(record(id)),
         {:ok, bytes} <- File.read(archive(id)) do
      if :crypto.hash(:sha256, bytes) == record.sha256, do: {:ok, record, bytes}, else: :damaged
    else
      _ -> :unknown
    end
  end

  @doc "The records of all archives kept on this node."
  @spec list() :: [t()]
  def list do
    for path <- Dir.files(folder(), ".record"),
        {:ok, record} <- [Store.read_term(path)],
        do: record
  end

  @doc "Forgets an archive; says whether there was one."
  @spec delete(String.t()) :: :ok | :unknown | {:error, File.posix()}
  def delete(id) do
    with true <- safe?(id),
         :ok <- File.rm(record(id)) do
      _ = File.rm(archive(id))
      :ok
    else
      false -> :unknown
      {:error, :enoent} -> :unknown
      error -> error
    end
  end

  # An id comes from a person: it must not name a file elsewhere.
  defp safe?(id), do: is_binary(id) and id =~ ~r/\A[A-Za-z0-9][A-Za-z0-9._-]*\z/

  defp archive(id), do: Path.join(folder(), id <> ".zip")
  defp record(id), do: Path.join(folder(), id <> ".record")
  defp folder, do: Path.join(Store.directory(), "archives")
end
