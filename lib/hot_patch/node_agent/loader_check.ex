defmodule HotPatch.NodeAgent.LoaderCheck do
  @moduledoc false
  # What the VM's own loader says to the modules of a patch, before any of them is loaded.

  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Support.FileName

  @typedoc """
  The loader's own results: for the modules that become current together, and for those among them
  that are new here and come ahead of the rest (see HotPatch.Swap.EarlyLoad).
  """
  @type prepared :: %{together: term(), added: {[module()], term()} | nil}

  @doc """
  Has the loader validate all modules and prepare them, so that they can become current
  together. Those that run code when they are loaded are validated only.
  """
  @spec prepare([{module(), Verdict.t()}]) :: {:ok, prepared()} | {:error, [{module(), term()}]}
  def prepare(changes) do
    come = Enum.reject(changes, fn {_module, verdict} -> verdict.change == :delete end)
    {alone, others} = Enum.split_with(come, fn {_module, verdict} -> verdict.alone? end)
    {added, together} = Enum.split_with(others, &ahead?/1)

    with [] <- Enum.flat_map(alone, &damage/1),
         {:ok, first} <- :code.prepare_loading(Enum.map(added, &code/1)),
         {:ok, rest} <- :code.prepare_loading(Enum.map(together, &code/1)) do
      modules = for {module, _verdict} <- added, do: module
      {:ok, %{together: rest, added: if(modules != [], do: {modules, first})}}
    else
      {:error, reasons} -> {:error, reasons}
      reasons -> {:error, reasons}
    end
  end

  # A protocol that is not consolidated would dispatch to a new implementation at once.
  defp ahead?({_module, %Verdict{change: :add, entry: entry}}),
    do: {"__impl__", 1} not in entry.beam.exports

  defp ahead?(_change), do: false

  @doc "The verdicts, with the files that the loader has refused."
  @spec blame([Verdict.t()], [{module(), term()}]) :: [Verdict.t()]
  def blame(verdicts, reasons) do
    reasons = Map.new(reasons, fn {module, reason} -> {Atom.to_string(module), reason} end)
    Enum.map(verdicts, &blame_one(&1, reasons))
  end

  defp blame_one(verdict, reasons) do
    case Map.fetch(reasons, Verdict.module(verdict)) do
      {:ok, reason} ->
        Verdict.change_status(verdict, :error, refused(reason))

      :error ->
        verdict
    end
  end

  # The one reason for which the loader refuses a sound module of this kind.
  defp damage({module, _verdict} = change) do
    case :code.prepare_loading([code(change)]) do
      {:error, [{^module, :on_load_not_allowed}]} -> []
      {:error, reasons} -> reasons
      {:ok, _prepared} -> [{module, :badfile}]
    end
  end

  defp code({module, %Verdict{entry: entry, target: target}}),
    do: {module, FileName.to_charlist(target), entry.bytes}

  @doc "That the loader refuses a module, by its reason or the text of one."
  @spec refused(term()) :: String.t()
  def refused(reason), do: "the VM's loader refuses it: #{text(reason)}"

  defp text(reason) when reason in [:badfile, "badfile"],
    do: "badfile, it is damaged or made for another OTP"

  defp text(:sticky_directory), do: "its directory is sticky, as those of OTP are"
  defp text(text) when is_binary(text), do: text
  defp text(reason), do: inspect(reason)
end
