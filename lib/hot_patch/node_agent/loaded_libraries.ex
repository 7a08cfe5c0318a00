defmodule HotPatch.NodeAgent.LoadedLibraries do
  @moduledoc false
  # Files that this VM has in its memory beside modules: NIF libraries, drivers, and whatever a
  # library has mapped. The dynamic loader knows a library by the name of its file. As long as any
  # module of any version uses it, whoever loads a library of that name gets the one that is
  # loaded, whatever the file has become: the new module would run with the old library, and say
  # nothing. So such a file counts from a restart, and with it the whole patch.

  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Store.Transaction
  alias HotPatch.Support.Folder

  @libraries [".so", ".dylib", ".dll"]
  @gone " (deleted)"

  @doc "The verdicts, with those files that memory cannot take."
  @spec hindered([Verdict.t()]) :: [Verdict.t()]
  def hindered(verdicts) do
    if Enum.any?(verdicts, &changes?/1) do
      mapped = mapped()
      Enum.map(verdicts, &if(changes?(&1) and held?(&1, mapped), do: wait(&1), else: &1))
    else
      verdicts
    end
  end

  # One that is to go is loaded by nobody from then on.
  defp changes?(%Verdict{status: :not_beam, disk?: true, target: target, entry: %{bytes: bytes}})
       when target != nil and bytes != nil,
       do:
         Transaction.digest(Transaction.real(target)) not in [nil, :crypto.hash(:sha256, bytes)] or
           gone?(target)

  defp changes?(_verdict), do: false

  # A library that is not there may still be in memory.
  defp gone?(target), do: library?(target) and not File.exists?(target)

  defp held?(verdict, {:ok, paths}), do: Folder.resolve(verdict.target) in paths
  defp held?(verdict, :unknown), do: library?(verdict.target) and File.exists?(verdict.target)

  defp library?(target), do: Path.extname(target) in @libraries

  defp wait(verdict) do
    reason =
      "#{verdict.target} is loaded in this VM, and the loader of libraries gives out what is loaded under " <>
        "that name, whatever the file is: disk is replaced, restart the node to run it, or give the new " <>
        "library another name"

    Verdict.change_status(verdict, :not_updated, reason)
  end

  # The files that this VM has mapped into its memory, also such as are gone from the disk.
  @spec mapped() :: {:ok, MapSet.t(Path.t())} | :unknown
  defp mapped do
    case File.read("/proc/self/maps") do
      {:ok, maps} -> {:ok, paths(maps)}
      {:error, _posix} -> :unknown
    end
  end

  @doc "The paths that the text of /proc/PID/maps has."
  @spec paths(binary()) :: MapSet.t(Path.t())
  def paths(maps) do
    for line <- :binary.split(maps, "\n", [:global]),
        [path] <- [Regex.run(~r{\A\S+ \S+ \S+ \S+ \d+ +(/.*)\z}s, line, capture: :all_but_first)],
        into: MapSet.new(),
        do: path |> :binary.replace("\\012", "\n", [:global]) |> String.replace_suffix(@gone, "")
  end
end
