defmodule HotPatch.Options do
  @moduledoc false
  # The options of every public call: what they mean, their defaults, and one validator
  # each. Documentation of the public functions is generated from the same table.

  alias HotPatch.Error

  @table [
    name: [
      check: :name,
      doc:
        "the patch's name, 1 to 64 letters, digits, `.`, `_` or `-`. " <>
          "Default: the file's name without `.zip`, or `patch` for bytes"
    ],
    nodes: [
      check: :nodes,
      doc: "list of node names to work on. Default: this node and all connected visible nodes"
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
        "milliseconds within which all processes concerned must be suspended, or all are " <>
          "resumed and nothing is loaded. Default: 2,000, less than the 5,000 that calls wait"
    ],
    transition: [
      check: :transition,
      default: :suspend,
      doc:
        "how processes come to the new code. `:suspend` (default): all stand still while their " <>
          "states are converted. `:none`: nobody is suspended, because the state's format does not " <>
          "change. `:compatible`: nobody is suspended, each converts its state in its own turn after the " <>
          "load, because the new code accepts the old state too"
    ],
    purge: [
      check: :purge,
      default: :soft,
      doc:
        "what to do with processes that still run old code of an earlier change. `:soft` (default): " <>
          "the patch is refused while there are any. `:force`: they are killed in the moment of the " <>
          "load, and the node is marked in `nodes/0`; the plan names them"
    ],
    on_load: [
      check: :on_load,
      default: :restart,
      doc:
        "what to do with modules that run code when they are loaded (`-on_load`), as NIF modules do. " <>
          "`:restart` (default): only the disk is changed, and all modules of the patch wait for the " <>
          "node's restart. `:load`: they are loaded one by one in a step of its own before the others; if " <>
          "one refuses, nothing is changed. What their code did is not undone; the plan names them"
    ],
    by: [
      check: :text,
      doc: "who does it, for the record. Default: the operating system's user"
    ]
  ]

  @calls [
    upload: [:name, :by],
    check: [:nodes, :timeout, :purge, :on_load],
    plan: [:nodes, :timeout, :purge, :on_load],
    stragglers: [:nodes, :timeout],
    apply: [:nodes, :timeout, :transition, :pause_timeout, :purge, :on_load, :by]
  ]

  @type call :: :upload | :check | :plan | :stragglers | :apply

  @doc "The options of a call as a Markdown list, for its `@doc`."
  @spec docs(call()) :: String.t()
  def docs(call) do
    Enum.map_join(@calls[call], "\n", fn option ->
      "  * `:#{option}` - #{@table[option][:doc]}"
    end)
  end

  @doc "Checks options and fills in defaults; the error names the option at fault."
  @spec validate(call(), term()) :: {:ok, map()} | {:error, Error.t()}
  def validate(call, options) do
    known = @calls[call]

    if Keyword.keyword?(options) do
      defaults = Map.new(known, &{&1, @table[&1][:default]})
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
    with :ok <- known(option in known, option, known, call),
         :ok <- check(@table[option][:check], value, option, call) do
      {:cont, {:ok, Map.put(valid, option, value)}}
    else
      error -> {:halt, error}
    end
  end

  defp known(true, _option, _known, _call), do: :ok

  defp known(false, option, known, call) do
    list = Enum.map_join(known, ", ", &inspect/1)
    wrong(call, option, "is not an option of #{call}/2; it takes #{list}")
  end

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
    if is_list(value) and value != [] and List.improper?(value) == false and
         Enum.all?(value, &is_atom/1) do
      :ok
    else
      wrong(call, option, "must be a non-empty list of node names, got: #{short(value)}")
    end
  end

  defp check(:milliseconds, value, option, call) do
    if is_integer(value) and value > 0 and value <= 3_600_000 do
      :ok
    else
      wrong(call, option, "must be 1 to 3,600,000 milliseconds, got: #{short(value)}")
    end
  end

  defp check(:transition, value, option, call) do
    if value in [:suspend, :none, :compatible],
      do: :ok,
      else: wrong(call, option, "must be :suspend, :none or :compatible, got: #{short(value)}")
  end

  defp check(:purge, value, option, call) do
    if value in [:soft, :force],
      do: :ok,
      else: wrong(call, option, "must be :soft or :force, got: #{short(value)}")
  end

  defp check(:on_load, value, option, call) do
    if value in [:restart, :load],
      do: :ok,
      else: wrong(call, option, "must be :restart or :load, got: #{short(value)}")
  end

  defp check(:text, value, option, call) do
    if is_binary(value) and String.printable?(value) and byte_size(value) in 1..200 do
      :ok
    else
      wrong(call, option, "must be 1 to 200 bytes of printable text, got: #{short(value)}")
    end
  end

  defp wrong(call, option, rule) do
    {:error,
     Error.new(:invalid_option, "#{call}: option #{inspect(option)} #{rule}", %{option: option})}
  end

  defp short(term), do: inspect(term, limit: 5, printable_limit: 80)
end
