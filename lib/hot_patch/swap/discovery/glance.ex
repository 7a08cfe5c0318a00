defmodule HotPatch.Swap.Discovery.Glance do
  @moduledoc false
  # What the VM tells of a process without asking it, in two looks: the first is answered by the VM alone,
  # for the second the process gets a signal and has to come to a scheduler, which is most of what a scan
  # costs. So all that is wanted of it is asked for at once.

  # Words of a heap up to which the text of its stack is read: it would be as large.
  @most_words 100_000

  @typedoc """
  What proc_lib noted when it started the process, and the label that it may have been given since; a bare process
  has nothing. One that proc_lib has just spawned is known only when it has run its first lines.
  """
  @type facts :: {call :: mfa() | nil, parent :: pid() | nil, label :: term()} | :unborn

  @typedoc """
  `text` is that of the stack, with all values on it; nil where it was not read. `large?`: it would take too
  long. `reductions` are those of before both looks.
  """
  @type t :: %__MODULE__{
          pid: pid(),
          facts: facts(),
          large?: boolean(),
          reductions: non_neg_integer(),
          text: binary() | nil
        }
  @enforce_keys [:pid, :facts, :large?, :reductions]
  defstruct [:pid, :facts, :large?, :reductions, :text]

  @doc "Of a process, nil of one that is dead; with the text of its stack if that is wanted."
  @spec of(pid(), text? :: boolean()) :: t() | nil
  def of(pid, text?) do
    case Process.info(pid, [:initial_call, :total_heap_size, :reductions]) do
      [{:initial_call, {:proc_lib, :init_p, _arity}}, {_, words}, {_, reductions}] ->
        large? = words > @most_words
        started(pid, large?, reductions, text? and not large? and pid != self())

      [{:initial_call, _bare}, {_, words}, {_, reductions}] ->
        glance(pid, {nil, nil, nil}, words > @most_words, reductions)

      nil ->
        nil
    end
  end

  # A dictionary may be large: it is copied only where there is something in it to find.
  defp started(pid, large?, reductions, text?) do
    case Process.info(pid, if(text?, do: [:dictionary, :backtrace], else: [:dictionary])) do
      [{:dictionary, dictionary} | text] ->
        glance = glance(pid, noted(dictionary), large?, reductions)
        %{glance | text: text[:backtrace]}

      nil ->
        nil
    end
  end

  defp glance(pid, facts, large?, reductions),
    do: %__MODULE__{pid: pid, facts: facts, large?: large?, reductions: reductions}

  defp noted(dictionary) do
    case dictionary[:"$initial_call"] do
      nil -> :unborn
      call -> {call, parent(dictionary[:"$ancestors"]), dictionary[:"$process_label"]}
    end
  end

  defp parent([pid | _]) when is_pid(pid), do: pid
  defp parent([name | _]) when is_atom(name), do: Process.whereis(name)
  defp parent(_), do: nil
end
