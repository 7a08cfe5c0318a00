defmodule HotPatch.Agent.Loader do
  @moduledoc false
  # What the VM's own loader says to the modules of a patch, before any of them is loaded.

  alias HotPatch.Agent.Verdict
  alias HotPatch.FileName

  @doc """
  Has the loader validate all modules and prepare them, so that they can become current
  together. Those that run code when they are loaded are validated only.
  """
  @spec prepare([{module(), Verdict.t()}]) :: {:ok, term()} | {:error, [{module(), term()}]}
  def prepare(changes) do
    come = Enum.reject(changes, fn {_module, verdict} -> verdict.change == :delete end)
    {alone, together} = Enum.split_with(come, fn {_module, verdict} -> verdict.alone? end)

    case Enum.flat_map(alone, &damage/1) do
      [] -> :code.prepare_loading(Enum.map(together, &code/1))
      reasons -> {:error, reasons}
    end
  end

  @doc "The verdicts, with the files that the loader has refused."
  @spec blame([Verdict.t()], [{module(), term()}]) :: [Verdict.t()]
  def blame(verdicts, reasons) do
    reasons = Map.new(reasons, fn {module, reason} -> {Atom.to_string(module), reason} end)
    Enum.map(verdicts, &blame_one(&1, reasons))
  end

  defp blame_one(verdict, reasons) do
    case Map.fetch(reasons, Verdict.module(verdict)) do
      {:ok, reason} ->
        Verdict.change_status(verdict, :error, "the VM's loader refuses it: #{text(reason)}")

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

  defp text(:badfile), do: "badfile, it is damaged or made for another OTP"
  defp text(:sticky_directory), do: "its directory is sticky, as those of OTP are"
  defp text(reason), do: inspect(reason)
end
