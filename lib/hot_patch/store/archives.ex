defmodule HotPatch.Store.Archives do
  @moduledoc false
  # Uploaded archives, one file each, with what is known about the upload beside it.

  alias HotPatch.Host.Config
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Support.Folder

  @typedoc "What is kept beside an archive."
  @type t :: %{
          required(:id) => String.t(),
          required(:name) => String.t(),
          required(:sha256) => <<_::256>>,
          required(:size) => pos_integer(),
          required(:files) => non_neg_integer(),
          required(:modules) => non_neg_integer(),
          required(:release) => Release.t(),
          required(:upgrade) => String.t() | nil,
          required(:follows) => %{name: String.t(), modules: [String.t()]} | nil,
          required(:uploaded_at) => DateTime.t(),
          required(:by) => String.t(),
          required(:signed_by) => String.t() | nil
        }

  @version 1

  @doc """
  Keeps an archive. Of one that is kept already only the record is written anew.
  No more is kept than `config :hot_patch, max_kept_bytes: n` allows.
  """
  @spec put(t(), binary()) :: :ok | {:error, File.posix() | :quota}
  def put(%{id: id} = record, bytes) do
    case fetch(id) do
      {:ok, _first, ^bytes} ->
        write(record)

      _ ->
        with :ok <- room(byte_size(bytes)),
             :ok <- Store.write(archive(id), bytes),
             do: write(record)
    end
  end

  @doc "Binds the archives of one release to another: the same system has got another name."
  @spec rebind(Release.t(), Release.t()) :: :ok | {:error, File.posix()}
  def rebind(before, now) do
    Enum.reduce_while(list(), :ok, fn
      %{release: ^before} = record, :ok ->
        case write(%{record | release: now}) do
          :ok -> {:cont, :ok}
          error -> {:halt, error}
        end

      _of_another, :ok ->
        {:cont, :ok}
    end)
  end

  # On disk it is a plain map with its version, without structs of ours.
  defp write(record) do
    term = record |> Map.put(:v, @version) |> Map.update!(:release, &Release.to_map/1)
    Store.write_term(record(record.id), term)
  end

  defp read(path) do
    case Store.read_term(path) do
      {:ok, term} -> migrate(term)
      :error -> :error
    end
  end

  # The first records had no version, and the release as a struct.
  defp migrate(%{release: release, id: _, sha256: _} = term) do
    record = term |> Map.delete(:v) |> Map.put(:release, Release.from_map(release))
    {:ok, Map.merge(%{signed_by: nil, upgrade: nil, follows: nil}, record)}
  end

  defp migrate(_no_record), do: :error

  @doc "How many bytes of archives this node keeps at most."
  @spec quota() :: pos_integer()
  def quota, do: Config.current().max_kept_bytes

  defp room(size) do
    kept = list() |> Enum.map(& &1.size) |> Enum.sum()
    if kept + size <= quota(), do: :ok, else: {:error, :quota}
  end

  @doc "An archive's record and bytes; `:damaged` if the bytes no longer have their digest."
  @spec fetch(String.t()) :: {:ok, t(), binary()} | :unknown | :damaged
  def fetch(id) do
    with true <- safe?(id),
         {:ok, record} <- read(record(id)),
         {:ok, bytes} <- File.read(archive(id)) do
      if :crypto.hash(:sha256, bytes) == record.sha256, do: {:ok, record, bytes}, else: :damaged
    else
      _ -> :unknown
    end
  end

  @doc "The records of the archives kept on this node, or of those with the wanted ids."
  @spec list((String.t() -> boolean())) :: [t()]
  def list(wanted? \\ fn _id -> true end) do
    for path <- Folder.files(folder(), ".record"),
        wanted?.(Path.basename(path, ".record")),
        {:ok, record} <- [read(path)],
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
