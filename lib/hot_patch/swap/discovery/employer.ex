defmodule HotPatch.Swap.Discovery.Employer do
  @moduledoc false
  # A process is asked for whom it works: by a function that it runs over its state, in whose stack the
  # loop and what it has in hand can be seen (sys.erl, do_replace_state/3). OTP's behaviours show their
  # callback module there (HotPatch.Swap.Discovery.CallbackModule). Of the others it is found out
  # which module they would have convert their state (HotPatch.Swap.Foreign); of one that handles
  # replace_state itself its term is read as text.

  alias HotPatch.Swap.Discovery.CallbackModule
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
  def own(state, modules) do
    text = CallbackModule.text(self())

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

  # sys keeps the loop's module, which is the one to go on in, among its own values.
  defp loop(text) do
    text
    |> values("sys:handle_system_msg/")
    |> Enum.find_value(fn value ->
      with {:ok, [atom]} <- StackText.atoms_at(value, [], false),
           true <- function_exported?(atom, :system_continue, 3) do
        atom
      else
        _ -> nil
      end
    end)
  end

  defp foreign(state, loop, modules, text) do
    if Foreign.open?(loop),
      do: Foreign.works_for(state, loop, modules),
      else:
        text |> values("sys:do_replace_state/") |> Enum.find_value(&StackText.named(&1, modules))
  end

  # Of one function's frame.
  defp values(text, function) do
    text
    |> :binary.split("\n\n", [:global])
    |> Enum.find("", fn part ->
      part |> :binary.split("\n") |> hd() |> String.contains?("(" <> function)
    end)
    |> :binary.split("\n", [:global])
    |> Enum.flat_map(&List.wrap(StackText.value(&1)))
  end
end
