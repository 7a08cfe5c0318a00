defmodule HotPatch.NodeInfo do
  @moduledoc """
  A node of the cluster, as `HotPatch.nodes/0` gives it.

    * `:node` - its name
    * `:managed?` - whether it runs HotPatch; if not, `:problem` says why, and `:problem_kind`
      whether it did not answer or has no HotPatch
    * `:shell?` - whether it is somebody's remote shell, which operations leave out
    * `:roles` - what it is for, as `config :hot_patch, roles: [...]` says there
    * `:attached?` - whether `HotPatch.attach/2` brought it there, until the node restarts
    * `:protocol` - version of the language that agents and coordinators speak
    * `:release` - name and version of what it runs
    * `:otp`, `:elixir` - versions
    * `:applied` - ids of the patches applied on it, oldest first
    * `:restart_needed` - reasons why memory is not what the disk is; empty if it is
    * `:behind` - why it has not caught up with what the other nodes did without it, or `nil`
    * `:forced` - patches for which processes were killed: what the node does since may have
      that for a cause
    * `:memory_only` - patches that are in memory only: gone with a restart
    * `:archives?` - whether it can read archives (the reader that `config :hot_patch, bridge:` names is there)
    * `:warnings` - what is wrong with its configuration or its data directory, one line each
    * `:operation` - what is under way on it, or `nil`
  """

  alias HotPatch.Release
  alias HotPatch.Table

  @type t :: %__MODULE__{
          node: node(),
          managed?: boolean(),
          attached?: boolean(),
          problem: String.t() | nil,
          problem_kind: :unreachable | :unmanaged | nil,
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
          operation: map() | nil
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
    attached?: false
  ]

  @doc """
  The node in one line.
  """
  @spec line(t()) :: String.t()
  def line(%__MODULE__{managed?: false} = info), do: "#{info.node}: #{info.problem}"

  def line(info) do
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
      lines = Enum.map(info.restart_needed ++ info.warnings, &("  " <> &1))
      Enum.join([HotPatch.NodeInfo.line(info) | lines], "\n")
    end
  end
end
