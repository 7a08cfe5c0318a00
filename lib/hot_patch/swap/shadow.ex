defmodule HotPatch.Swap.Shadow do
  @moduledoc false
  # The new code under another name, so that its callbacks can be called while the old code
  # is still the current one. Made by the native core (see native/beam/src/shadow), loaded here
  # for the length of one swap.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.OldCode.Purge

  @typedoc """
  As it comes with a patch: the module it stands for, its own name, its code. `lambdas?`: a state that it
  converts may hold funs of shadows. `effect` is what its `code_change` may lead to that has effects
  or reads what others change, nil where there is nothing of the kind; it is not there where that is
  not known.
  """
  @type t :: %{
          :module => module(),
          :name => module(),
          :bytes => binary(),
          :lambdas? => boolean(),
          optional(:effect) => String.t() | nil
        }

  @doc "Loads shadows, all in one step."
  @spec load([t()]) :: :ok | {:error, String.t()}
  def load([]), do: :ok

  def load(shadows) do
    modules =
      for shadow <- shadows, do: {shadow.name, ~c"shadow of #{shadow.module}", shadow.bytes}

    # Left over by a node that had no time to tidy up.
    names = for %{name: name} <- shadows, do: name
    Enum.each(names, &delete/1)
    Purge.unused(names)

    with {:ok, prepared} <- :code.prepare_loading(modules),
         :ok <- :code.finish_loading(prepared) do
      :ok
    else
      {:error, reasons} ->
        {:error, "the shadows of the new modules do not load: #{inspect(reasons)}"}
    end
  end

  @doc """
  Takes shadows out of use. Their memory is given back before the next of the same name is
  loaded: a purge has every process look, and callers would notice.
  """
  @spec unload([t()]) :: :ok
  def unload(shadows), do: Enum.each(shadows, &delete(&1.name))

  @doc "Takes out what a swap has left that could not end."
  @spec unload_leftovers() :: :ok
  def unload_leftovers do
    for {module, file} <- :code.all_loaded(),
        match?(~c"shadow of " ++ _, file),
        do: delete(module)

    :ok
  end

  @doc "By which callback of the new code a target's state is converted."
  @spec kind(atom(), Change.t()) :: HotPatch.Swap.Conversion.kind()
  def kind(:event_manager, _change), do: :event

  def kind(:server, change),
    do: if({"callback_mode", 0} in change.exports, do: :statem, else: :server)

  def kind(kind, _change), do: kind

  # Softly: should a process run it after all, the shadow stays.
  defp delete(name) do
    if :erlang.module_loaded(name), do: Purge.take_out(name)
  end
end
