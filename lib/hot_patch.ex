defmodule HotPatch do
  @moduledoc """
  Repairs a running Erlang/Elixir cluster without restarting it.

  An operator uploads a zip of `.beam` files, sees what is in it, checks it against every
  node, applies it, and takes it back if it was wrong:

      {:ok, patch} = HotPatch.upload("/tmp/fix.zip")
      IO.puts(HotPatch.composition!(patch.id))
      IO.puts(HotPatch.check!(patch.id))
      IO.puts(HotPatch.plan!(patch.id))
      IO.puts(HotPatch.apply!(patch.id))
      IO.puts(HotPatch.rollback!(patch.id))

  Patches are built from two builds of the system by `mix hot_patch.build` or `HotPatch.Build`,
  which gives them a manifest (`HotPatch.Manifest`), and signs them if told to.

  Everything but `upload/2`, `apply/2`, `rollback/2` and `delete/2` only looks. A patch is known by its
  id; its name will do where only one patch has it.

  Results are structs: `inspect/1` is one line, `IO.puts/1` prints a table, `to_json/1`
  gives JSON. Errors are exceptions, `HotPatch.Refusal` for an archive that breaks a rule
  and `HotPatch.Error` for everything else; `{:error, e}` carries them and the functions
  with a bang raise them. An error means that nothing was changed, unless its reason is
  `:failed`: then its report says what was.

  All functions may be called on any node of the cluster that runs HotPatch and has its
  native library, which reads the archives; the other nodes need no native code.
  """

  import Kernel, except: [apply: 2]

  alias HotPatch.Archive.Input
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Library
  alias HotPatch.Cluster.Request
  alias HotPatch.Composition
  alias HotPatch.Drift
  alias HotPatch.Error
  alias HotPatch.JournalEntry
  alias HotPatch.NodeInfo
  alias HotPatch.Operator
  alias HotPatch.Options
  alias HotPatch.Patch
  alias HotPatch.Plan
  alias HotPatch.Refusal
  alias HotPatch.Report
  alias HotPatch.Straggler

  @typedoc "The id of a patch, or its name where only one has it."
  @type id :: String.t()
  @type error :: {:error, Error.t() | Refusal.t()}

  @typedoc "What `check/2` and `plan/2` may be told."
  @type survey_options :: [
          nodes: [node()],
          timeout: pos_integer(),
          purge: :soft | :force,
          on_load: :restart | :load,
          cumulative: boolean(),
          operation: :apply | :rollback
        ]

  @doc """
  Takes an archive in: reads it, judges it against the rules of archives, keeps it.

  The archive is a path, or the bytes of a zip (told apart by their NUL bytes: every zip has
  some, no path can). Nothing is kept of an archive that is refused. Uploading the same
  archive again gives the same patch.

  Where `config :hot_patch, require_manifest: true` or `require_signature: true` demands it, an
  archive without a manifest, or one that is not signed by one of the `trusted_keys`, is refused;
  every node looks again before it loads anything.

  Archives may be 10 MB large; `config :hot_patch, max_archive_bytes: n` changes that.

  ## Options

  #{Options.docs(:upload)}

  ## Errors

    * `HotPatch.Refusal` - the archive breaks a rule; `rule` and `entry` say which and where
    * `HotPatch.Error` with `:file`, `:invalid_option`, `:no_native`, `:no_manifest`, `:bad_signature`

  ## Examples

      iex> {:error, %HotPatch.Error{reason: reason}} = HotPatch.upload("/no/such/file.zip")
      iex> reason
      :file
  """
  @spec upload(Path.t() | binary(), name: String.t(), by: String.t()) ::
          {:ok, Patch.t()} | error()
  def upload(path_or_bytes, options \\ []) do
    with {:ok, options} <- Options.validate(:upload, options),
         {:ok, bytes, default_name} <- Input.read(path_or_bytes) do
      Library.upload(bytes, {options.name, default_name}, options.by || Operator.name())
    end
  end

  @doc """
  All patches of the cluster, newest first.

  ## Examples

      HotPatch.list()
      #=> [#HotPatch.Patch<fix-3fa9c1d2e0b4 applied, 4 modules, for exchange 1.0.0>]
  """
  @spec list() :: [Patch.t()]
  defdelegate list(), to: Library

  @doc """
  What a patch holds: files, modules, sizes, digests, applications.

  ## Errors

  `HotPatch.Error` with `:unknown_patch`, `:ambiguous_patch`, `:damaged_patch`, `:no_native`.

  ## Examples

      iex> {:error, error} = HotPatch.composition("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec composition(id()) :: {:ok, Composition.t()} | error()
  def composition(id) do
    with {:ok, composition, _release} <- Library.open(id), do: {:ok, composition}
  end

  @doc """
  Predicts, on every node, what applying would do: a status and a reason for each file.
  Changes nothing.

  The modules are put before the VM's own loader on each node, besides HotPatch's rules.

  ## Options

  #{Options.docs(:check)}

  ## Errors

  `HotPatch.Error` as for `composition/1`, and `:retired`, `:unreachable`, `:unmanaged`,
  `:invalid_option`. A patch that cannot be applied is no error here: its report says so.

  ## Examples

      iex> {:error, error} = HotPatch.check("fix", timeout: "soon")
      iex> {error.reason, error.details.option}
      {:invalid_option, :timeout}
  """
  @spec check(id(), survey_options()) :: {:ok, Report.t()} | error()
  def check(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- Request.new(:check, id, options) do
      {:ok, Cluster.Survey.check(payload, nodes, unmanaged, options.timeout)}
    end
  end

  @doc """
  Shows, node by node, what applying would do: load order, the processes that will pause,
  the files that will be replaced, risks. Changes nothing.

  ## Options

  #{Options.docs(:plan)}

  ## Errors

  As for `check/2`.

  ## Examples

      iex> {:error, error} = HotPatch.plan("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec plan(id(), survey_options()) :: {:ok, Plan.t()} | error()
  def plan(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- Request.new(:plan, id, options) do
      {:ok, Cluster.Survey.plan(payload, nodes, unmanaged, options.timeout)}
    end
  end

  @doc """
  Makes a patch current on every node, in memory and on disk.

  First every node prepares; if one cannot, none changes. Then every node commits: the
  processes that run changed modules are suspended within `pause_timeout`, all modules
  become current in one step, `code_change` is called with the running module's `vsn`, and
  all are resumed. No process is killed.

  The statuses of the report come from the code that really runs afterwards. A file that
  is `:not_updated` was replaced on disk only, and with it all modules of the patch on
  that node: they become current when the node restarts.

  ## Options

  #{Options.docs(:apply)}

  ## Errors

  `HotPatch.Error` as for `check/2`, and:

    * `:refused` - a node cannot prepare; nothing was changed, `report` says why
    * `:busy` - another apply is under way; `details.holder` says whose
    * `:failed` - the commit failed on a node; `report` says where and how it was left

  ## Examples

      iex> {:error, error} = HotPatch.apply("fix", speed: :fast)
      iex> {error.reason, error.details.option}
      {:invalid_option, :speed}
  """
  @spec apply(id(),
          nodes: [node()],
          timeout: pos_integer(),
          transition: :suspend | :none | :compatible,
          pause_timeout: pos_integer(),
          purge: :soft | :force,
          on_load: :restart | :load,
          cumulative: boolean(),
          by: String.t(),
          reason: String.t()
        ) :: {:ok, Report.t()} | error()
  def apply(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- Request.new(:apply, id, options) do
      Cluster.Operation.run(payload, nodes, unmanaged, options)
    end
  end

  @doc """
  Takes an applied patch back on every node: code, disk, and the state of processes.

  What was replaced becomes current again, what was added is removed, byte for byte as it was
  before. States are converted by `code_change({:down, vsn}, state, extra)` of the code that
  runs, as OTP does it on a downgrade; processes whose module exports no `code_change` keep their
  state. All the rules, promises and reports are those of `apply/2`.

  Patches stack: one that has files in common with a later one can be taken back only after
  that. A cumulative patch gives way to the patches that it had taken the place of.

  ## Options

  #{Options.docs(:rollback)}

  ## Errors

  As for `apply/2`, and `:not_applied`: no node has this patch applied.

  ## Examples

      iex> {:error, error} = HotPatch.rollback("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec rollback(id(),
          nodes: [node()],
          timeout: pos_integer(),
          transition: :suspend | :none,
          pause_timeout: pos_integer(),
          purge: :soft | :force,
          on_load: :restart | :load,
          by: String.t(),
          reason: String.t()
        ) :: {:ok, Report.t()} | error()
  def rollback(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- Request.new(:rollback, id, options) do
      Cluster.Operation.run(payload, nodes, unmanaged, options)
    end
  end

  @doc """
  Makes a zip of what an applied patch has replaced: applied as a patch of its own, it brings
  back the former code going up (`code_change` gets the vsn of the patched code).

  Files that the patch has added have no former version and are named in `left_out`.

  ## Options

  #{Options.docs(:export_antipatch)}

  ## Errors

  `HotPatch.Error` with `:unknown_patch`, `:ambiguous_patch`, `:not_applied`, `:file`.

  ## Examples

      iex> {:error, error} = HotPatch.export_antipatch("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec export_antipatch(id(), to: Path.t()) ::
          {:ok, %{zip: binary(), files: [Path.t()], left_out: [Path.t()]}} | error()
  def export_antipatch(id, options \\ []) do
    with {:ok, options} <- Options.validate(:export_antipatch, options),
         do: Cluster.Antipatch.export(id, options.to)
  end

  @doc """
  What was done on the cluster, and how it ended: who applied, rolled back, uploaded or deleted
  what, when, on which nodes, with which statuses and pauses. The latest first.

  ## Options

  #{Options.docs(:journal)}

  ## Examples

      {:ok, [entry | _]} = HotPatch.journal(last: 1)
      IO.puts(entry)
      #=> 2026-11-22 10:14:03 UTC rollback of fix-3fa9c1d2e0b4 by alice: ok on 3 nodes
  """
  @spec journal(nodes: [node()], timeout: pos_integer(), patch: String.t(), last: pos_integer()) ::
          {:ok, [JournalEntry.t()]} | error()
  def journal(options \\ []) do
    with {:ok, options} <- Options.validate(:journal, options),
         {:ok, members, _unmanaged} <- Cluster.members(options.nodes) do
      {:ok, Cluster.History.list(Enum.map(members, & &1.node), options)}
    end
  end

  @doc """
  Every module whose running code differs from its file, or from that of the other nodes of
  the same release, with the cause where it is known. Erlang's and Elixir's own modules are
  not looked at.

  ## Options

  #{Options.docs(:drift)}

  ## Examples

      HotPatch.drift()
      #=> {:ok, [#HotPatch.Drift<MyApp.Foo on a@host: runs another version than its file; loaded by hand>]}
  """
  @spec drift(nodes: [node()], timeout: pos_integer()) :: {:ok, [Drift.t()]} | error()
  def drift(options \\ []) do
    with {:ok, options} <- Options.validate(:drift, options),
         {:ok, members, _unmanaged} <- Cluster.members(options.nodes) do
      {:ok, Cluster.Comparison.run(members, options.timeout)}
    end
  end

  @doc """
  Forgets a patch's archive, on every node that keeps it. What was applied stays applied, and
  can be rolled back.

  ## Options

  #{Options.docs(:delete)}

  ## Errors

  `HotPatch.Error` with `:unknown_patch`, `:ambiguous_patch`, `:file`.

  ## Examples

      iex> {:error, error} = HotPatch.delete("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec delete(id(), by: String.t(), reason: String.t()) :: :ok | error()
  def delete(id, options \\ []) do
    with {:ok, options} <- Options.validate(:delete, options),
         do: Library.delete(id, options.by || Operator.name(), options.reason)
  end

  @doc """
  Every node of the cluster: release, OTP, applied patches, whether a restart is needed.

  Connected nodes that do not run HotPatch are listed too, with the reason.

  ## Examples

      iex> [info] = HotPatch.nodes()
      iex> {info.node, info.managed?}
      {node(), true}
  """
  @spec nodes() :: [NodeInfo.t()]
  def nodes, do: Cluster.infos([node() | Node.list()])

  @doc """
  Processes that still run old code, of patches or of whatever else changed code.

  They hinder nobody until the next change of the same module, which is refused while they
  are there.

  ## Options

  #{Options.docs(:stragglers)}

  ## Examples

      iex> HotPatch.stragglers()
      {:ok, []}
  """
  @spec stragglers(nodes: [node()], timeout: pos_integer()) :: {:ok, [Straggler.t()]} | error()
  def stragglers(options \\ []) do
    with {:ok, options} <- Options.validate(:stragglers, options),
         {:ok, members, _unmanaged} <- Cluster.members(options.nodes) do
      nodes = Enum.map(members, & &1.node)
      answers = Cluster.call(nodes, :stragglers, [], options.timeout)
      {:ok, for({_node, {:ok, stragglers}} <- answers, straggler <- stragglers, do: straggler)}
    end
  end

  @doc """
  The JSON text of anything that the other functions give, errors included.

  ## Examples

      iex> {:error, error} = HotPatch.delete("never-uploaded")
      iex> {:ok, json} = HotPatch.to_json(error)
      iex> json =~ ~s("reason":"unknown_patch")
      true
  """
  @spec to_json(term()) :: {:ok, String.t()} | {:error, Error.t()}
  defdelegate to_json(result), to: HotPatch.JSON, as: :encode

  @doc "Like `upload/2`, but raises the error."
  @spec upload!(Path.t() | binary(), keyword()) :: Patch.t()
  def upload!(path_or_bytes, options \\ []), do: bang!(upload(path_or_bytes, options))

  @doc "Like `composition/1`, but raises the error."
  @spec composition!(id()) :: Composition.t()
  def composition!(id), do: bang!(composition(id))

  @doc "Like `check/2`, but raises the error."
  @spec check!(id(), keyword()) :: Report.t()
  def check!(id, options \\ []), do: bang!(check(id, options))

  @doc "Like `plan/2`, but raises the error."
  @spec plan!(id(), keyword()) :: Plan.t()
  def plan!(id, options \\ []), do: bang!(plan(id, options))

  @doc "Like `apply/2`, but raises the error."
  @spec apply!(id(), keyword()) :: Report.t()
  def apply!(id, options \\ []), do: bang!(apply(id, options))

  @doc "Like `rollback/2`, but raises the error."
  @spec rollback!(id(), keyword()) :: Report.t()
  def rollback!(id, options \\ []), do: bang!(rollback(id, options))

  @doc "Like `export_antipatch/2`, but raises the error."
  @spec export_antipatch!(id(), keyword()) :: map()
  def export_antipatch!(id, options \\ []), do: bang!(export_antipatch(id, options))

  @doc "Like `journal/1`, but raises the error."
  @spec journal!(keyword()) :: [JournalEntry.t()]
  def journal!(options \\ []), do: bang!(journal(options))

  @doc "Like `drift/1`, but raises the error."
  @spec drift!(keyword()) :: [Drift.t()]
  def drift!(options \\ []), do: bang!(drift(options))

  @doc "Like `delete/2`, but raises the error."
  @spec delete!(id(), keyword()) :: :ok
  def delete!(id, options \\ []) do
    with {:error, error} <- delete(id, options), do: raise(error)
  end

  defp bang!({:ok, result}), do: result
  defp bang!({:error, error}), do: raise(error)
end
