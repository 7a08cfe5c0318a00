defmodule HotPatch.NodeAgent.DiskCheck do
  @moduledoc false
  # Whether the disk can take what a patch brings, asked before anything is written: an apply would
  # find out as well, but a check and a plan are there to say it beforehand.
  #
  # What cannot be told without writing, as a quota, is left to the apply, which then refuses in
  # the same way.

  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Status
  alias HotPatch.Store
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.FreeSpace
  alias HotPatch.Store.Transaction

  @doc "The verdicts, with those files that cannot be written."
  @spec hindered([Verdict.t()]) :: [Verdict.t()]
  def hindered(verdicts) do
    # What is refused already says why. Each file is read once.
    wanted =
      for verdict <- verdicts,
          verdict.target != nil and not Status.refuses?(verdict.status),
          do: {verdict, new(verdict.entry), old(verdict.target)}

    on_disk = Enum.filter(wanted, fn {verdict, _new, _old} -> verdict.disk? end)
    written = for {verdict, new, old} <- on_disk, writes?(verdict, new, old), do: verdict
    failures = failures(written)

    if failures != %{} do
      Enum.map(verdicts, &blame_own(&1, failures))
    else
      case keeps(wanted, on_disk, written) do
        :ok -> verdicts
        {:error, failure} -> blame(verdicts, failure)
      end
    end
  end

  # What is needed beside the files themselves.
  defp keeps([], _on_disk, _written), do: :ok

  defp keeps(wanted, on_disk, written) do
    with :ok <- folder(Store.directory()),
         :ok <- if(on_disk == [], do: :ok, else: folder(Path.dirname(Transaction.lock()))),
         do: FreeSpace.enough(staged(written) ++ kept(wanted))
  end

  defp writes?(%{entry: %{bytes: nil}, target: target}, _new, _old), do: File.exists?(target)
  defp writes?(_verdict, {new, _size}, {old, _of_old}), do: new != old

  @doc "The users whose files are replaced by files of this node's own user, who cannot give them away."
  @spec former_owners([Verdict.t()]) :: [non_neg_integer()]
  def former_owners(verdicts) do
    case FreeSpace.user() do
      user when user in [0, nil] ->
        []

      user ->
        for %{target: target, disk?: true} = verdict when target != nil <- verdicts,
            writes?(verdict, new(verdict.entry), old(target)),
            {:ok, %File.Stat{uid: uid}} when uid != user <- [File.stat(target)],
            uniq: true,
            do: uid
    end
  end

  @doc "The verdicts of files that cannot be written: the file at fault, or where that is none of them, all."
  @spec blame([Verdict.t()], Transaction.failure()) :: [Verdict.t()]
  def blame(verdicts, {path, reason}) do
    at_fault =
      if Enum.any?(verdicts, &target?(&1, path)),
        do: &target?(&1, path),
        else: &(&1.target != nil)

    Enum.map(verdicts, fn verdict ->
      if at_fault.(verdict),
        do: Verdict.change_status(verdict, :error, text(path, reason)),
        else: verdict
    end)
  end

  defp target?(%{target: nil}, _path), do: false
  defp target?(%{target: target}, path), do: path in [target, Transaction.real(target)]

  defp blame_own(verdict, failures) do
    case failures do
      %{^verdict => reason} ->
        Verdict.change_status(verdict, :error, text(Transaction.real(verdict.target), reason))

      _ ->
        verdict
    end
  end

  defp text(path, reason), do: "cannot write #{path}: #{words(reason)}#{advice(path, reason)}"

  @doc "Why a file cannot be written, in words."
  @spec words(File.posix() | {:locked | :archive, String.t()}) :: String.t()
  def words({:locked, owner}), do: "locked by #{owner}"

  def words({:archive, path}),
    do: "it is inside the archive #{path}, which HotPatch does not write"

  def words(posix), do: posix |> :file.format_error() |> to_string()

  defp advice(path, reason) when reason in [:eacces, :eperm, :erofs] or is_tuple(reason) do
    if path == Store.directory() or String.starts_with?(path, Store.directory() <> "/"),
      do: "; name another folder with config :hot_patch, data_dir: ...",
      else: "; give the node's user the right to, or apply with disk: :memory_only"
  end

  defp advice(_path, _reason), do: ""

  # Many files lie in few folders.
  defp failures(verdicts) do
    places = for verdict <- verdicts, do: {verdict, Transaction.real(verdict.target)}
    folders = for {_verdict, place} <- places, uniq: true, do: Path.dirname(place)
    folders = Map.new(folders, &{&1, writable(&1)})

    for {verdict, place} <- places,
        {:error, reason} <- [file(place, folders[Path.dirname(place)])],
        into: %{},
        do: {verdict, reason}
  end

  defp file(place, :ok), do: replaceable(place)
  defp file(_place, error), do: error

  defp writable(folder) do
    with :ok <- no_archive(folder),
         {:error, {_path, reason}} <- folder(folder),
         do: {:error, reason}
  end

  # A folder that is to be made is made in the nearest that is there.
  defp folder(path) do
    case File.stat(path) do
      {:ok, %File.Stat{type: :directory, access: access}} when access in [:write, :read_write] ->
        :ok

      {:ok, %File.Stat{type: :directory}} ->
        {:error, {path, refused(path)}}

      {:ok, _file} ->
        {:error, {path, :enotdir}}

      {:error, :enoent} ->
        if Path.dirname(path) != path, do: folder(Path.dirname(path))

      {:error, posix} ->
        {:error, {path, posix}}
    end
  end

  # The code path may lead into an archive, where there are no files for the system.
  defp no_archive(folder) do
    case Enum.find([folder | parents(folder)], &File.regular?/1) do
      nil -> :ok
      archive -> {:error, {:archive, archive}}
    end
  end

  defp parents(path) do
    if Path.dirname(path) == path,
      do: [],
      else: [Path.dirname(path) | parents(Path.dirname(path))]
  end

  # A file is replaced by another of its name, so that its own rights do not matter; unless those
  # that it has are not the reason why it cannot be written.
  defp replaceable(target) do
    case File.stat(target) do
      {:ok, %File.Stat{type: :directory}} -> {:error, :eisdir}
      {:ok, %File.Stat{access: access}} when access in [:write, :read_write] -> :ok
      {:ok, stat} -> if own_rights?(stat), do: {:error, refused(target)}, else: readable(target)
      {:error, _not_there} -> :ok
    end
  end

  defp own_rights?(%File.Stat{mode: mode, uid: uid}) do
    case FreeSpace.user() do
      0 -> true
      ^uid -> Bitwise.band(mode, 0o200) != 0
      _other -> false
    end
  end

  # What was there is kept.
  defp readable(target) do
    with {:ok, device} <- :file.open(target, [:read, :raw]), do: :file.close(device)
  end

  # Asked of a folder or file that is there.
  defp refused(path) do
    if FreeSpace.read_only?(path),
      do: :erofs,
      else: if(FreeSpace.user() == 0, do: :eperm, else: :eacces)
  end

  # Beside the files that they replace.
  defp staged(written) do
    for verdict <- written,
        bytes = verdict.entry.bytes,
        do: {verdict.target, byte_size(bytes)}
  end

  # In the data directory, each content once.
  defp kept(wanted) do
    for({_verdict, new, old} <- wanted, content <- [new, old], do: content)
    |> Enum.uniq()
    |> Enum.filter(fn {digest, _size} ->
      digest != nil and not Blobs.there?(Store.blobs(), digest)
    end)
    |> Enum.map(fn {_digest, size} -> {Store.directory(), size} end)
  end

  defp new(%{bytes: nil}), do: {nil, 0}
  defp new(%{bytes: bytes}), do: {:crypto.hash(:sha256, bytes), byte_size(bytes)}

  defp old(target) do
    case File.read(target) do
      {:ok, bytes} -> {:crypto.hash(:sha256, bytes), byte_size(bytes)}
      {:error, _posix} -> {nil, 0}
    end
  end
end
