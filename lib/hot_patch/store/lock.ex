defmodule HotPatch.Store.Lock do
  @moduledoc false
  # A lock between the nodes of one host, and the processes of each, by a file.
  #
  # The lock is held by whose text is in the file. The text is written to a file of its own
  # and then linked to the lock's name: linking is atomic and fails if the name is taken, so
  # a lock is never there without its owner.
  #
  # The lock of an owner that died is removed by whoever wants it next. Only one may do that
  # at a time, else one who has seen the dead owner could remove the lock that another has
  # taken meanwhile; so it takes a second lock, of the same kind, named PATH.takeover, looks
  # again, and then removes. While it holds that, nobody can replace a dead owner: not the
  # dead one, and not another taker. A taker that dies leaves a lock with a dead owner in
  # turn, and is replaced in the same way.
  #
  # The folder must allow hard links.

  alias HotPatch.Store
  alias HotPatch.Store.Lock.Owner

  @doc """
  Runs `fun` while no other process on this host does so under the same path.

  Waits for at most `timeout` milliseconds; `owner` is then who has it, as its text says.
  The lock is free again when `fun` returns, raises, or dies. Not reentrant. `mode` is that of its
  file.
  """
  @spec with_lock(Path.t(), timeout(), (() -> result), non_neg_integer()) ::
          {:ok, result} | {:error, {:locked, owner :: String.t()}} | {:error, File.posix()}
        when result: term()
  def with_lock(path, timeout, fun, mode \\ 0o600) do
    path = to_string(path)
    me = Owner.new()

    try do
      with :ok <- take(path, me, deadline(timeout), mode), do: hold(path, me, fun)
    after
      Owner.forget(me)
    end
  end

  defp hold(path, me, fun) do
    _ = sweep(path)
    {:ok, fun.()}
  after
    release(path, me)
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  defp take(path, me, deadline, mode) do
    with :ok <- Store.make_folder(Path.dirname(path)),
         :ok <- Store.write_flushed(own(path, me), me.text, mode) do
      wait(path, own(path, me), me, deadline)
    end
  after
    # The lock keeps the text under its own name.
    File.rm(own(path, me))
  end

  # Nobody tells when a file goes. An atom is greater than any number.
  defp wait(path, own, me, deadline) do
    with {:error, {:locked, _owner}} = locked <- claim(path, own, me) do
      if System.monotonic_time(:millisecond) >= deadline do
        locked
      else
        receive do
        after
          5 + :rand.uniform(10) -> wait(path, own, me, deadline)
        end
      end
    end
  end

  defp claim(path, own, me) do
    case :file.make_link(own, path) do
      :ok -> :ok
      {:error, :eexist} -> ask(path, own, me)
      error -> error
    end
  end

  defp ask(path, own, me) do
    case File.read(path) do
      # Over the network a link may be made and its confirmation lost.
      {:ok, text} when text == me.text -> :ok
      {:ok, text} -> if Owner.lives?(text), do: locked(text), else: replace(path, text, own, me)
      # Released just now.
      {:error, :enoent} -> claim(path, own, me)
      error -> error
    end
  end

  defp locked(text),
    do:
      {:error, {:locked, if(String.printable?(text), do: String.trim(text), else: inspect(text))}}

  defp replace(path, dead, own, me) do
    guard = path <> ".takeover"

    with :ok <- claim(guard, own, me),
         :ok <- remove(path, dead, guard, me),
         do: claim(path, own, me)
  end

  defp remove(path, dead, guard, me) do
    with {:ok, ^dead} <- File.read(path), :ok <- File.rm(path) do
      :ok
    else
      # Another taker was faster.
      {:ok, _text} -> :ok
      {:error, :enoent} -> :ok
      error -> error
    end
  after
    release(guard, me)
  end

  # Somebody may have removed the lock by hand, and another taken it.
  defp release(path, me) do
    if File.read(path) == {:ok, me.text}, do: File.rm(path)
  end

  defp own(path, me), do: "#{path}.#{me.token}.claim"

  # What those left who were killed while they waited. One without text may be just about
  # to be written.
  defp sweep(path) do
    folder = Path.dirname(path)
    start = Path.basename(path) <> "."

    with {:ok, names} <- File.ls(folder) do
      for name <- names,
          String.starts_with?(name, start) and String.ends_with?(name, ".claim"),
          {:ok, text} when text != "" <- [File.read(Path.join(folder, name))],
          not Owner.lives?(text),
          do: File.rm(Path.join(folder, name))
    end
  end
end
