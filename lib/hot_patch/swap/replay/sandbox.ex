defmodule HotPatch.Swap.Replay.Sandbox do
  @moduledoc false
  # What a process that plays messages knows of the one that it plays, and notes of what it does: which shadows
  # stand for which modules, what would have been sent, why it was left aside, and what was read. It is kept in the
  # dictionary, where the code that is played cannot change it.
  #
  # The process has another pid than the one that it plays. So that code finds itself in its state and in
  # messages, that one's pid becomes its own there, and back in what leaves.

  alias HotPatch.Support.TermWalk

  @inside :"$hot_patch_replay"
  @notes :"$hot_patch_replay_notes"
  @keys [@inside, @notes]

  @typedoc "Shadows by the modules they stand for."
  @type family :: %{module() => module()}
  @type side :: :old | :new
  @type reason ::
          {:calls, mfa()}
          | {:fun_of, module()}
          | {:fun_without, module()}
          | {:struct_of, module()}
          | {:not_there, mfa()}
          | :receives
          | :unknown_fun
          | :own_table
          | :many_arguments
          | :atoms

  @typedoc "What was noted: `sent` the last first, `left` why the message was left aside, `reads` what it has read."
  @type notes :: %{sent: [{atom(), term()}], left: reason() | nil, reads: map()}

  @doc "Begins to play one message by one side, with the dictionary that it has."
  @spec enter(HotPatch.Swap.Replay.Callback.actor(), reads :: map()) :: :ok
  def enter(%{family: family} = actor, reads) do
    _ = :erlang.erase()
    Enum.each(actor.dictionary, fn {key, value} -> Process.put(key, value) end)
    names = for {_module, shadow} <- family, into: %{}, do: {shadow, true}
    inside = actor |> Map.take([:side, :family, :real, :funs, :coming]) |> Map.put(:names, names)
    Process.put(@inside, inside)
    Process.put(@notes, %{sent: [], left: nil, reads: reads})
    :ok
  end

  @doc "Ends it: what was noted, the dictionary that it leaves, and what it has read."
  @spec leave() :: {notes(), [{term(), term()}], reads :: map()}
  def leave do
    notes = Process.get(@notes)
    dictionary = for {key, _value} = entry <- :erlang.erase(), key not in @keys, do: entry
    {notes, dictionary, notes.reads}
  end

  @doc "What the code knows itself by, nil outside."
  @spec inside() :: map() | nil
  def inside, do: Process.get(@inside)

  @doc "Whether a key of the dictionary is none of the code's business."
  @spec own?(term()) :: boolean()
  def own?(key), do: key in @keys

  @doc "Leaves the message aside: nothing that comes after counts, whoever catches this."
  @spec leave_aside(reason()) :: no_return()
  def leave_aside(reason) do
    notes = Process.get(@notes)
    if notes.left == nil, do: Process.put(@notes, %{notes | left: reason})
    throw(:hot_patch_left_aside)
  end

  @doc "Goes no further where it was left aside."
  @spec go_on() :: :ok
  def go_on do
    case Process.get(@notes) do
      %{left: nil} -> :ok
      %{left: reason} -> leave_aside(reason)
    end
  end

  @doc "What a callback gives. What it throws counts as given."
  @spec given((() -> term())) :: term()
  def given(fun) do
    result =
      try do
        fun.()
      catch
        :throw, value -> value
      end

    :ok = go_on()
    result
  end

  @doc "Notes what would have been done."
  @spec note(atom(), term()) :: :ok
  def note(kind, what) do
    notes = Process.get(@notes)
    Process.put(@notes, %{notes | sent: [{kind, what} | notes.sent]})
    :ok
  end

  @doc """
  What a function that reads gives. What the old code has read the new code reads again, as often as it asks for
  the same: the two shall differ by what they are.
  """
  @spec read(term(), (() -> result)) :: result when result: term()
  def read(what, fun) do
    %{side: side} = Process.get(@inside)
    notes = %{reads: reads} = Process.get(@notes)

    case {side, reads} do
      {:new, %{^what => [result | rest]}} ->
        Process.put(@notes, %{notes | reads: %{reads | what => rest}})
        result

      {:new, _nothing_left} ->
        fun.()

      {:old, reads} ->
        result = fun.()
        notes = Process.get(@notes)
        reads = Map.update(reads, what, [result], &[result | &1])
        Process.put(@notes, %{notes | reads: reads})
        result
    end
  end

  @doc "What the old code has read, in the order in which it did."
  @spec in_order(reads :: map()) :: map()
  def in_order(reads), do: Map.new(reads, fn {what, results} -> {what, Enum.reverse(results)} end)

  @doc "A term with one pid in the place of another, also inside. What funs hold stays as it is."
  @spec swapped(term(), pid(), pid()) :: term()
  def swapped(term, pid, other) do
    if TermWalk.any?(term, &(&1 === pid)),
      do: TermWalk.map(term, &if(&1 === pid, do: other, else: &1)),
      else: term
  end
end
