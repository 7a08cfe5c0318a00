defmodule HotPatch.Options.Schema do
  @moduledoc false
  # Every option of a public call and of a mix task, once: what it means, what its value has to be, its
  # default, and where else it counts. Everything that has to do with options is derived from this table:
  # validation, types, documentation, switches, the fields of the page. So a new option is one entry here,
  # and the place that acts on it.
  #
  # An entry has these attributes; all but the first three may be left out:
  #
  #   * `calls` - which calls take it. `{calls, attributes}` where it means something else in some
  #     of them: these attributes count there in place of those of the entry
  #   * `type` - what its value has to be, see HotPatch.Options.Type
  #   * `doc` - a sentence for the documentation
  #   * `default` - nil where there is none
  #   * `required` - it may not be missing
  #   * `alone` - what counts, in place of the default, in an operation that nobody has asked for
  #   * `manifest` - a patch's manifest may say another default, and `mix hot_patch.build` writes it there
  #   * `payload` - it goes to the nodes with the patch, as this field of HotPatch.NodeAgent.Payload
  #   * `inherited` - by which operations that follow from an apply: `:undo`, which takes back what went
  #     wrong; `:catch_up`, by which a node does what it has missed. They take it from that apply
  #   * `in_person` - the page says it by itself, of who is logged in there; a form cannot
  #   * `field` - how the page asks for it: a `label`, the words for `empty` and for `values`, an `example`.
  #     Without it the field is labelled with the option's name
  #   * `sample` - how its value is called in the help of a command line

  @survey [:check, :plan]

  # What a build writes into the manifest.
  @declared "as for `HotPatch.apply/2`; it counts unless the operator says otherwise"

  @entries [
    name: [
      calls: [
        :upload,
        {:build, doc: "the patch's name. Default: that of `out`"},
        {:keygen,
         type: :words,
         sample: "NAME",
         doc: "what the key is called in reports. Default: user and machine"}
      ],
      type: :name,
      doc:
        "the patch's name, 1 to 64 letters, digits, `.`, `_` or `-`. " <>
          "Default: that of its manifest; without one the file's name without `.zip`, or `patch` for bytes"
    ],
    nodes: [
      calls: [
        :apply,
        :rollback,
        :check,
        :plan,
        :rehearse,
        :stragglers,
        :drift,
        :releases,
        :make_permanent,
        :remove_release,
        :journal,
        {:prove,
         type: :count,
         default: 3,
         field: [],
         doc: "how many nodes of the release are started. Default: 3"}
      ],
      type: :nodes,
      doc:
        "which nodes to work on: a list of names, `{:role, role}` (`config :hot_patch, roles: [...]` " <>
          "on the nodes says which they have), or a function that is given a `HotPatch.NodeInfo` and " <>
          "says yes or no. Default: this node and all connected visible nodes that run HotPatch",
      field: [label: "Only these nodes", empty: "None chosen: all."]
    ],
    from: [
      calls: [
        :upload,
        :delete,
        :restart,
        :cancel,
        :dismiss,
        :apply,
        :rollback,
        :rehearse,
        :make_permanent,
        :remove_release,
        {:build,
         type: :path,
         in_person: false,
         sample: "BUILD",
         doc:
           "the build that runs: a release or its tar, a `_build/ENV` folder, or a folder of " <>
             "applications (`APP/ebin`)"},
        {:prove,
         type: :path,
         in_person: false,
         required: true,
         sample: "RELEASE",
         doc: "the release that runs, as `mix release` makes it (`bin/NAME start`), or its tar"},
        {:appup,
         type: :path,
         in_person: false,
         required: true,
         doc:
           "the older build: a folder of the application (with `ebin` in it), or its `ebin` itself"},
        {:relup,
         type: :path,
         in_person: false,
         required: true,
         sample: "RELEASE",
         doc: "the release that runs: its folder, or a `.rel` file in it"}
      ],
      type: :text,
      in_person: true,
      doc: "from which address, for the record"
    ],
    to: [
      calls: [
        {:export_antipatch, doc: "a path: the zip is written there too"},
        {:build,
         required: true, sample: "BUILD", doc: "the repaired build, of any of the kinds of `from`"},
        {:prove,
         sample: "BUILD",
         doc: "the repaired build, of which the patch is made; not needed with `patch`"},
        {:appup, required: true, doc: "the newer build, likewise"},
        {:relup, required: true, sample: "RELEASE", doc: "the new release, likewise"}
      ],
      type: :path,
      doc: "where it goes"
    ],
    out: [
      calls: [
        {:build, sample: "FILE", doc: "where to write the archive"},
        {:sign, doc: "where to write it. Default: over the archive itself"},
        {:appup,
         doc: "where to write it. Default: `NAME.appup` in the `ebin` of the newer build"},
        {:relup,
         sample: "FOLDER",
         doc:
           "where to write the relup and the appups that were made. Default: into the new release"}
      ],
      type: :path,
      sample: "FILE",
      doc: "where to write it"
    ],
    modules: [
      calls: [:build],
      type: :names,
      doc:
        "only these modules, whether they differ or not; then `from` may be left out, and no node can " <>
          "check what they take the place of"
    ],
    config_differences: [
      calls: [
        {:build,
         doc:
           "`true`: what the `sys.config` of the repaired release sets otherwise is set with the patch, as `config` is. " <>
             "The values are in the patch then, and whoever has it can read them. Default: `false`, notes name the keys"}
      ],
      type: :boolean,
      default: false
    ],
    split: [
      calls: [:build],
      type: :boolean,
      default: false,
      doc:
        "`true`: two archives where that helps, `NAME-1` and `NAME-2`: first the functions that take both the former and the " <>
          "new states, then the processes. The second is refused where the first is not in force"
    ],
    all_differences: [
      calls: [:build],
      type: :boolean,
      default: false,
      doc:
        "`true`: also modules that differ only in line numbers, debug information or documentation"
    ],
    in_place: [
      calls: [:build],
      type: :boolean,
      default: false,
      doc:
        "`true`: a patch of the version that runs, also where `to` is another version of its release. " <>
          "Default: `false`, that gives an upgrade"
    ],
    for: [
      calls: [:build],
      type: :release,
      doc: "the release that it is for, as `\"my_app-1.2.0\"`, where `from` does not say it"
    ],
    author: [
      calls: [:build],
      type: :words,
      doc: "who makes it. Default: the operating system's user"
    ],
    text: [calls: [:build], type: :words, doc: "what it is for"],
    timeout: [
      calls: [
        :apply,
        :rollback,
        :check,
        :plan,
        :stragglers,
        :drift,
        :releases,
        :make_permanent,
        :remove_release,
        :journal,
        :restart,
        :attach,
        :detach,
        {:rehearse,
         doc:
           "milliseconds that the rehearsal may take on a node; who was not got to by then is not tried. " <>
             "Default: 60,000"},
        {:cancel, doc: "milliseconds to wait for its end. Default: 60,000"},
        {:prove,
         doc:
           "milliseconds that the nodes may take to come up, and each step on a node. Default: 60,000"}
      ],
      type: :milliseconds,
      default: 60_000,
      doc:
        "milliseconds that each step may take on a node before it counts as unreachable. " <>
          "Default: 60,000",
      field: [label: "Each step on a node at most, ms"]
    ],
    transition: [
      calls: [
        :apply,
        {:build, doc: "how processes come to the new code, " <> @declared},
        {@survey, default: nil, doc: "as for `apply/2` or `rollback/2`, with the same default"},
        {:rehearse, doc: "as for `apply/2`"},
        {:rollback,
         type: {:one_of, [:suspend, :none]},
         default: nil,
         doc:
           "how processes come to the old code. `:suspend`: all stand still while their states " <>
             "are converted by `code_change({:down, vsn}, ...)` of the running code. `:none`: nobody is " <>
             "suspended, because the state's format is the same. Default: as the patch was applied " <>
             "(`:suspend` where that was `:compatible`)",
         field: [
           label: "Transition",
           empty: "as it was applied",
           values: [suspend: "suspend: all stand still", none: "none: no state changes"]
         ]}
      ],
      type: {:one_of, [:suspend, :none, :compatible]},
      default: :suspend,
      manifest: true,
      payload: :transition,
      inherited: [:catch_up],
      doc:
        "how processes come to the new code. `:suspend` (default): all stand still while their " <>
          "states are converted. `:none`: nobody is suspended, because the state's format does not " <>
          "change. `:compatible`: nobody is suspended, each converts its state in its own turn after the " <>
          "load, because the new code accepts the old state too. A patch's manifest may say another default",
      field: [
        label: "Transition",
        empty: "as the patch says, else suspend",
        values: [
          suspend: "suspend: all stand still",
          none: "none: no state changes",
          compatible: "compatible: each in its own turn"
        ]
      ]
    ],
    pause_timeout: [
      calls: [
        :apply,
        :rollback,
        {:rehearse,
         doc:
           "as for `apply/2`: a process that does not get to its turn within it would be late, and a conversion " <>
             "that takes longer is a failure. Default: 2,000"}
      ],
      type: :milliseconds,
      default: 2_000,
      doc:
        "milliseconds within which all must be suspended, and what instructions want before it be " <>
          "done, or nothing is loaded. Default: 2,000, less than the 5,000 that calls wait",
      field: [label: "Pause at most, ms"]
    ],
    on_load: [
      calls: [
        :apply,
        {:build,
         doc: "what to do with modules that run code when they are loaded, " <> @declared},
        {@survey, default: nil, doc: "as for `apply/2` or `rollback/2`, with the same default"},
        {:rehearse, doc: "as for `apply/2`; nothing of them is loaded"},
        {:rollback,
         default: nil,
         doc:
           "what to do with modules that run code when they are loaded: as for `apply/2`. Default: as the " <>
             "patch was applied",
         field: [
           label: "Modules with on_load",
           empty: "as it was applied",
           values: [restart: "wait for a restart", load: "load them one by one before"]
         ]}
      ],
      type: {:one_of, [:restart, :load]},
      default: :restart,
      manifest: true,
      payload: :on_load,
      inherited: [:catch_up],
      doc:
        "what to do with modules that run code when they are loaded (`-on_load`), as NIF modules do. " <>
          "`:restart` (default): only the disk is changed, and all modules of the patch wait for the " <>
          "node's restart. `:load`: they are loaded one by one in a step of its own before the others; if " <>
          "one refuses, nothing is changed. What their code did is not undone; the plan names them. A patch's manifest " <>
          "may say another default",
      field: [
        label: "Modules with on_load",
        empty: "as the patch says, else wait for a restart",
        values: [restart: "wait for a restart", load: "load them one by one before"]
      ]
    ],
    purge: [
      calls: [
        :apply,
        :rollback,
        :check,
        :plan,
        {:rehearse, doc: "as for `apply/2`; nobody is killed"}
      ],
      type: {:one_of, [:soft, :force]},
      default: :soft,
      payload: :purge,
      inherited: [:undo],
      doc:
        "what to do with processes that still run old code of an earlier change. `:soft` (default): " <>
          "the patch is refused while there are any, or any process that could not live with the change, or a " <>
          "fun of such old code is held somewhere. `:force`: they are killed, and those funs ended, in the moment of the load, and the node is marked in `nodes/0`; the plan names them",
      field: [
        label: "Processes that run old code of an earlier change",
        empty: "have the patch refused",
        values: [force: "are killed"]
      ]
    ],
    drift: [
      calls: [:apply, :check, :plan, :rehearse],
      type: {:one_of, [:refuse, :accept]},
      default: :refuse,
      payload: :drift,
      doc:
        "what to do where a module runs in a version that neither its file has nor this node keeps, because " <>
          "somebody has loaded code by hand or replaced files: a rollback could not bring it back. `:refuse` " <>
          "(default): the patch is refused, and the reason names the module. `:accept`: it is applied, and its " <>
          "rollback goes to what is on disk",
      field: [
        label: "Code that runs and is kept nowhere",
        empty: "have the patch refused",
        values: [accept: "is given up: a rollback goes to what is on disk"]
      ]
    ],
    disk: [
      calls: [:apply, :check, :plan, :rehearse],
      type: {:one_of, [:replace, :memory_only]},
      default: :replace,
      payload: :disk,
      inherited: [:undo, :catch_up],
      doc:
        "`:replace` (default): the files of the patch take the place of the node's own, so that a restart " <>
          "boots the patched code. `:memory_only`: no file of the system is touched, for hosts whose code belongs " <>
          "to somebody else; the patch is gone with a restart of the node, and what is not loaded into memory " <>
          "now is not done at all. A node that starts again while others still run the patch gets it from them",
      field: [
        label: "Files of the system",
        empty: "are replaced",
        values: [memory_only: "stay: in memory only, until a restart"]
      ]
    ],
    cumulative: [
      calls: [
        :apply,
        :check,
        :plan,
        :rehearse,
        {:build, doc: "`true`: the patch takes the place of all before it, " <> @declared}
      ],
      type: :boolean,
      default: false,
      manifest: true,
      payload: :cumulative?,
      inherited: [:catch_up],
      doc:
        "`true`: the patch takes the place of all that are applied; what they have changed and it " <>
          "does not goes back to the release's own. Default: what its manifest says, or `false`",
      field: [
        label: "Patches applied before",
        empty: "as the patch says, else stay",
        values: [true: "give way to this one", false: "stay"]
      ]
    ],
    again: [
      calls: [:apply, :check, :plan, :rehearse],
      type: :boolean,
      default: false,
      payload: :again?,
      doc:
        "`true`: also a patch that was applied before and whose place another has taken since: it brings back " <>
          "what that has replaced. Default: `false`, such a patch is refused, under whatever name it comes",
      field: [
        label: "If a newer patch has taken its place",
        empty: "it is refused",
        values: [true: "it comes again all the same"]
      ]
    ],
    config: [
      calls: [
        :apply,
        :check,
        :plan,
        :rehearse,
        {:build,
         doc: "changes of applications' environments that come with it, as `apply/2` has them"}
      ],
      type: :config,
      default: [],
      doc:
        "what changes in the environments of applications with the patch, as in a config file: " <>
          "`[my_app: [key: value]]`, or as a list of texts, `[\"my_app.key=value\"]`, the value an Erlang term; " <>
          "the key may be a module, `[\"my_app.MyAppWeb.Endpoint=[{url,[{port,8080}]}]\"]`. Keyword lists are " <>
          "merged over what is there, deep, as a config file does; anything else takes its place. Set in the moment of the load, then `config_change/3` of the " <>
          "application's callback module is called; set again at every start; put back by a rollback",
      field: [
        label: "Changes of applications' environments, one a line",
        example: "my_app.limit=100"
      ]
    ],
    canary: [
      calls: [
        :apply,
        {:rollback, doc: "with `restart: :rolling`: which nodes go first, as for `apply/2`"}
      ],
      type: :canary,
      doc:
        "which nodes go first: a list of names, a number of nodes, or a share of all of them such as " <>
          "`0.1`. The others follow when these were watched and nothing was wrong",
      field: [label: "Nodes that go first", example: "1, or 0.1 of all"]
    ],
    max_concurrency: [
      calls: [:apply],
      type: :count,
      doc: "at most so many nodes at a time, group after group, each watched before the next",
      field: [label: "Nodes at a time, at most", example: "all"]
    ],
    one_per_host: [
      calls: [:apply],
      type: :boolean,
      default: false,
      doc: "`true`: never two nodes of one host at a time. Default: `false`",
      field: [
        label: "Nodes of one host",
        empty: "may go together",
        values: [true: "one after the other"]
      ]
    ],
    watch: [
      calls: [
        :apply,
        {:rollback,
         doc:
           "with `restart: :rolling`: how each node is watched after its restart, as for `apply/2`. Default: `true` then",
         field: [
           label: "By restarts: watch the nodes afterwards",
           empty: "yes",
           values: [true: "yes, and go no further when one does badly", false: "no"]
         ]},
        {:prove,
         type: :milliseconds,
         default: 5_000,
         alone: nil,
         field: [],
         doc:
           "milliseconds for which the nodes are watched after each apply, see `HotPatch.Watch`. Default: 5,000"}
      ],
      type: :watch,
      alone: false,
      doc:
        "how nodes are watched after they were changed, see `HotPatch.Watch`: beyond a limit the patch " <>
          "is rolled back everywhere by itself. A keyword list of limits, with `duration: 30_000` and " <>
          "`baseline: 1_000` milliseconds after and before, and `health: {module, function, args}`, a " <>
          "function of the host application that gives `:ok` where all is well (default: `config " <>
          ":hot_patch, health: ...`); `true` for all defaults; `false` for the bold. Default: `true` where nodes " <>
          "are changed group after group, else `false`",
      field: [
        label: "Watch the nodes afterwards",
        empty: "where they go in groups",
        values: [true: "yes, and take back what goes wrong", false: "no"]
      ]
    ],
    permanent: [
      calls: [:apply],
      type: {:one_of, [:never, :now, :after_watch]},
      default: :never,
      alone: :never,
      doc:
        "of an upgrade: when a restart boots the new release. `:never` (default): only when somebody says so, with " <>
          "`make_permanent/2`; until then it boots the former one. `:now`: as soon as all nodes run the new one. " <>
          "`:after_watch`: when they have been watched and nothing was wrong. A patch is on disk anyway",
      field: [
        label: "Of an upgrade: a restart boots the new release",
        empty: "when it is made permanent",
        values: [now: "from now on", after_watch: "when the nodes were watched"]
      ]
    ],
    on_failure: [
      calls: [:apply],
      type: {:one_of, [:rollback, :keep]},
      default: :rollback,
      doc:
        "what the others do when a node fails in its commit, which has taken itself back by then. " <>
          "`:rollback` (default): they take back too. `:keep`: they keep the patch",
      field: [
        label: "If a node fails in its commit, the others",
        empty: "take back too",
        values: [keep: "keep the patch"]
      ]
    ],
    rehearse: [
      calls: [:apply],
      type: :boolean,
      default: false,
      doc:
        "`true`: the patch is rehearsed before, see `rehearse/2`, and refused if that fails. Default: `false`",
      field: [
        label: "Rehearse it before",
        empty: "no",
        values: [true: "yes, and refuse it if that fails"]
      ]
    ],
    sample: [
      calls: [:rehearse],
      type: :count,
      doc:
        "so many processes of each module on a node at most, spread over all of them. Default: all",
      field: [label: "Processes of each module, at most", empty: "all", example: "all"]
    ],
    effects: [
      calls: [:rehearse],
      type: {:one_of, [:skip, :run]},
      default: :skip,
      doc:
        "what to do with a callback that has effects, as far as the code shows: sends, writes, calls something " <>
          "that is not looked into. `:skip` (default): it is named and left out. `:run`: it is run, and its " <>
          "effects are real",
      field: [
        label: "Callbacks that have effects",
        empty: "are left out",
        values: [run: "are run: their effects are real"]
      ]
    ],
    replay: [
      calls: [
        :rehearse,
        {:prove,
         sample: "SECONDS",
         doc:
           "for so many seconds messages that processes get under the load are also run by the old and the new code, on copies " <>
             "of their states, see `HotPatch.Rehearsal.Replay`: a step of its own, `:replay`, which fails if the new code " <>
             "crashes at a message that the old takes. Default: none are"}
      ],
      type: :seconds,
      doc:
        "for so many seconds messages that processes really get are also run by the old and the new code, on copies of their " <>
          "states, from where nothing gets out; then both are compared, see `HotPatch.Rehearsal.Replay`. gen_servers, " <>
          "gen_statems, event handlers, Agents, LiveViews and channels are heard, ten of each module on a node, or as many as `sample` says. Default: none are",
      field: [label: "Play their messages, for seconds", empty: "no", example: "5"]
    ],
    show: [
      calls: [:rehearse, :prove],
      type: {:one_of, [:forms, :values]},
      default: :forms,
      doc:
        "what the report has of messages and answers that the new code takes otherwise. `:forms` (default): how they are made. " <>
          "`:values`: of each kind the first three, as they are; no journal and no log has them",
      field: [
        label: "Of messages and answers show",
        empty: "how they are made",
        values: [values: "what is in them, of some"]
      ]
    ],
    max_state_bytes: [
      calls: [:rehearse],
      type: :count,
      default: 33_554_432,
      doc:
        "the largest state that is copied: a process with a larger one is not tried. Default: 33,554,432 (32 MB)",
      field: [label: "Largest state that is copied, bytes"]
    ],
    progress: [
      calls: [
        :apply,
        :rollback,
        :rehearse,
        {:build,
         type: :function,
         in_person: false,
         default: nil,
         doc:
           "a function of the number of files that are compared and the number of all; called now " <>
             "and then in another process, and once more when it is done"}
      ],
      type: {:one_of, [:auto, :bar, :none]},
      default: :auto,
      in_person: true,
      doc:
        "`:bar`: a bar for each node on the caller's terminal; `:none`: nothing. Default: `:auto`, bars in iex " <>
          "for what takes longer than a second. See also `subscribe/0`"
    ],
    operation: [
      calls: @survey,
      type: {:one_of, [:apply, :rollback]},
      default: :apply,
      doc: "`:apply` (default) or `:rollback`: of which of the two to tell what it would do"
    ],
    configuration: [
      calls: @survey,
      type: {:one_of, [:evaluate, :leave]},
      default: :evaluate,
      in_person: true,
      doc:
        "of an upgrade: how its configuration is looked at. `:evaluate` (default): as its boot would, which runs the " <>
          "`runtime.exs` and the configuration providers of the archive, in a VM of its own. `:leave`: nothing of the archive is " <>
          "run, and which keys change is not known. The page has it so for a viewer"
    ],
    keep: [
      calls: [:cancel],
      type: :boolean,
      default: false,
      doc:
        "what becomes of nodes that have the patch already. `false` (default): it is rolled back there. " <>
          "`true`: they keep it, and the others do not get it",
      field: [
        label: "Nodes that have the patch by now",
        empty: "are rolled back",
        values: [true: "keep it"]
      ]
    ],
    patch: [
      calls: [
        :journal,
        {:prove, type: :path, sample: "FILE", doc: "the patch, where it has been built already"}
      ],
      type: :text,
      doc: "only entries of patches whose id begins so"
    ],
    load: [
      calls: [:prove],
      type: :path,
      sample: "LOAD.exs",
      doc:
        "a script with the load under which it is done, see `HotPatch.Proving.Load`. Default: the system's own start"
    ],
    logs: [
      calls: [:prove],
      type: :path,
      sample: "FOLDER",
      doc: "where the nodes' logs are kept. Default: `hot_patch_rehearsal`"
    ],
    last: [
      calls: [:journal],
      type: :count,
      default: 100,
      doc: "so many entries at most, the latest. Default: 100"
    ],
    release: [
      calls: [
        {:upload,
         doc:
           "`{name, version}` of the system that the patch is for, as `nodes/0` shows it. Default: what the " <>
             "manifest says, else what this node runs, or, where it runs no system, what the others run; where " <>
             "they run several it must be said. An archive that is kept already is bound anew"},
        :attach
      ],
      type: :release,
      doc: "`{name, version}` of what the node runs. Default: see `HotPatch.Release`"
    ],
    data_dir: [
      calls: [:attach],
      type: :path,
      doc:
        "where the node keeps what a rollback needs. Default: as its configuration says, else `hot_patch/` " <>
          "inside its release, else the user's data directory"
    ],
    peers: [
      calls: [:attach],
      type: :node_names,
      doc:
        "nodes that it is to ask for what it has missed. Default: those that it is connected to"
    ],
    leave_patches: [
      calls: [:detach],
      type: :boolean,
      default: false,
      doc:
        "`true`: patches that are in force there stay so, in memory and on disk, and so does the data " <>
          "directory; they cannot be rolled back until the node is attached again with that. Default: `false`"
    ],
    force: [
      calls: [:restart],
      type: :boolean,
      default: false,
      doc: "`true`: also the last node of its release that serves. Default: `false`"
    ],
    restart: [
      calls: [
        :appup,
        {:apply,
         type: {:one_of, [:none, :rolling]},
         default: :none,
         payload: :restart,
         doc:
           "of an upgrade. `:rolling`: it comes by a restart of one node after the other, also with another ERTS, OTP or " <>
             "Elixir, see below. `:none` (default): live",
         field: [
           label: "Of an upgrade: how it comes",
           empty: "live",
           values: [rolling: "by a restart of one node after the other"]
         ]},
        {:rollback,
         type: {:one_of, [:none, :rolling]},
         default: :none,
         payload: :restart,
         doc:
           "of an upgrade that came with `restart: :rolling`. `:rolling`: by a restart of one node after the other into the " <>
             "former release, see below. `:none` (default): live",
         field: [
           label: "Of an upgrade: how it goes",
           empty: "live",
           values: [rolling: "by a restart of one node after the other"]
         ]},
        {@survey,
         type: {:one_of, [:none, :rolling]},
         default: :none,
         payload: :restart,
         doc: "of an upgrade: as for `apply/2` or `rollback/2`",
         field: [
           label: "Of an upgrade: how it comes",
           empty: "live",
           values: [rolling: "by a restart of one node after the other"]
         ]},
        {:relup,
         type: :names,
         default: [],
         doc:
           "applications that are restarted, where they have no appup of their own, instead of changed in place"},
        {:build,
         type: :names,
         default: [],
         doc:
           "of an upgrade: applications that are restarted, where they have no appup of their own, instead of changed in place"}
      ],
      type: :boolean,
      default: false,
      doc:
        "restart the application instead of changing it in place; also done where the two " <>
          "builds differ in the application's callback module"
    ],
    accept: [
      calls: [:build, :prove, :appup, :relup],
      type: :findings,
      default: [],
      doc:
        "findings that are accepted: a list of `\"name\"` or `\"name:Module\"`, see " <>
          "`HotPatch.Analysis.Finding`; each must match something that is found"
    ],
    sign: [
      calls: [:build],
      type: :path,
      sample: "KEY",
      doc: "the path of a secret key, see `mix hot_patch.keygen`"
    ],
    key: [
      calls: [:sign],
      type: :path,
      sample: "KEY",
      doc: "the path of the secret key, see `mix hot_patch.keygen`"
    ],
    dry_run: [
      calls: [:build],
      type: :boolean,
      default: false,
      doc: "`true`: nothing is written"
    ],
    by: [
      calls: [
        :upload,
        :delete,
        :restart,
        :cancel,
        :dismiss,
        :attach,
        :detach,
        :apply,
        :rollback,
        :rehearse,
        :make_permanent,
        :remove_release
      ],
      type: :text,
      in_person: true,
      doc: "who does it, for the record. Default: the operating system's user"
    ],
    reason: [
      calls: [
        :delete,
        :restart,
        :cancel,
        :dismiss,
        :attach,
        :detach,
        :apply,
        :rollback,
        :rehearse,
        :make_permanent,
        :remove_release
      ],
      type: :text,
      doc: "why, for the record",
      field: [label: "Reason, for the journal", example: "ticket 4711"]
    ]
  ]

  @typedoc "An option as it is in one call: the attributes, with nil for those that are left out."
  @type option :: %{
          name: atom(),
          type: HotPatch.Options.Type.t(),
          doc: String.t(),
          default: term(),
          required: boolean(),
          alone: term(),
          manifest: boolean(),
          payload: atom() | nil,
          inherited: [:undo | :catch_up],
          in_person: boolean(),
          field: keyword(),
          sample: String.t() | nil
        }

  @nothing %{
    default: nil,
    required: false,
    manifest: false,
    payload: nil,
    inherited: [],
    in_person: false,
    field: [],
    sample: nil
  }

  # By call, from the table.
  @options (for {name, entry} <- @entries,
                calls <- entry[:calls],
                {calls, own} = if(is_tuple(calls), do: calls, else: {calls, []}),
                call <- List.wrap(calls) do
              option =
                @nothing
                |> Map.merge(Map.new(Keyword.delete(entry, :calls)))
                |> Map.merge(Map.new(own))
                |> Map.put(:name, name)

              {call, Map.put_new(option, :alone, option.default)}
            end)
           |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

  # What is no function of HotPatch itself.
  @tools [:build, :sign, :keygen, :appup, :relup, :prove]

  @doc "The functions of HotPatch that take options."
  @spec functions() :: [atom()]
  def functions, do: Map.keys(@options) -- @tools

  @doc "All calls that take options."
  @spec calls() :: [atom()]
  def calls, do: Map.keys(@options)

  @doc "The options of a call, in the order of the table; none of one that is not in it."
  @spec options(atom()) :: [option()]
  def options(call), do: Map.get(@options, call, [])
end
