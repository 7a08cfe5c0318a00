defmodule HotPatch.Swap.Discovery.Employer do
  @moduledoc false
  # A process is asked for whom it works: by a function that it runs over its state, in whose stack the
  # loop and what it has in hand can be seen (sys.erl, do_replace_state/3). OTP's behaviours show their
  # callback module there (HotPatch.Swap.Discovery.CallbackModule). Of the others it is found out
  # which module they would have convert their state (HotPatch.Swap.Foreign); of one that handles
  # replace_state itself its term is read as text.

  alias HotPatch.Swap.Discovery.CallbackModule
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.StackText
  alias HotPatch.Swap.Foreign
  alias HotPatch.Swap.SysMessage

  @typedoc """
  Whom it works for, or the module for which a loop of that name does; nil if none of those that it
  was asked for, or it cannot be told.
  """
  @type employer ::
          {:works_for, CallbackModule.stack()}
          | {:foreign, loop :: module(), module() | nil}
          | nil

  # As the VM writes that a function will go on: with the address before it.
  @frame ~r/^0x[0-9a-f]+ Return addr 0x[0-9a-f]+ \(([^:\n]+):([^\/\n]+)\//m

  @typedoc "What a process tells."
  @type answer :: {:otp, binary()} | {:foreign, module(), module() | nil} | :unknown

  @doc "Asks a process whether it works for one of these modules; its answer under the ref is for `read/1`."
  @spec ask(pid(), [module()], reference()) :: :ok
  def ask(pid, modules, ref), do: SysMessage.run_in(pid, &tell(&1, modules, ref))

  # Runs inside.
  defp tell(state, modules, ref) do
    SysMessage.tell(ref, ref, own(state, modules))
    state
  end

  @doc "Of the calling process, which runs a function over its state."
  @spec own(term(), [module()]) :: answer()
  def own(state, modules), do: self() |> Stacktrace.text() |> of_text(state, modules)

  @doc "The same, of the text of its stack."
  @spec of_text(binary(), term(), [module()]) :: answer()
  def of_text(text, state, modules) do
    case loop(text) do
      nil -> :unknown
      loop when loop in [:gen_server, :gen_statem] -> {:otp, CallbackModule.inside(text)}
      loop -> {:foreign, loop, foreign(state, loop, modules, text)}
    end
  end

  @doc "What an answer says."
  @spec read(answer()) :: employer()
  def read({:otp, text}) do
    with [_ | _] = stack <- CallbackModule.stack(text, CallbackModule.places()),
         do: {:works_for, stack}
  end

  def read({:foreign, _loop, _module} = foreign), do: foreign
  def read(:unknown), do: nil

  @doc "Whether nothing else is below the loop of a behaviour than what starts a process."
  @spec in_one_loop?(binary(), module()) :: boolean()
  def in_one_loop?(text, behaviour) do
    with frames = frames(text),
         {_above, [{"sys", "handle_system_msg"} | below]} <-
           Enum.split_while(frames, &(&1 != {"sys", "handle_system_msg"})),
         [{"proc_lib", "init_p" <> _}] <- below do
      loop(text) == behaviour
    else
      _ -> false
    end
  end

  # sys keeps the loop's module, which is the one to go on in, among its own values. A loop may also
  # answer such a request itself, without sys.
  defp loop(text) do
    case values(text, "sys:handle_system_msg/") do
      [] -> text |> frames() |> Enum.find_value(fn {module, _function} -> speaker(module) end)
      values -> Enum.find_value(values, &speaker/1)
    end
  end

  defp speaker(value) do
    with {:ok, [atom]} <- StackText.atoms_at(value, [], false),
         true <- function_exported?(atom, :system_continue, 3) do
      atom
    else
      _ -> nil
    end
  end

  defp frames(text),
    do: for([_, module, function] <- Regex.scan(@frame, text), do: {module, function})

  defp foreign(state, loop, modules, text) do
    if Foreign.open?(loop),
      do: Foreign.works_for(state, loop, modules),
      else:
        text |> values("sys:do_replace_state/") |> Enum.find_value(&StackText.named(&1, modules))
  end

  # Of one function's frame.
  defp values(text, function) do
    text
    |> StackText.frame("(" <> function)
    |> :binary.split("\n", [:global])
    |> Enum.flat_map(&List.wrap(StackText.value(&1)))
  end
end
