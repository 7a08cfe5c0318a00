defmodule HotPatch.Straggler do
  @moduledoc """
  A process that still runs old code after an apply, or holds a fun that it has made.

    * `:node`, `:pid`, `:name` - which process; the registered name or `nil`
    * `:module` - whose old code it runs; `nil` for one that was started in the very moment of
      the load, by the old code or the new
    * `:kind` - `:in_callback` (a behaviour's callback that has not returned), `:in_call` (waiting
      for the answer to a call), `:in_loop` (a loop or function of its own), `:holds_fun` (it runs no
      old code, but holds a fun that old code has made), `:unsure`
    * `:stack` - the innermost places, as text; of a fun where it is held

  A fun may be held by no process: then `:pid` is that of the owner of the table, or `nil`.
  """

  @type kind :: :in_callback | :in_call | :in_loop | :holds_fun | :unsure
  @type t :: %__MODULE__{
          node: node(),
          pid: pid() | nil,
          name: atom() | nil,
          module: module() | nil,
          kind: kind(),
          stack: [String.t()]
        }
  @enforce_keys [:node, :pid, :kind]
  defstruct [:node, :pid, :name, :module, :kind, stack: []]

  @doc """
  The straggler in one line.
  """
  @spec line(t()) :: String.t()
  def line(straggler), do: straggler |> text() |> HotPatch.Support.Printable.line()

  defp text(%__MODULE__{kind: :unsure} = straggler) do
    "#{who(straggler)} was started in the very moment of the load"
  end

  defp text(%__MODULE__{kind: :holds_fun} = straggler) do
    "#{who(straggler)} holds #{a_fun(straggler.module)}"
  end

  defp text(straggler) do
    "#{who(straggler)} still runs old code of #{inspect(straggler.module)}, #{where(straggler.kind)}"
  end

  @doc """
  Several stragglers in lines: one for all that run old code of the same module in the same way,
  with how many they are and the first of them.
  """
  @spec lines([t()]) :: [String.t()]
  def lines(stragglers) do
    for alike <- alike(stragglers) do
      case alike do
        [one] -> line(one)
        [first | _] -> together(first, alike)
      end
    end
  end

  @doc "Stragglers in groups of which the same is to be said, the largest first."
  @spec alike([t()]) :: [[t(), ...]]
  def alike(stragglers) do
    stragglers
    |> Enum.group_by(&{&1.module, &1.kind})
    |> Enum.sort_by(fn {module_and_kind, alike} -> {-length(alike), module_and_kind} end)
    |> Enum.map(&elem(&1, 1))
  end

  defp together(%{kind: :unsure}, alike) do
    "#{length(alike)} processes were started in the very moment of the load: #{some(alike)}"
  end

  defp together(%{module: module, kind: :holds_fun}, alike) do
    "#{length(alike)} processes or places hold #{a_fun(module)}: #{some(alike)}"
  end

  defp together(%{module: module, kind: kind}, alike) do
    "#{length(alike)} processes still run old code of #{inspect(module)}, #{where(kind)}: #{some(alike)}"
  end

  defp some(stragglers), do: stragglers |> Enum.map(&who/1) |> HotPatch.Support.Table.some()

  @doc "Stragglers of several nodes as a table."
  @spec to_table([t()]) :: iodata()
  def to_table(stragglers) do
    rows =
      for {node, own} <- stragglers |> Enum.group_by(& &1.node) |> Enum.sort(),
          line <- lines(own),
          do: [Atom.to_string(node), line]

    if rows == [],
      do: "nobody runs old code\n",
      else: HotPatch.Support.Table.render(["node", "who"], rows)
  end

  defp a_fun(module),
    do: "a fun of old code of #{inspect(module)}, which lives until that is purged"

  # What holds a fun may be a place.
  defp who(%__MODULE__{kind: :holds_fun, pid: nil, stack: stack}), do: Enum.join(stack, ", ")

  defp who(%__MODULE__{kind: :holds_fun, stack: [_ | _] = stack} = straggler),
    do: "#{who(%{straggler | stack: []})} #{Enum.join(stack, ", ")}"

  defp who(%__MODULE__{pid: pid, name: nil}), do: inspect(pid)
  defp who(%__MODULE__{pid: pid, name: name}), do: "#{inspect(pid)} (#{inspect(name)})"

  defp where(:in_callback), do: "in a callback"
  defp where(:in_call), do: "waiting in a call"
  defp where(:in_loop), do: "in a loop of its own"

  defimpl Inspect do
    def inspect(straggler, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Straggler<#{straggler.node} #{HotPatch.Straggler.line(straggler)}>"
      )
    end
  end

  defimpl String.Chars do
    def to_string(straggler) do
      [
        "#{straggler.node}: #{HotPatch.Straggler.line(straggler)}"
        | Enum.map(straggler.stack, &("  " <> &1))
      ]
      |> Enum.map_join("\n", &HotPatch.Support.Printable.line/1)
    end
  end
end
