defmodule HotPatch.NodeInfo do
  @moduledoc """
  A node of the cluster, as `HotPatch.nodes/0` gives it.

    * `:node` - its name
    * `:managed?` - whether it runs HotPatch; if not, `:problem` says why, and `:problem_kind`
      whether it did not answer (`:unreachable`), has no HotPatch (`:unmanaged`), or belongs to the
      system and is not connected (`:missing`)
    * `:shell?` - whether it is somebody's remote shell, which operations leave out
    * `:roles` - what it is for, as `config :hot_patch, roles: [...]` says there
    * `:attached?` - whether `HotPatch.attach/2` brought it there, until the node restarts
    * `:protocol` - version of the language that agents and coordinators speak
    * `:release` - name and version of what it runs, to which patches are bound (`HotPatch.Release`)
    * `:otp`, `:elixir` - versions
    * `:applied` - ids of the patches applied on it, oldest first
    * `:restart_needed` - reasons why memory is not what a restart would bring, as far as patches have to
      do with it: found by comparing the code that runs with the code that should; empty if it is
    * `:behind` - why it has not caught up with what the other nodes did without it, or `nil`
    * `:forced` - patches for which processes were killed: what the node does since may have
      that for a cause
    * `:memory_only` - patches that are in memory only: gone with a restart
    * `:archives?` - whether it can read archives (the reader that `config :hot_patch, bridge:` names is there)
    * `:warnings` - what is wrong with its configuration or its data directory, one line each
    * `:operation` - what is under way on it, or `nil`
    * `:known` - other nodes that it knows to belong to the system: `:peers` for one that its configuration
      names, else the time of the last operation in which it took part
    * `:dismissed` - nodes that have left for good, see `HotPatch.dismiss/2`, and when that was said
  """

  alias HotPatch.Release
  alias HotPatch.Support.Table

  @type t :: %__MODULE__{
          node: node(),
          managed?: boolean(),
          attached?: boolean(),
          problem: String.t() | nil,
          problem_kind: :unreachable | :unmanaged | :missing | nil,
          shell?: boolean(),
          roles: [atom()],
          protocol: pos_integer() | nil,
          release: Release.t() | nil,
          otp: String.t() | nil,
          elixir: String.t() | nil,
          applied: [String.t()],
          restart_needed: [String.t()],
          behind: String.t() | nil,
          forced: [String.t()],
          memory_only: [String.t()],
          archives?: boolean(),
          warnings: [String.t()],
          operation: map() | nil,
          known: %{node() => :peers | DateTime.t()},
          dismissed: %{node() => DateTime.t()}
        }
  @enforce_keys [:node, :managed?]
  defstruct [
    :node,
    :managed?,
    :problem,
    :problem_kind,
    :protocol,
    :release,
    :otp,
    :elixir,
    :operation,
    :behind,
    shell?: false,
    roles: [],
    applied: [],
    restart_needed: [],
    forced: [],
    memory_only: [],
    archives?: false,
    warnings: [],
    attached?: false,
    known: %{},
    dismissed: %{}
  ]

  @doc """
  The node in one line.
  """
  @spec line(t()) :: String.t()
  def line(info), do: info |> text() |> HotPatch.Support.Printable.line()

  defp text(%__MODULE__{managed?: false} = info), do: "#{info.node}: #{info.problem}"

  defp text(info) do
    applied = if info.applied == [], do: "none", else: Enum.join(info.applied, ", ")
    restart = if info.restart_needed == [], do: "no", else: "yes"

    memory =
      if info.memory_only == [],
        do: "",
        else: ", in memory only: #{Enum.join(info.memory_only, ", ")}"

    forced = if info.forced == [], do: "", else: ", by force: #{Enum.join(info.forced, ", ")}"

    roles = if info.roles == [], do: "", else: " (#{Enum.join(info.roles, ", ")})"

    "#{info.node}#{roles}: #{info.release}, OTP #{info.otp}, applied: #{applied}, restart needed: #{restart}#{memory}#{forced}" <>
      if(info.attached?, do: ", attached", else: "") <>
      if(info.behind, do: ", behind the others: #{info.behind}", else: "") <>
      if(info.warnings == [],
        do: "",
        else: ", #{Table.count(length(info.warnings), "warning", "warnings")}"
      )
  end

  defimpl Inspect do
    def inspect(info, _options), do: "#HotPatch.NodeInfo<#{HotPatch.NodeInfo.line(info)}>"
  end

  defimpl String.Chars do
    def to_string(info) do
      [
        HotPatch.NodeInfo.line(info)
        | Enum.map(info.restart_needed ++ info.warnings, &("  " <> &1))
      ]
      |> Enum.map_join("\n", &HotPatch.Support.Printable.line/1)
    end
  end
end
