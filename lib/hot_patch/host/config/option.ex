defmodule HotPatch.Host.Config.Option do
  @moduledoc false
  # The options of `config :hot_patch`: the default of each, the rule for its values, and its
  # documentation, in one table.

  alias HotPatch.Host.Keys
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Suggestion

  # Archives, frames and counts of the reader have 32 bits.
  @largest_limit 0xFFFF_FFFF
  # The longest that a timer of the VM is sure to take, in milliseconds.
  @longest 0xFFFF_FFFF
  # With less memory, threads of the program may not start.
  @least_memory 32 * 1024 * 1024
  @most_memory 0xFFFF_FFFF_FFFF_FFFF

  @table [
    data_dir: [
      rule: :path,
      default: nil,
      doc:
        "where a node keeps archives, journal, and what a rollback needs. Default: `hot_patch/` inside " <>
          "the release, else the user's data directory"
    ],
    peers: [
      rule: :nodes,
      default: [],
      doc:
        "nodes to ask, when this one starts, for what it has missed; others are asked when they connect"
    ],
    release: [
      rule: :release,
      default: nil,
      doc: "`{name, version}`: what patches are bound to. Default: see `HotPatch.Release`"
    ],
    roles: [
      rule: :atoms,
      default: [],
      doc: "what this node is for, as `nodes: {:role, role}` chooses it"
    ],
    hooks: [rule: :atoms, default: [], doc: "modules with the behaviour `HotPatch.Hook`"],
    live_view: [
      rule: {:one_of, [true, false]},
      default: true,
      doc:
        "whether connected LiveViews render again and endpoints read their static manifest again, see " <>
          "`HotPatch.LiveView`. Default: `true`"
    ],
    wrappers: [
      rule: :wrappers,
      default: [],
      doc: "`[{module, path}]`: where processes of a library keep the user's callback module"
    ],
    health: [
      rule: :mfa,
      default: nil,
      doc: "`{module, function, args}` that gives `:ok` where all is well, see `HotPatch.Watch`"
    ],
    comes_back: [
      rule: {:one_of, [true, false]},
      default: nil,
      doc:
        "whether something starts this system again, with the same disk, when its VM ends by itself: asked by " <>
          "`restart: :rolling`. Default: as heart or systemd say; `true` where something else does"
    ],
    drain_timeout: [
      rule: {:number, @longest},
      default: 30_000,
      doc:
        "milliseconds that `before_restart/1` of the hooks may take before a node is restarted into another release. " <>
          "Default: 30,000"
    ],
    journal_entries: [
      rule: {:number, @largest_limit},
      default: 10_000,
      doc:
        "how many entries the journal keeps; older ones are dropped at a start. Default: 10,000"
    ],
    kept_releases: [
      rule: {:number, 2, @largest_limit},
      default: nil,
      doc:
        "how many releases stay on disk beside each other, at least 2: when another has been made permanent, the oldest " <>
          "of those that are more go, never what runs, what the next start boots, where a rollback leads, nor the last two. " <>
          "Default: all stay"
    ],
    max_kept_bytes: [
      rule: {:number, @most_memory},
      default: 500 * 1024 * 1024,
      doc: "bytes of archives that a node keeps. Default: 500 MB"
    ],
    max_archive_bytes: [
      rule: {:number, @largest_limit},
      default: 10 * 1024 * 1024,
      doc: "how large an archive may be that is no upgrade. Default: 10 MB"
    ],
    max_release_bytes: [
      rule: {:number, @largest_limit},
      default: 100 * 1024 * 1024,
      doc:
        "how large an upgrade may be, or the tarball of a release that is uploaded; that may unpack to five times as much. " <>
          "Default: 100 MB"
    ],
    max_entries: [
      rule: {:number, @largest_limit},
      default: 10_000,
      doc: "how many files it may have. Default: 10,000"
    ],
    max_unpacked_bytes: [
      rule: {:number, @largest_limit},
      default: 100 * 1024 * 1024,
      doc: "how many bytes when unpacked. Default: 100 MB"
    ],
    max_name_bytes: [
      rule: {:number, @largest_limit},
      default: 1024,
      doc: "how long the name of a file may be. Default: 1,024"
    ],
    max_module_atoms: [
      rule: {:number, @largest_limit},
      default: 65_536,
      doc: "how many atoms a module may bring, in its table and its literals. Default: 65,536"
    ],
    max_atoms: [
      rule: {:number, @largest_limit},
      default: 200_000,
      doc: "how many atoms all modules of an archive may bring. Default: 200,000"
    ],
    max_module_functions: [
      rule: {:number, @largest_limit},
      default: 65_536,
      doc: "how many functions a module may have or call. Default: 65,536"
    ],
    max_functions: [
      rule: {:number, @largest_limit},
      default: 200_000,
      doc: "the same of all modules of an archive. Default: 200,000"
    ],
    max_literal_words: [
      rule: {:number, @largest_limit},
      default: 16 * 1024 * 1024,
      doc: "how many words of memory the literals of a module may take. Default: 16 million"
    ],
    max_literal_depth: [
      rule: {:number, @largest_limit},
      default: 1_000,
      doc: "how deep a literal may be nested. Default: 1,000"
    ],
    max_added_literals: [
      rule: {:number, @largest_limit},
      default: 10_000,
      doc:
        "how many names, numbers and keys of a module the loader may have to compare with each other. " <>
          "Default: 10,000"
    ],
    max_module_memory: [
      rule: {:number, @largest_limit},
      default: 256 * 1024 * 1024,
      doc: "bytes of memory that a module may take when it is loaded. Default: 256 MB"
    ],
    max_memory: [
      rule: {:number, @largest_limit},
      default: 512 * 1024 * 1024,
      doc: "the same of all modules of an archive. Default: 512 MB"
    ],
    require_manifest: [
      rule: :demand,
      default: false,
      doc: "`true`: only patches with a manifest are taken. Default: `false`"
    ],
    require_signature: [
      rule: :demand,
      default: false,
      doc: "`true`: only patches signed by one of `:trusted_keys` are taken. Default: `false`"
    ],
    trusted_keys: [
      rule: :keys,
      default: [],
      doc:
        "public keys, each a line as in a `.pub` file, its Base64 alone, or the path of such a file"
    ],
    bridge: [
      rule: {:one_of, [:port, :nif]},
      default: :port,
      doc: "the reader of archives: `:port`, a program beside the VM, or `:nif`. Default: `:port`"
    ],
    port_timeout: [
      rule: {:number, @longest},
      default: 60_000,
      doc: "milliseconds that the program may take for a request. Default: 60,000"
    ],
    port_memory: [
      rule: :memory,
      default: nil,
      doc:
        "bytes of memory that the program may take, or `:infinity`. Default: what the limits add up to"
    ],
    loader_vm: [
      rule: {:one_of, [:on, :off]},
      default: :on,
      doc:
        "whether modules are tried in a VM of their own before this node loads them: a damaged one " <>
          "ends the VM that loads it. `:off` takes them as they are. Default: `:on`"
    ],
    console: [rule: :any, default: nil, doc: "the page, see `HotPatch.Console`. Default: none"]
  ]

  @doc "Every option with its default."
  @spec defaults() :: keyword()
  def defaults, do: for({option, row} <- @table, do: {option, row[:default]})

  @doc "The options as a Markdown list."
  @spec docs() :: String.t()
  def docs,
    do: Enum.map_join(@table, "\n", fn {option, row} -> "  * `:#{option}` - #{row[:doc]}" end)

  @doc "A value as it counts; where it is wrong, the value that counts in its place, and why."
  @spec read(atom(), term()) ::
          {:ok, term()} | {:wrong, term(), String.t()} | {:unknown, String.t()}
  def read(option, value) do
    case @table[option] do
      nil ->
        {:unknown, "config :hot_patch, #{option}: is no option of HotPatch#{nearest(option)}"}

      row ->
        judge(option, row, value)
    end
  end

  # As if it were not there.
  defp judge(_option, row, nil), do: {:ok, row[:default]}

  defp judge(option, row, value) do
    case check(row[:rule], value) do
      {:ok, value} ->
        {:ok, value}

      {:error, rule} ->
        {:wrong, row[:default],
         "config :hot_patch, #{option}: #{rule}, got: #{short(value)}; #{counts(row[:default])}"}

      {:strict, rule} ->
        {:wrong, true, "config :hot_patch, #{option}: #{rule}, got: #{short(value)}; true counts"}

      # What it says is in the text.
      {:bad_keys, rule} ->
        {:wrong, row[:default], "config :hot_patch, #{option}: #{rule}; no key is trusted"}
    end
  end

  defp counts([]), do: "none counts"
  defp counts(nil), do: "the default counts"
  defp counts(default), do: "the default #{inspect(default)} counts"

  defp check(:any, value), do: {:ok, value}

  defp check(:path, value) do
    with {:ok, path} <- text(value),
         false <- String.contains?(path, <<0>>) do
      expand(path)
    else
      _ -> {:error, "must be a path"}
    end
  end

  defp check(:nodes, value) do
    if list?(value) and Enum.all?(value, &node?/1),
      do: {:ok, value},
      else: {:error, "must be a list of names of nodes, such as [:\"a@10.0.0.1\"]"}
  end

  defp check(:release, {name, version}) do
    with {:ok, name} <- text(name),
         {:ok, version} <- text(version),
         true <- line?(name <> version) do
      {:ok, {name, version}}
    else
      _ -> check(:release, :wrong)
    end
  end

  defp check(:release, _value), do: {:error, "must be {\"name\", \"version\"}"}

  defp check(:atoms, value) do
    if list?(value) and Enum.all?(value, &(is_atom(&1) and &1 not in [nil, true, false])),
      do: {:ok, value},
      else: {:error, "must be a list of atoms"}
  end

  defp check(:wrappers, value) do
    if list?(value) and Enum.all?(value, &wrapper?/1),
      do: {:ok, value},
      else: {:error, "must be a list of {Module, [:path, :to_it]}"}
  end

  defp check(:mfa, {m, f, args} = value) when is_atom(m) and is_atom(f) do
    if list?(args), do: {:ok, value}, else: check(:mfa, :wrong)
  end

  defp check(:mfa, _value), do: {:error, "must be {module, function, args}"}

  defp check({:number, most}, value), do: check({:number, 1, most}, value)

  defp check({:number, least, most}, value) do
    if is_integer(value) and value in least..most,
      do: {:ok, value},
      else: {:error, "must be a number from #{least} to #{most}"}
  end

  defp check(:memory, value) do
    if value == :infinity or (is_integer(value) and value in @least_memory..@most_memory),
      do: {:ok, value},
      else: {:error, "must be :infinity or bytes, at least #{@least_memory}"}
  end

  # Nobody who mistypes it may find the gate open.
  defp check(:demand, value) when is_boolean(value), do: {:ok, value}
  defp check(:demand, _value), do: {:strict, "must be true or false"}

  defp check(:keys, value) do
    with {:error, error} <- Keys.read_trusted(value), do: {:bad_keys, Exception.message(error)}
  end

  defp check({:one_of, allowed}, value) do
    if value in allowed,
      do: {:ok, value},
      else: {:error, "must be #{Enum.map_join(allowed, " or ", &inspect/1)}"}
  end

  # Absolute, so that it stays where it is when the VM changes its own folder.
  defp expand(path) do
    {:ok, Path.expand(path)}
  rescue
    # A relative path, or one that begins with ~, where there is no current folder or no home.
    error -> {:error, "is no path here (#{Exception.message(error)})"}
  end

  defp text(value) when is_binary(value) and value != "", do: {:ok, value}

  defp text([_ | _] = value) do
    if list?(value) and Enum.all?(value, &(is_integer(&1) and &1 in 1..0x10FFFF)),
      do: {:ok, FileName.to_binary(value)},
      else: :error
  end

  defp text(_value), do: :error

  # As it is shown in tables and logs: no control characters, which some count as printable.
  defp line?(text), do: String.printable?(text) and not (text =~ ~r/[[:cntrl:]]/u)

  defp node?(value) do
    is_atom(value) and match?([name, host] when name != "" and host != "", parts(value))
  end

  defp parts(atom), do: atom |> Atom.to_string() |> String.split("@")

  defp wrapper?({module, path}), do: is_atom(module) and list?(path)
  defp wrapper?(_other), do: false

  defp list?(value), do: is_list(value) and not List.improper?(value)

  defp nearest(option) do
    known = Enum.map(Keyword.keys(@table), &Atom.to_string/1)
    Suggestion.question(Atom.to_string(option), known)
  end

  defp short(term), do: inspect(term, limit: 5, printable_limit: 80)
end
