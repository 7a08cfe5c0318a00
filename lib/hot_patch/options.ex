defmodule HotPatch.Options do
  @moduledoc false
  # The options of every public call: what they mean, their defaults, and one validator
  # each. Documentation of the public functions is generated from the same table.

  alias HotPatch.Cluster.CanaryAnalysis
  alias HotPatch.Error
  alias HotPatch.Options.Argument
  alias HotPatch.Support.Suggestion

  @table [
    name: [
      check: :name,
      doc:
        "the patch's name, 1 to 64 letters, digits, `.`, `_` or `-`. " <>
          "Default: that of its manifest; without one the file's name without `.zip`, or `patch` for bytes"
    ],
    nodes: [
      check: :nodes,
      doc:
        "which nodes to work on: a list of names, `{:role, role}` (`config :hot_patch, roles: [...]` " <>
          "on the nodes says which they have), or a function that is given a `HotPatch.NodeInfo` and " <>
          "says yes or no. Default: this node and all connected visible nodes that run HotPatch"
    ],
    timeout: [
      check: :milliseconds,
      default: 60_000,
      doc:
        "milliseconds that each step may take on a node before it counts as unreachable. " <>
          "Default: 60,000"
    ],
    pause_timeout: [
      check: :milliseconds,
      default: 2_000,
      doc:
        "milliseconds within which all must be suspended, and what instructions want before it be " <>
          "done, or nothing is loaded. Default: 2,000, less than the 5,000 that calls wait"
    ],
    transition: [
      check: {:one_of, [:suspend, :none, :compatible]},
      default: :suspend,
      doc:
        "how processes come to the new code. `:suspend` (default): all stand still while their " <>
          "states are converted. `:none`: nobody is suspended, because the state's format does not " <>
          "change. `:compatible`: nobody is suspended, each converts its state in its own turn after the " <>
          "load, because the new code accepts the old state too. A patch's manifest may say another default"
    ],
    purge: [
      check: {:one_of, [:soft, :force]},
      default: :soft,
      doc:
        "what to do with processes that still run old code of an earlier change. `:soft` (default): " <>
          "the patch is refused while there are any, or any process that could not live with the change, or a " <>
          "fun of such old code is held somewhere. `:force`: they are killed, and those funs ended, in the moment of the load, and the node is marked in `nodes/0`; the plan names them"
    ],
    on_load: [
      check: {:one_of, [:restart, :load]},
      default: :restart,
      doc:
        "what to do with modules that run code when they are loaded (`-on_load`), as NIF modules do. " <>
          "`:restart` (default): only the disk is changed, and all modules of the patch wait for the " <>
          "node's restart. `:load`: they are loaded one by one in a step of its own before the others; if " <>
          "one refuses, nothing is changed. What their code did is not undone; the plan names them. A patch's manifest " <>
          "may say another default"
    ],
    drift: [
      check: {:one_of, [:refuse, :accept]},
      default: :refuse,
      doc:
        "what to do where a module runs in a version that neither its file has nor this node keeps, because " <>
          "somebody has loaded code by hand or replaced files: a rollback could not bring it back. `:refuse` " <>
          "(default): the patch is refused, and the reason names the module. `:accept`: it is applied, and its " <>
          "rollback goes to what is on disk"
    ],
    disk: [
      check: {:one_of, [:replace, :memory_only]},
      default: :replace,
      doc:
        "`:replace` (default): the files of the patch take the place of the node's own, so that a restart " <>
          "boots the patched code. `:memory_only`: no file of the system is touched, for hosts whose code belongs " <>
          "to somebody else; the patch is gone with a restart of the node, and what is not loaded into memory " <>
          "now is not done at all. A node that starts again while others still run the patch gets it from them"
    ],
    cumulative: [
      check: {:one_of, [true, false]},
      default: false,
      doc:
        "`true`: the patch takes the place of all that are applied; what they have changed and it " <>
          "does not goes back to the release's own. Default: what its manifest says, or `false`"
    ],
    again: [
      check: {:one_of, [true, false]},
      default: false,
      doc:
        "`true`: also a patch that was applied before and whose place another has taken since: it brings back " <>
          "what that has replaced. Default: `false`, such a patch is refused, under whatever name it comes"
    ],
    config: [
      check: :config,
      default: [],
      doc:
        "what changes in the environments of applications with the patch, as in a config file: " <>
          "`[my_app: [key: value]]`. Set in the moment of the load, then `config_change/3` of the " <>
          "application's callback module is called; set again at every start; put back by a rollback"
    ],
    canary: [
      check: :canary,
      doc:
        "which nodes go first: a list of names, a number of nodes, or a share of all of them such as " <>
          "`0.1`. The others follow when these were watched and nothing was wrong"
    ],
    max_concurrency: [
      check: :count,
      doc: "at most so many nodes at a time, group after group, each watched before the next"
    ],
    one_per_host: [
      check: {:one_of, [true, false]},
      default: false,
      doc: "`true`: never two nodes of one host at a time. Default: `false`"
    ],
    watch: [
      check: :watch,
      doc:
        "how nodes are watched after they were changed, see `HotPatch.Watch`: beyond a limit the patch " <>
          "is rolled back everywhere by itself. A keyword list of limits, with `duration: 30_000` and " <>
          "`baseline: 1_000` milliseconds after and before, and `health: {module, function, args}`, a " <>
          "function of the host application that gives `:ok` where all is well (default: `config " <>
          ":hot_patch, health: ...`); `true` for all defaults; `false` for the bold. Default: `true` where nodes " <>
          "are changed group after group, else `false`"
    ],
    on_failure: [
      check: {:one_of, [:rollback, :keep]},
      default: :rollback,
      doc:
        "what the others do when a node fails in its commit, which has taken itself back by then. " <>
          "`:rollback` (default): they take back too. `:keep`: they keep the patch"
    ],
    progress: [
      check: {:one_of, [:auto, :bar, :none]},
      default: :auto,
      doc:
        "`:bar`: a bar for each node on the caller's terminal; `:none`: nothing. Default: `:auto`, bars in iex " <>
          "for what takes longer than a second. See also `subscribe/0`"
    ],
    operation: [
      check: {:one_of, [:apply, :rollback]},
      default: :apply,
      doc: "`:apply` (default) or `:rollback`: of which of the two to tell what it would do"
    ],
    down_transition: [
      check: {:one_of, [:suspend, :none]},
      doc:
        "how processes come to the old code. `:suspend`: all stand still while their states " <>
          "are converted by `code_change({:down, vsn}, ...)` of the running code. `:none`: nobody is " <>
          "suspended, because the state's format is the same. Default: as the patch was applied " <>
          "(`:suspend` where that was `:compatible`)"
    ],
    down_on_load: [
      check: {:one_of, [:restart, :load]},
      doc:
        "what to do with modules that run code when they are loaded: as for `apply/2`. Default: as the " <>
          "patch was applied"
    ],
    survey_transition: [
      check: {:one_of, [:suspend, :none, :compatible]},
      doc: "as for `apply/2` or `rollback/2`, with the same default"
    ],
    survey_on_load: [
      check: {:one_of, [:restart, :load]},
      doc: "as for `apply/2` or `rollback/2`, with the same default"
    ],
    keep: [
      check: {:one_of, [true, false]},
      default: false,
      doc:
        "what becomes of nodes that have the patch already. `false` (default): it is rolled back there. " <>
          "`true`: they keep it, and the others do not get it"
    ],
    end_timeout: [
      check: :milliseconds,
      default: 60_000,
      doc: "milliseconds to wait for its end. Default: 60,000"
    ],
    reason: [
      check: :text,
      doc: "why, for the record"
    ],
    patch: [check: :text, doc: "only entries of patches whose id begins so"],
    last: [check: :count, default: 100, doc: "so many entries at most, the latest. Default: 100"],
    to: [check: :text, doc: "a path: the zip is written there too"],
    data_dir: [
      check: :text,
      doc:
        "where the node keeps what a rollback needs. Default: as its configuration says, else `hot_patch/` " <>
          "inside its release, else the user's data directory"
    ],
    release: [
      check: :release,
      doc: "`{name, version}` of what the node runs. Default: see `HotPatch.Release`"
    ],
    system: [
      check: :release,
      doc:
        "`{name, version}` of the system that the patch is for, as `nodes/0` shows it. Default: what the " <>
          "manifest says, else what this node runs, or, where it runs no system, what the others run; where " <>
          "they run several it must be said. An archive that is kept already is bound anew"
    ],
    peers: [
      check: :nodes,
      doc:
        "nodes that it is to ask for what it has missed. Default: those that it is connected to"
    ],
    leave_patches: [
      check: {:one_of, [true, false]},
      default: false,
      doc:
        "`true`: patches that are in force there stay so, in memory and on disk, and so does the data " <>
          "directory; they cannot be rolled back until the node is attached again with that. Default: `false`"
    ],
    by: [
      check: :text,
      doc: "who does it, for the record. Default: the operating system's user"
    ],
    from: [check: :text, doc: "from which address, for the record"],
    force: [
      check: {:one_of, [true, false]},
      default: false,
      doc: "`true`: also the last node of its release that serves. Default: `false`"
    ]
  ]

  # A check and a plan ask for the same.
  @survey [
    :nodes,
    :timeout,
    :survey_transition,
    :purge,
    :survey_on_load,
    :drift,
    :disk,
    :cumulative,
    :again,
    :config,
    :operation
  ]

  @calls [
    upload: [:name, :system, :by, :from],
    check: @survey,
    plan: @survey,
    stragglers: [:nodes, :timeout],
    drift: [:nodes, :timeout],
    journal: [:nodes, :timeout, :patch, :last],
    export_antipatch: [:to],
    delete: [:by, :reason, :from],
    restart: [:timeout, :force, :by, :reason, :from],
    cancel: [:keep, :end_timeout, :by, :reason, :from],
    dismiss: [:by, :reason, :from],
    attach: [:data_dir, :release, :peers, :timeout, :by, :reason],
    detach: [:leave_patches, :timeout, :by, :reason],
    apply: [
      :nodes,
      :timeout,
      :transition,
      :pause_timeout,
      :purge,
      :on_load,
      :drift,
      :disk,
      :cumulative,
      :again,
      :config,
      :canary,
      :max_concurrency,
      :one_per_host,
      :watch,
      :on_failure,
      :progress,
      :by,
      :reason,
      :from
    ],
    rollback: [
      :nodes,
      :timeout,
      :down_transition,
      :pause_timeout,
      :purge,
      :down_on_load,
      :progress,
      :by,
      :reason,
      :from
    ]
  ]

  # An option may mean less in one call than in another.
  @names %{
    system: :release,
    down_transition: :transition,
    down_on_load: :on_load,
    survey_transition: :transition,
    survey_on_load: :on_load,
    end_timeout: :timeout
  }

  @type call ::
          :upload
          | :check
          | :plan
          | :stragglers
          | :drift
          | :journal
          | :export_antipatch
          | :delete
          | :restart
          | :cancel
          | :dismiss
          | :attach
          | :detach
          | :apply
          | :rollback

  @typedoc "What the value of an option has to be."
  @type check :: atom() | {:one_of, [atom()]}

  @doc "The options of a call as a Markdown list, for its `@doc`."
  @spec docs(call()) :: String.t()
  def docs(call) do
    Enum.map_join(@calls[call], "\n", fn option ->
      "  * `:#{name(option)}` - #{@table[option][:doc]}"
    end)
  end

  @doc "The options of a call, each with what its value has to be; none of a call without options."
  @spec rules(atom()) :: [{atom(), check()}]
  def rules(call) do
    for option <- Keyword.get(@calls, call, []), do: {name(option), @table[option][:check]}
  end

  @doc "Checks options and fills in defaults; the error names the option at fault."
  @spec validate(call(), term()) :: {:ok, map()} | {:error, Error.t()}
  def validate(call, options) do
    known = Map.new(@calls[call], &{name(&1), @table[&1]})

    if Keyword.keyword?(options) do
      defaults = Map.new(known, fn {option, rule} -> {option, rule[:default]} end)
      Enum.reduce_while(options, {:ok, defaults}, &validate_one(&1, &2, known, call))
    else
      {:error,
       Error.new(
         :invalid_option,
         "#{call}: options must be a keyword list, got: #{short(options)}"
       )}
    end
  end

  defp validate_one({option, value}, {:ok, valid}, known, call) do
    with :ok <- known(is_map_key(known, option), option, Map.keys(known), call),
         value = text(known[option][:check], value),
         :ok <- check(known[option][:check], value, option, call) do
      {:cont, {:ok, Map.put(valid, option, value)}}
    else
      error -> {:halt, error}
    end
  end

  defp name(option), do: Map.get(@names, option, option)

  defp known(true, _option, _known, _call), do: :ok

  defp known(false, option, known, call) do
    list = Enum.map_join(known, ", ", &inspect/1)
    question = Suggestion.question(inspect(option), Enum.map(known, &inspect/1))
    wrong(call, option, "is not an option of #{call}/2#{question}; it takes #{list}")
  end

  # Callers from Erlang write text as charlists.
  defp text(check, value) when check in [:text, :name], do: Argument.text(value)

  defp text(:release, {name, version}), do: {Argument.text(name), Argument.text(version)}
  defp text(_check, value), do: value

  defp check(:name, value, option, call) do
    if is_binary(value) and value =~ ~r/\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z/ do
      :ok
    else
      wrong(
        call,
        option,
        "must be 1 to 64 letters, digits, `.`, `_` or `-` and begin with a letter or " <>
          "digit, got: #{short(value)}"
      )
    end
  end

  defp check(:nodes, value, option, call) do
    if names?(value) or is_function(value, 1) or match?({:role, role} when is_atom(role), value) do
      :ok
    else
      wrong(
        call,
        option,
        "must be a non-empty list of node names (atoms, such as :\"a@10.0.0.1\"), {:role, role} or a " <>
          "function of one argument, got: #{short(value)}"
      )
    end
  end

  defp check(:canary, value, option, call) do
    if names?(value) or (is_integer(value) and value > 0) or
         (is_float(value) and value > 0 and value < 1) do
      :ok
    else
      wrong(
        call,
        option,
        "must be a non-empty list of node names, a positive number of nodes, or a share between 0 and 1, " <>
          "got: #{short(value)}"
      )
    end
  end

  defp check(:config, value, option, call) do
    if Keyword.keyword?(value) and Enum.all?(Keyword.values(value), &Keyword.keyword?/1) do
      :ok
    else
      # What it is may be a secret.
      wrong(
        call,
        option,
        "must be a keyword list of applications, each with a keyword list of keys"
      )
    end
  end

  defp check(:watch, value, _option, _call) when is_boolean(value), do: :ok

  defp check(:watch, value, option, call) do
    known = CanaryAnalysis.defaults()

    if Keyword.keyword?(value) do
      case Enum.find(value, fn {key, v} -> not (is_map_key(known, key) and limit?(key, v)) end) do
        nil ->
          :ok

        {key, v} ->
          wrong(
            call,
            option,
            "takes numbers from 0 for #{Enum.map_join(Map.keys(known) -- [:health], ", ", &inspect/1)}, " <>
              "and {module, function, args} for :health, got: #{key}: #{short(v)}"
          )
      end
    else
      wrong(call, option, "must be true, false or a keyword list of limits, got: #{short(value)}")
    end
  end

  defp check(:release, value, option, call) do
    case value do
      {name, version} when is_binary(name) and is_binary(version) -> :ok
      _ -> wrong(call, option, "must be {\"name\", \"version\"}, got: #{short(value)}")
    end
  end

  defp check(:milliseconds, value, option, call) do
    if is_integer(value) and value > 0 and value <= 3_600_000 do
      :ok
    else
      wrong(call, option, "must be 1 to 3,600,000 milliseconds, got: #{short(value)}")
    end
  end

  defp check({:one_of, allowed}, value, option, call) do
    if value in allowed,
      do: :ok,
      else: wrong(call, option, "must be #{either(allowed)}, got: #{short(value)}")
  end

  defp check(:count, value, option, call) do
    if is_integer(value) and value > 0,
      do: :ok,
      else: wrong(call, option, "must be a positive number, got: #{short(value)}")
  end

  defp check(:text, value, option, call) do
    if is_binary(value) and String.printable?(value) and byte_size(value) in 1..200 do
      :ok
    else
      wrong(call, option, "must be 1 to 200 bytes of printable text, got: #{short(value)}")
    end
  end

  defp names?(value) do
    is_list(value) and value != [] and not List.improper?(value) and Enum.all?(value, &is_atom/1)
  end

  defp limit?(:health, {m, f, args}), do: is_atom(m) and is_atom(f) and is_list(args)
  defp limit?(:health, _other), do: false
  defp limit?(:duration, value), do: is_integer(value) and value > 0
  defp limit?(:baseline, value), do: is_integer(value) and value >= 0
  defp limit?(_sign, value), do: is_number(value) and value >= 0

  defp either(allowed) do
    {last, others} = allowed |> Enum.map(&inspect/1) |> List.pop_at(-1)
    "#{Enum.join(others, ", ")} or #{last}"
  end

  defp wrong(call, option, rule) do
    {:error,
     Error.new(:invalid_option, "#{call}: option #{inspect(option)} #{rule}", %{option: option})}
  end

  defp short(term), do: inspect(term, limit: 5, printable_limit: 80)
end
