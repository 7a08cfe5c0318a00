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

  `rehearse/2` tries an apply on the states that processes have, with nobody paused.

  Everything but `upload/2`, `apply/2`, `rollback/2`, `cancel/2`, `delete/2`, `restart/2`, `dismiss/2`, `attach/2`
  and `detach/2` only looks. A patch is known by its id; its name, or the beginning of its id, will do where only
  one patch has it. Text may be a charlist, as in a shell of Erlang.

  Results are structs: `inspect/1` is one line, `IO.puts/1` prints a table, `to_json/1`
  gives JSON. Errors are exceptions, `HotPatch.Refusal` for an archive that breaks a rule
  and `HotPatch.Error` for everything else; `{:error, e}` carries them and the functions
  with a bang raise them. An error means that nothing was changed, unless its reason is
  `:failed` or `:cancelled`: then its message and report say what was.

  All functions may be called on any node of the cluster that runs HotPatch and has its
  native library, which reads the archives; the other nodes need no native code.
  """

  import Kernel, except: [apply: 2]

  alias HotPatch.Answers
  alias HotPatch.Archive.Input
  alias HotPatch.Cancellation
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Catalog
  alias HotPatch.Cluster.PatchCall
  alias HotPatch.Composition
  alias HotPatch.Drift
  alias HotPatch.Error
  alias HotPatch.Event
  alias HotPatch.Host.RunningBuild
  alias HotPatch.InstalledRelease
  alias HotPatch.JournalEntry
  alias HotPatch.NodeInfo
  alias HotPatch.Options
  alias HotPatch.Options.Argument
  alias HotPatch.Patch
  alias HotPatch.Plan
  alias HotPatch.Refusal
  alias HotPatch.Rehearsal
  alias HotPatch.Report
  alias HotPatch.Straggler
  alias HotPatch.Support.Hex
  alias HotPatch.Support.OSUser

  @typedoc "The id of a patch, its name, or the beginning of its id, where only one has that."
  @type id :: String.t() | charlist()
  @type error :: {:error, Error.t() | Refusal.t()}

  @typedoc "By name, by role, or by a function: see the option `:nodes`."
  @type nodes :: [node()] | {:role, atom()} | (NodeInfo.t() -> as_boolean(term()))

  for call <- Options.functions() do
    @typedoc "The options of `#{call}`, as they are described there."
    @type unquote({:"#{call}_options", [], []}) :: unquote(Options.spec(call))
  end

  @doc """
  Takes an archive in: reads it, judges it against the rules of archives, keeps it.

  The archive is a path, or the bytes of a zip (told apart by their NUL bytes: every zip has
  some, no path can). Nothing is kept of an archive that is refused. Uploading the same
  archive again gives the same patch; one that has ended counts again from then on.

  A patch is for one version of one system (`HotPatch.Release`), and is refused by nodes that run
  another version of it.

  Where `config :hot_patch, require_manifest: true` or `require_signature: true` demands it, an
  archive without a manifest, or one that is not signed by one of the `trusted_keys`, is refused;
  every node looks again before it loads anything.

  Archives may be 10 MB large, and upgrades 100 MB; `config :hot_patch, max_archive_bytes: n, max_release_bytes: n` changes
  that.

  It may also be the tarball of a release (`.tar.gz`, as `mix release` and rebar3 make it), by its path or its bytes: of what this
  node runs and of the tarball the archive is made that leads there, an upgrade or a patch, and that is judged, kept and
  passed on; `config :hot_patch, max_release_bytes: n` limits it. Nobody has signed such an archive. It takes a
  node that runs from a release, and the native library.

  ## Options

  #{Options.docs(:upload)}

  ## Errors

    * `HotPatch.Refusal` - the archive breaks a rule; `rule` and `entry` say which and where
    * `HotPatch.Error` with `:file`, `:invalid_option`, `:no_native`, `:reader`, `:no_manifest`,
      `:bad_signature`; of a tarball `:build`, `:dangerous`

  ## Examples

      iex> {:error, %HotPatch.Error{reason: reason}} = HotPatch.upload("/no/such/file.zip")
      iex> reason
      :file
  """
  @spec upload(Path.t() | binary(), upload_options()) :: {:ok, Patch.t()} | error()
  def upload(path_or_bytes, options \\ []) do
    with {:ok, options} <- Options.validate(:upload, options),
         by = options.by || OSUser.name(),
         {:ok, bytes, default_name} <- Input.uploaded(path_or_bytes, by) do
      asked = %{options | by: by}
      Catalog.upload(bytes, Map.put(asked, :default_name, default_name))
    end
  end

  @doc """
  All patches of the cluster, newest first, and which nodes could not be asked.

  ## Examples

      HotPatch.list()
      #=> #HotPatch.Answers<patches of 3 nodes: [#HotPatch.Patch<fix-3fa9c1d2e0b4 applied, 4 modules, for exchange 1.0.0>]>

      for patch <- HotPatch.list(), do: patch.id
  """
  @spec list() :: Answers.t(Patch.t())
  defdelegate list(), to: Catalog

  @doc """
  What a patch holds: files, modules, sizes, digests, applications. Of one from `list/0` it is not asked
  again which nodes keep it.

  ## Errors

  `HotPatch.Error` with `:unknown_patch`, `:ambiguous_patch`, `:damaged_patch`, `:no_native`, `:reader`.

  ## Examples

      iex> {:error, error} = HotPatch.composition("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec composition(id() | Patch.t()) :: {:ok, Composition.t()} | error()
  def composition(id) do
    with {:ok, composition, _patch} <- Catalog.open(id), do: {:ok, composition}
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
  @spec check(id(), check_options()) :: {:ok, Report.t()} | error()
  def check(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- PatchCall.new(:check, id, options) do
      Cluster.Survey.check(payload, nodes, unmanaged, options)
    end
  end

  @doc """
  Shows, node by node, what applying would do: load order, the processes that will pause,
  the files that will be replaced, risks, and what stands out in the change of modules, compared
  with what runs there (see `HotPatch.Analysis`). Changes nothing.

  ## Options

  #{Options.docs(:plan)}

  ## Errors

  As for `check/2`.

  ## Examples

      iex> {:error, error} = HotPatch.plan("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec plan(id(), plan_options()) :: {:ok, Plan.t()} | error()
  def plan(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- PatchCall.new(:plan, id, options) do
      Cluster.Survey.plan(payload, nodes, unmanaged, options)
    end
  end

  @doc """
  Tries an apply on what runs now, with nobody paused: what fails in it would fail in the apply.

  Every node judges the patch as for an apply and makes the new code ready. Then each process whose state would be
  converted (or a sample) hands out a copy of it in its own turn, and goes on as if nothing had been. The new
  `code_change` is called on the copy, in a process that lives for this one call, at low priority, with a limit of
  time and of memory. Supervisors' new `init` is asked in the same way; instructions are only read.

  The report says per node and module how many were tried, which failed and where, how states change their form,
  about how long the pause would be and how much memory it would take, who would be late, and what could not be
  tried. No value of a state is in it, nor in a log.

  A callback that has effects, as far as the code shows, is named and left out, unless `effects: :run` is given.
  As it runs in a process of its own, what a callback asks of itself (`self/0`, links, timers, tables of its own)
  is asked of that. Of `transition: :none` there is nothing to try.

  With `replay: seconds` messages that processes really receive are run by the old and the new code, too, on copies
  from where nothing gets out; see `HotPatch.Rehearsal.Replay` for what is found. Where only the new code crashes the
  outcome is `:failed`; where it answers something else that may be what is wanted, and is only told.

  The nodes are held as for an apply: meanwhile nobody else can apply, roll back or restart. `cancel/2` ends it, and
  so does the end of the coordinator. It is written into the journal.

  ## Options

  #{Options.docs(:rehearse)}

  ## Errors

  `HotPatch.Error` as for `check/2`, and `:busy`, `:cancelled`. A patch that would fail is no error here: its
  `outcome` says so.

  ## Examples

      iex> {:error, error} = HotPatch.rehearse("fix", sample: 0)
      iex> {error.reason, error.details.option}
      {:invalid_option, :sample}
  """
  @spec rehearse(id(), rehearse_options()) :: {:ok, Rehearsal.t()} | error()
  def rehearse(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- PatchCall.new(:rehearse, id, options) do
      options = Map.put(options, :id, Cluster.Coordinator.new_id())

      Cluster.ProgressBars.during(options.id, options.progress, fn ->
        Cluster.RehearsalCall.run(payload, nodes, unmanaged, options)
      end)
    end
  end

  @doc """
  Makes a patch current on every node, in memory and on disk.

  First every node prepares; if one cannot, none changes. Then every node commits (all at
  once, or group after group: `canary`, `max_concurrency`, `one_per_host`): the
  processes that run changed modules are suspended within `pause_timeout`, all modules
  become current in one step, `code_change` is called with the running module's `vsn`, and
  all are resumed. No process is killed.

  It goes on when the calling process dies, for a terminal that is gone is no reason to leave a cluster
  half-way: `cancel/2` ends it.

  The statuses of the report come from the code that really runs afterwards. A file that
  is `:not_updated` was replaced on disk only, and with it all modules of the patch on
  that node: they become current when the node restarts.

  ## An upgrade by restarts

  With `restart: :rolling` an upgrade (see `HotPatch.Upgrade`) comes without a change of what runs: node after node gets
  its files, is told to let go of its work (`before_restart/1` of `HotPatch.Hook`), and is started again in the new
  release, which is the permanent one there from then on. So also another ERTS, OTP or Elixir can come. One node at a time:
  `canary` names those that go first, hosts come after each other, the node that leads comes last and is led by another.
  The next node begins when the one before it serves in the new release: all its applications have started, `config
  :hot_patch, health: ...` finds it well, and `watch`, which counts here by default, has seen nothing wrong. `timeout` is
  how long it may take to end, and then to serve. One that does not serve goes back to the release of before by itself,
  and it ends there: nodes that were restarted before stay in the new release. `check/2` and `plan/2` with the same
  option say whether each node is started again when it ends, and by whom; where that is not known it is refused.
  `cancel/2` ends it before the next node. A node that is alone restarts by itself: its report has `:not_updated`, and its
  journal says how it ended. When all are there, nodes that were away, or join with the former release, are restarted into the new
  one, too; where that cannot be, `behind` in `nodes/0` says why.

  ## Options

  #{Options.docs(:apply)}

  ## Errors

  `HotPatch.Error` as for `check/2`, and:

    * `:refused` - a node cannot prepare, or the rehearsal failed that `rehearse: true` demands; nothing was
      changed, `report` says why
    * `:busy` - another apply is under way; `details.holder` says whose
    * `:failed` - the commit failed on a node; `report` says where and how it was left, and
      what the others did about it (`on_failure`)
    * `:cancelled` - somebody has cancelled it (`cancel/2`); `details.outcome` says what became of what was done
    * `:rolled_back` - the patch was applied, watched, and taken back everywhere; `report.watch` says
      which sign was beyond its limit

  ## Examples

      iex> {:error, error} = HotPatch.apply("fix", speed: :fast)
      iex> {error.reason, error.details.option}
      {:invalid_option, :speed}
  """
  @spec apply(id(), apply_options()) :: {:ok, Report.t()} | error()
  def apply(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- PatchCall.new(:apply, id, options),
         :ok <- Cluster.RehearsalCall.demanded(payload, nodes, unmanaged, options),
         do: carry_out(options, payload, nodes, unmanaged)
  end

  @doc """
  Takes an applied patch back on every node: code, disk, and the state of processes.

  What was replaced becomes current again, what was added is removed, byte for byte as it was
  before. States are converted by `code_change({:down, vsn}, state, extra)` of the code that
  runs, as OTP does it on a downgrade; processes whose module exports no `code_change` keep their
  state. All the rules, promises and reports are those of `apply/2`.

  The way back is that by which the patch came: one that was applied with `transition: :none` or
  `on_load: :load`, by option or manifest, goes back so, unless other options are given here.
  `check(id, operation: :rollback)` shows it. Only `purge: :force` has to be said anew.

  Patches stack: one that has files in common with a later one can be taken back only after
  that. A cumulative patch gives way to the patches that it had taken the place of.

  An upgrade that came with `restart: :rolling` goes back so: node after node is restarted into the former release, as `apply/2`
  describes it. It is refused where that is no longer on a node's disk.

  ## Options

  #{Options.docs(:rollback)}

  ## Errors

  As for `apply/2`, and `:not_applied`: no node has this patch applied, or, with `restart: :rolling`, runs the release to
  which it leads.

  ## Examples

      iex> {:error, error} = HotPatch.rollback("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec rollback(id(), rollback_options()) :: {:ok, Report.t()} | error()
  def rollback(id, options \\ []) do
    with {:ok, options, payload, nodes, unmanaged} <- PatchCall.new(:rollback, id, options),
         do: carry_out(options, payload, nodes, unmanaged)
  end

  defp carry_out(options, payload, nodes, unmanaged) do
    options = Map.put(options, :id, Cluster.Coordinator.new_id())

    Cluster.ProgressBars.during(options.id, options.progress, fn ->
      if options[:restart] == :rolling,
        do: Cluster.RollingRestart.run(payload, nodes, unmanaged, options),
        else: live(options, payload, nodes, unmanaged)
    end)
  end

  defp live(options, payload, nodes, unmanaged) do
    payload
    |> Cluster.Rollout.run(nodes, unmanaged, options)
    |> Cluster.ReleaseCall.follow(payload, options)
  end

  @doc """
  Makes a zip of what an applied patch has replaced: applied as a patch of its own, it brings
  back the former code going up (`code_change` gets the vsn of the patched code).

  Files that the patch has added have no former version and are named in `left_out`. The zip has no
  manifest, so that it cannot say how it has to be applied: `apply_with` are the options that make it
  go the way by which the patch came; with `again: true` where what was there before is an earlier patch.

      {:ok, back} = HotPatch.export_antipatch("fix")
      {:ok, patch} = HotPatch.upload(back.zip, name: "back")
      HotPatch.apply(patch.id, back.apply_with)

  ## Options

  #{Options.docs(:export_antipatch)}

  ## Errors

  `HotPatch.Error` with `:unknown_patch`, `:ambiguous_patch`, `:not_applied`, `:file`.

  ## Examples

      iex> {:error, error} = HotPatch.export_antipatch("never-uploaded")
      iex> error.reason
      :unknown_patch
  """
  @spec export_antipatch(id(), export_antipatch_options()) ::
          {:ok, %{zip: binary(), files: [Path.t()], left_out: [Path.t()], apply_with: keyword()}}
          | error()
  def export_antipatch(id, options \\ []) do
    with {:ok, options} <- Options.validate(:export_antipatch, options),
         do: Cluster.Antipatch.export(id, options.to)
  end

  @doc """
  What was done on the cluster, and how it ended: who applied, rolled back, uploaded or deleted
  what, when, on which nodes, with which statuses and pauses. The latest first; and which nodes could not
  be asked for their part.

  ## Options

  #{Options.docs(:journal)}

  ## Examples

      {:ok, journal} = HotPatch.journal(last: 1)
      IO.puts(journal)
      #=> 2026-11-22 10:14:03 UTC rollback of fix-3fa9c1d2e0b4 by alice: ok on 3 nodes
  """
  @spec journal(journal_options()) ::
          {:ok, Answers.t(JournalEntry.t())} | error()
  def journal(options \\ []) do
    with {:ok, options} <- Options.validate(:journal, options),
         {:ok, members} <- Cluster.reachable(options.nodes),
         do: Cluster.Journals.list(members, options)
  end

  @doc """
  Every module whose running code differs from its file, or from that of the other nodes of
  the same release, with the cause where it is known; and which nodes could not be asked. Erlang's and
  Elixir's own modules are not looked at.

  ## Options

  #{Options.docs(:drift)}

  ## Examples

      HotPatch.drift()
      #=> {:ok, #HotPatch.Answers<drift of 2 nodes: [#HotPatch.Drift<MyApp.Foo on a@host: runs another version
      #=>   than its file; loaded by hand>], c@host did not answer in time: what it has is not here>}
  """
  @spec drift(drift_options()) :: {:ok, Answers.t(Drift.t())} | error()
  def drift(options \\ []) do
    with {:ok, options} <- Options.validate(:drift, options),
         {:ok, members} <- Cluster.reachable(options.nodes),
         do: {:ok, Cluster.DriftSurvey.run(members, options.timeout)}
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
  @spec delete(id(), delete_options()) :: :ok | error()
  def delete(id, options \\ []) do
    with {:ok, options} <- Options.validate(:delete, options),
         do: Catalog.delete(id, %{options | by: options.by || OSUser.name()})
  end

  @doc """
  Restarts a node, as `bin/my_app restart` does (`:init.restart/0`), and waits until it is back: what
  a file needs that is `:not_updated` there.

  One at a time: while the node is away nothing else is applied, rolled back or restarted. The
  last node that serves its release is refused, unless `force: true` is given. What runs on the node
  ends with it.

  A node that is told to restart itself has another one do it, and answers before it goes.

  ## Options

  #{Options.docs(:restart)}

  ## Errors

  `HotPatch.Error` with `:invalid_option`, `:unreachable`, `:unmanaged`, `:busy`, `:refused` (it is the
  last), `:failed` (it is not back in time).

  ## Examples

      iex> {:error, error} = HotPatch.restart(node())
      iex> error.reason
      :refused
  """
  @spec restart(node(), restart_options()) :: {:ok, NodeInfo.t()} | error()
  def restart(node, options \\ []) do
    with {:ok, options} <- Options.validate(:restart, options),
         {:ok, node} <- Argument.node(:restart, node, Cluster.everyone()),
         do: Cluster.Restart.run(node, %{options | by: options.by || OSUser.name()})
  end

  @doc """
  Cancels what is under way: an apply, a rollback, a restart, a check, a plan, a rehearsal, an attach or a detach, from
  any node of the cluster. `id` is that of the operation (`progress/0` has it), of the patch that it is about,
  the beginning of one of them, or the name of the node.

  Waits until it has ended, and says how. As long as it is not decided that all nodes go on, nothing has
  changed, and nothing will. After that an apply, whose watch may go on for long, or which goes group after
  group, is rolled back where it has come to, unless `keep: true` is given; a rollback comes to its end. It is
  written into the journal. Who has called what is cancelled gets an error with the reason `:cancelled`.

  The death of a caller cancels nothing: an apply, a rollback or a restart has a process of its own.

  ## Options

  #{Options.docs(:cancel)}

  ## Errors

  `HotPatch.Error` with `:not_under_way` (the message says what is), `:ambiguous_patch` (several are under
  way for it; `details.candidates`), `:unreachable`, `:invalid_option`.

  ## Examples

      HotPatch.cancel("fix", by: "bob", reason: "wrong file")
      #=> {:ok, #HotPatch.Cancellation<apply of fix-3fa9c1d2e0b4: rolled_back>}

      iex> {:error, error} = HotPatch.cancel("fix")
      iex> error.reason
      :not_under_way
  """
  @spec cancel(String.t() | node(), cancel_options()) :: {:ok, Cancellation.t()} | error()
  def cancel(id, options \\ []) do
    with {:ok, options} <- Options.validate(:cancel, options),
         {:ok, id} <- Argument.name(:cancel, id),
         do: Cluster.CancelCall.run(id, %{options | by: options.by || OSUser.name()})
  end

  @doc """
  Every node of the cluster: release, OTP, applied patches, whether a restart is needed.

  Connected nodes that do not run HotPatch are listed too, with the reason, and nodes that belong to the
  system and are away: those that the configuration names as `peers:`, those that took part in the
  operations by which patches are in force or in the latest one, and those that were attached from here.

  ## Examples

      iex> [info] = HotPatch.nodes()
      iex> {info.node, info.managed?}
      {node(), true}
  """
  @spec nodes() :: [NodeInfo.t()]
  def nodes, do: Cluster.nodes()

  @doc """
  Says that a node has left the system for good. It is no longer named as one that is away, until it takes
  part in an operation again.

  ## Options

  #{Options.docs(:dismiss)}

  ## Errors

  `HotPatch.Error` with `:refused` (nobody waits for it, or a configuration names it among its `peers:`),
  `:invalid_option`, `:file`.

  ## Examples

      iex> {:error, error} = HotPatch.dismiss(:"nobody@127.0.0.1")
      iex> error.reason
      :refused
  """
  @spec dismiss(node(), dismiss_options()) :: :ok | error()
  def dismiss(node, options \\ []) do
    with {:ok, options} <- Options.validate(:dismiss, options),
         # Whoever is to be dismissed is away: only the survey knows its name.
         known = if(is_atom(node), do: [], else: Enum.map(Cluster.nodes(), & &1.node)),
         {:ok, node} <- Argument.node(:dismiss, node, known),
         do: Cluster.Dismissal.run(node, %{options | by: options.by || OSUser.name()})
  end

  @doc """
  Brings HotPatch to a node that does not have it, so that it can be patched like any other.

  It comes into that node's memory alone, as the application `:hot_patch`, and is gone when the
  node restarts; what patches have written to its disk stays. A node without Elixir gets Elixir's
  modules too; nothing of them is started. Nothing that the node has already is replaced: one that
  runs HotPatch in this version is left as it is, and what cannot run there is refused and leaves
  nothing.

  The node is looked for as `Node.connect/1` does it. A hidden one is worked on by default from the
  node where it was attached, and elsewhere when it is named.

  A node of the same release as others does what it has missed, as any node that joins: patches
  that were applied on all are in force when this returns, or `nodes/0` says why not.

  An operator's own node, which runs no applications, uploads patches for what the others run. Where they
  run several systems, or several versions of one, `upload/2` takes `release: {name, version}`, as `nodes/0`
  shows it, and `apply/2` the nodes.

  ## Options

  #{Options.docs(:attach)}

  ## Errors

  `HotPatch.Error` with `:unreachable`, `:incompatible`, `:unmanaged` (it has a HotPatch of its own
  that is not started), `:busy`, `:file`, `:internal`.

  ## Examples

      HotPatch.attach(:"switch@10.0.0.7", by: "alice", reason: "ticket 4711")
      #=> :ok

      iex> {:error, error} = HotPatch.attach(:"nobody@127.0.0.1", release: "1.0")
      iex> {error.reason, error.details.option}
      {:invalid_option, :release}
  """
  @spec attach(node(), attach_options()) :: :ok | error()
  def attach(node, options \\ []) do
    with {:ok, options} <- Options.validate(:attach, options),
         {:ok, node} <- Argument.node(:attach, node, Node.list(:connected)),
         do: Cluster.Attach.attach(node, %{options | by: options.by || OSUser.name()})
  end

  @doc """
  Takes HotPatch away from a node that was attached: the application, its processes, its modules and
  Elixir's where they came with it and nobody else has come to use them, what it has put into the
  VM's memory, and its data directory unless that is still needed. What the node had noted goes
  into the journal of this one.

  Refused while an operation is under way there, and while patches are in force. Nothing of it is
  in use when this returns; to give the memory of its code back takes the VM a pass over all its
  processes for each module, which goes on there by itself where it takes longer than `timeout`.

  ## Options

  #{Options.docs(:detach)}

  ## Errors

  `HotPatch.Error` with `:unreachable`, `:unmanaged`, `:not_attached`, `:busy`, `:in_force`.

  ## Examples

      HotPatch.detach(:"switch@10.0.0.7")
      #=> :ok

      iex> {:error, error} = HotPatch.detach(:"nobody@127.0.0.1", leave_patches: 1)
      iex> {error.reason, error.details.option}
      {:invalid_option, :leave_patches}
  """
  @spec detach(node(), detach_options()) :: :ok | error()
  def detach(node, options \\ []) do
    with {:ok, options} <- Options.validate(:detach, options),
         {:ok, node} <- Argument.node(:detach, node, Node.list(:connected)),
         do: Cluster.Attach.detach(node, %{options | by: options.by || OSUser.name()})
  end

  @doc """
  Has the calling process told how far operations have come, on whichever node they run: it
  gets `{HotPatch, %HotPatch.Event{}}` messages until it ends or calls `unsubscribe/0`.

  ## Examples

      iex> HotPatch.subscribe()
      :ok
      iex> HotPatch.unsubscribe()
      :ok
  """
  @spec subscribe() :: :ok
  defdelegate subscribe(), to: Cluster.Progress

  @doc "Ends what `subscribe/0` began."
  @spec unsubscribe() :: :ok
  defdelegate unsubscribe(), to: Cluster.Progress

  @doc """
  How far the operations that are under way have come: the latest event of each and of every
  node in it. Empty while nothing is going on.

  ## Examples

      iex> HotPatch.progress()
      []
  """
  @spec progress() :: [Event.t()]
  defdelegate progress(), to: Cluster.UnderWay, as: :events

  @doc """
  Processes that still run old code, of patches or of whatever else changed code, and who holds a fun that
  old code has made; and which nodes could not be asked.

  They hinder nobody until the next change of the same module, which is refused while they
  are there.

  ## Options

  #{Options.docs(:stragglers)}

  ## Examples

      iex> {:ok, stragglers} = HotPatch.stragglers()
      iex> {stragglers.items, HotPatch.Answers.complete?(stragglers)}
      {[], true}
  """
  @spec stragglers(stragglers_options()) ::
          {:ok, Answers.t(Straggler.t())} | error()
  def stragglers(options \\ []) do
    with {:ok, options} <- Options.validate(:stragglers, options),
         {:ok, members} <- Cluster.reachable(options.nodes) do
      asked = {:stragglers, [], options.timeout}

      {:ok,
       Cluster.collect(members, :stragglers, asked, fn answers ->
         for {_node, stragglers} <- answers, straggler <- stragglers, do: straggler
       end)}
    end
  end

  @doc """
  The releases that lie on each node, with OTP's words for them: which one runs, which one a restart boots, which
  ones are unpacked or old; and which nodes could not be asked. What a node does not know it says.

  ## Options

  #{Options.docs(:releases)}

  ## Examples

      {:ok, releases} = HotPatch.releases()
      IO.puts(releases)
      #=> shop 1.1.0 on a@host: current, runs
      #=> shop 1.0.0 on a@host: permanent, the next start boots it

      iex> {:ok, releases} = HotPatch.releases()
      iex> [%HotPatch.InstalledRelease{node: node, running?: running?}] = releases.items
      iex> {node, is_boolean(running?)}
      {node(), true}
  """
  @spec releases(releases_options()) :: {:ok, Answers.t(InstalledRelease.t())} | error()
  def releases(options \\ []) do
    with {:ok, options} <- Options.validate(:releases, options),
         {:ok, members} <- Cluster.reachable(options.nodes),
         do: {:ok, collected_releases(members, options)}
  end

  defp collected_releases(members, options) do
    Cluster.collect(members, :releases, {:releases, [], options.timeout}, fn answers ->
      for {_node, releases} <- answers, release <- releases, do: release
    end)
  end

  @doc """
  Has the next start of the nodes boot a release that they run by an upgrade: until then it boots the former one, as OTP
  does it. The upgrade can be rolled back all the same.

  Either all nodes can do it, or none does. Nodes of another system are left alone.

  ## Options

  #{Options.docs(:make_permanent)}

  ## Examples

      iex> {:error, error} = HotPatch.make_permanent("1.1.0")
      iex> error.reason
      :refused
  """
  @spec make_permanent(String.t(), make_permanent_options()) ::
          {:ok, Answers.t(InstalledRelease.t())} | error()
  def make_permanent(version, options \\ []),
    do: change_release(:make_permanent, version, options)

  @doc """
  Removes the folders of a release that does not run, is not booted by the next start, and to which no rollback of the
  last upgrade leads. What other releases need of it stays.

  ## Options

  #{Options.docs(:remove_release)}

  ## Examples

      iex> {:error, error} = HotPatch.remove_release("1.0.0")
      iex> error.reason
      :refused
  """
  @spec remove_release(String.t(), remove_release_options()) ::
          {:ok, Answers.t(InstalledRelease.t())} | error()
  def remove_release(version, options \\ []),
    do: change_release(:remove_release, version, options)

  defp change_release(call, version, options) do
    with {:ok, options} <- Options.validate(call, options),
         {:ok, members} <- Cluster.reachable(options.nodes),
         options = %{options | by: options.by || OSUser.name()},
         :ok <- Cluster.ReleaseCall.run(call, Argument.text(version), members, options),
         do: {:ok, collected_releases(members, options)}
  end

  @doc """
  The digest (SHA-256, in hexadecimal) of each file of the build that this node runs, by its path as in a release: what
  `mix hot_patch.deploy` compares with the build of the working tree, so that no old build has to be kept.

  ## Examples

      HotPatch.build_digests()
      #=> %{"lib/shop-1.0.0/ebin/Elixir.Shop.Cart.beam" => "9f86d081884c7d65...", ...}

      iex> HotPatch.build_digests() |> Map.values() |> Enum.all?(&(byte_size(&1) == 64))
      true
  """
  @spec build_digests() :: %{String.t() => String.t()}
  def build_digests do
    for {path, digest} <- RunningBuild.digests(), into: %{}, do: {path, Hex.encode(digest)}
  end

  @doc """
  What is in some files of the build that this node runs, by their paths as `build_digests/0` gives them. What is none of these
  files is not read, and not in the answer.

  ## Examples

      HotPatch.build_files(["lib/shop-1.0.0/ebin/Elixir.Shop.Cart.beam"])
      #=> %{"lib/shop-1.0.0/ebin/Elixir.Shop.Cart.beam" => <<70, 79, 82, 49, ...>>}

      iex> HotPatch.build_files(["/etc/passwd", "../secret"])
      %{}
  """
  @spec build_files([String.t()]) :: %{String.t() => binary()}
  def build_files(paths) when is_list(paths),
    do: paths |> Enum.map(&Argument.text/1) |> RunningBuild.contents()

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
  @spec upload!(Path.t() | binary(), upload_options()) :: Patch.t()
  def upload!(path_or_bytes, options \\ []), do: bang!(upload(path_or_bytes, options))

  @doc "Like `composition/1`, but raises the error."
  @spec composition!(id() | Patch.t()) :: Composition.t()
  def composition!(id), do: bang!(composition(id))

  @doc "Like `check/2`, but raises the error."
  @spec check!(id(), check_options()) :: Report.t()
  def check!(id, options \\ []), do: bang!(check(id, options))

  @doc "Like `plan/2`, but raises the error."
  @spec plan!(id(), plan_options()) :: Plan.t()
  def plan!(id, options \\ []), do: bang!(plan(id, options))

  @doc "Like `rehearse/2`, but raises the error."
  @spec rehearse!(id(), rehearse_options()) :: Rehearsal.t()
  def rehearse!(id, options \\ []), do: bang!(rehearse(id, options))

  @doc "Like `apply/2`, but raises the error."
  @spec apply!(id(), apply_options()) :: Report.t()
  def apply!(id, options \\ []), do: bang!(apply(id, options))

  @doc "Like `rollback/2`, but raises the error."
  @spec rollback!(id(), rollback_options()) :: Report.t()
  def rollback!(id, options \\ []), do: bang!(rollback(id, options))

  @doc "Like `cancel/2`, but raises the error."
  @spec cancel!(String.t() | node(), cancel_options()) :: Cancellation.t()
  def cancel!(id, options \\ []), do: bang!(cancel(id, options))

  @doc "Like `export_antipatch/2`, but raises the error."
  @spec export_antipatch!(id(), export_antipatch_options()) :: map()
  def export_antipatch!(id, options \\ []), do: bang!(export_antipatch(id, options))

  @doc "Like `journal/1`, but raises the error."
  @spec journal!(journal_options()) :: Answers.t(JournalEntry.t())
  def journal!(options \\ []), do: bang!(journal(options))

  @doc "Like `drift/1`, but raises the error."
  @spec drift!(drift_options()) :: Answers.t(Drift.t())
  def drift!(options \\ []), do: bang!(drift(options))

  @doc "Like `releases/1`, but raises the error."
  @spec releases!(releases_options()) :: Answers.t(InstalledRelease.t())
  def releases!(options \\ []), do: bang!(releases(options))

  @doc "Like `make_permanent/2`, but raises the error."
  @spec make_permanent!(String.t(), make_permanent_options()) :: Answers.t(InstalledRelease.t())
  def make_permanent!(version, options \\ []), do: bang!(make_permanent(version, options))

  @doc "Like `remove_release/2`, but raises the error."
  @spec remove_release!(String.t(), remove_release_options()) :: Answers.t(InstalledRelease.t())
  def remove_release!(version, options \\ []), do: bang!(remove_release(version, options))

  @doc "Like `stragglers/1`, but raises the error."
  @spec stragglers!(stragglers_options()) :: Answers.t(Straggler.t())
  def stragglers!(options \\ []), do: bang!(stragglers(options))

  @doc "Like `restart/2`, but raises the error."
  @spec restart!(node(), restart_options()) :: NodeInfo.t()
  def restart!(node, options \\ []), do: bang!(restart(node, options))

  @doc "Like `delete/2`, but raises the error."
  @spec delete!(id(), delete_options()) :: :ok
  def delete!(id, options \\ []) do
    with {:error, error} <- delete(id, options), do: raise(error)
  end

  @doc "Like `attach/2`, but raises the error."
  @spec attach!(node(), attach_options()) :: :ok
  def attach!(node, options \\ []) do
    with {:error, error} <- attach(node, options), do: raise(error)
  end

  @doc "Like `detach/2`, but raises the error."
  @spec detach!(node(), detach_options()) :: :ok
  def detach!(node, options \\ []) do
    with {:error, error} <- detach(node, options), do: raise(error)
  end

  defp bang!({:ok, result}), do: result
  defp bang!({:error, error}), do: raise(error)
end
