defmodule HotPatch.Test.PatchedShared do
  @moduledoc false
  # A patch of the small system of HotPatch.Test.NextRelease in `scales`, which both of its releases have in the same
  # version: its server keeps its state in another form, a module is new, a file beside them is another and one is new.

  alias HotPatch.Build
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease
  alias HotPatch.Test.Upgrade

  @note "priv/note.txt"
  @folder "scales-1.0.0"

  @doc "Puts into both releases what the patch is to change there, and makes the upgrade anew."
  @spec ship(NextRelease.t()) :: :ok
  def ship(made) do
    for root <- [made.old, made.new] do
      file = Path.join([root, "lib", @folder, @note])
      File.mkdir_p!(Path.dirname(file))
      File.write!(file, "shipped")
    end

    {:ok, _built} = Build.run(from: made.old, to: made.new, out: made.zip)
    :ok
  end

  @doc "Its files; of another number it is one more."
  @spec files(pos_integer()) :: [{Path.t(), binary()}]
  def files(number \\ 2) do
    code_change =
      "code_change({down, _}, {v#{number}, List}, _) when is_list(List) -> {ok, List};\n" <>
        "code_change(Vsn, List, _) when is_list(List), not is_tuple(Vsn) -> {ok, {v#{number}, List}}."

    server =
      Upgrade.erlang(:scales_server, """
      -vsn(#{number}).
      -behaviour(gen_server).
      -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
      init(_) -> {ok, {v#{number}, []}}.
      handle_call(get, _, State) -> {reply, {#{number}, State}, State}.
      handle_cast(_, State) -> {noreply, State}.
      #{code_change}
      """)

    beams = for {module, bytes} <- [server, extra(number)], do: {"ebin/#{module}.beam", bytes}
    others = [{@note, "patched #{number}"}, {"priv/new/#{number}.txt", "new"}]
    for {path, bytes} <- beams ++ others, do: {Path.join(@folder, path), bytes}
  end

  defp extra(number), do: Upgrade.erlang(:scales_extra, "-export([f/0]).\nf() -> #{number}.")

  @doc "Whose files lie in the release: all of them the patch's, or none."
  @spec disk(Path.t()) :: :patched | :shipped | {:mixed, term()}
  def disk(root) do
    ours =
      for {path, bytes} <- files(), do: File.read(Path.join([root, "lib", path])) == {:ok, bytes}

    [_server, extra, _note, new] =
      for {path, _} <- files(), do: File.exists?(Path.join([root, "lib", path]))

    shipped? = File.read(Path.join([root, "lib", @folder, @note])) == {:ok, "shipped"}

    cond do
      Enum.all?(ours) -> :patched
      not Enum.any?(ours) and shipped? and not extra and not new -> :shipped
      true -> {:mixed, {ours, extra, new, shipped?}}
    end
  end

  @doc "Whose code a node runs, and in which form its server keeps its state."
  @spec memory(node()) :: :patched | :shipped | {:mixed, term()}
  def memory(node) do
    case {NextRelease.ask(node, :scales_server),
          Cluster.call(node, :erlang, :module_loaded, [:scales_extra])} do
      {{2, {:v2, []}}, true} -> :patched
      {{1, []}, false} -> :shipped
      other -> {:mixed, other}
    end
  end
end
