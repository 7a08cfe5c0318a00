defmodule HotPatch.Analysis do
  @moduledoc """
  What a change of modules means before anything of it is done: in which order, for whom, and
  what stands against it. `IO.puts/1` prints it, `HotPatch.to_json/1` gives JSON.

    * `:modules` - what becomes of each, see `HotPatch.Analysis.Change`
    * `:order` - groups of modules, each behind those that it calls; several in a group call each
      other in a circle
    * `:findings` - what stands out, the worst first, see `HotPatch.Analysis.Finding`
    * `:steps` - whether it is better made in two steps, see `HotPatch.Analysis.Steps`
    * `:stateless?` - whether, as far as can be seen, no state changes its form and nothing is
      converted: then `transition: :none` will do

  It goes by what is in the files of the modules, debug information left aside: it sees calls
  by name and not those made up at run time, and states as far as `init` shows them, and what that
  calls in other modules. A module that stays as it is may get another state from one that changes:
  that is found too. A build looks at all modules; a plan at those that name a module of the patch,
  and so not at a server that reaches one only through others that stay.
  """

  alias HotPatch.Analysis.Change
  alias HotPatch.Analysis.Finding
  alias HotPatch.Analysis.Steps
  alias HotPatch.Bridge
  alias HotPatch.Error
  alias HotPatch.Support.Table

  @type t :: %__MODULE__{
          modules: [Change.t()],
          order: [[String.t()]],
          findings: [Finding.t()],
          stateless?: boolean(),
          steps: Steps.t()
        }
  @enforce_keys [:modules, :order, :findings, :stateless?]
  defstruct [:modules, :order, :findings, :stateless?, steps: %Steps{}]

  # The keys of the reply, which is decoded with :safe.
  @keys ~w(modules order findings stateless name severity module items message steps true false nil)a

  # They have no file on the code path.
  @preloaded Enum.map(:erlang.pre_loaded(), &Atom.to_string/1)

  @doc """
  Compares modules before a change with those after it; both are the bytes of `.beam` files.

  `before` is the system as far as it is known: modules that stay as they are count as callers.

  ## Options

    * `:deleted` - names of modules that go, or `:rest`: all that are not in `later`. Default: none
    * `:direction` - `:up` (default), or `:down` where it is an older version that comes: then states are
      converted by the `code_change({:down, vsn}, ...)` of what runs
    * `:compiled_with` - pairs of names: a module, and another with whose macros it was compiled, as
      far as that is known. It does not show in the files; without it those are named that call a
      module whose macros change

  ## Examples

      {:ok, analysis} = HotPatch.Analysis.run(running, [new], deleted: ["Elixir.MyApp.Old"])
      IO.puts(analysis)
  """
  @spec run([binary()], [binary()], keyword()) :: {:ok, t()} | {:error, Error.t()}
  def run(before, later, options \\ []) do
    deleted = Keyword.get(options, :deleted, [])
    pairs = Keyword.get(options, :compiled_with, [])
    down? = Keyword.get(options, :direction, :up) == :down
    options = {length(before), deleted, pairs, down?}

    # Whoever decodes has all atoms of the reply: they are in the modules named here.
    _ = vocabulary()

    with {:ok, reply} <- Bridge.request("analyse", before ++ later, options, "the analysis"),
         do: {:ok, analysis(reply)}
  end

  @doc false
  # The text of the appup of an application from one version to another; `restart?`: by a restart of
  # the application where a version cannot be changed as it runs.
  @spec appup(String.t(), {String.t(), [binary()]}, {String.t(), [binary()]}, boolean()) ::
          {:ok, String.t()} | {:error, HotPatch.Error.t()}
  def appup(application, {from, before}, {to, later}, restart?) do
    options = {length(before), application, {from, to}, restart?}
    Bridge.request("appup", before ++ later, options, "the appup")
  end

  @doc """
  The findings of the worst severity that nobody has accepted; see
  `HotPatch.Analysis.Finding.accepted?/2`.

  ## Examples

      iex> HotPatch.Analysis.refused(%HotPatch.Analysis{modules: [], order: [], findings: [], stateless?: true}, [])
      []
  """
  @spec refused(t(), [String.t()]) :: [Finding.t()]
  def refused(%__MODULE__{findings: findings}, accepted) do
    for %Finding{severity: :danger} = finding <- findings,
        not Finding.accepted?(finding, accepted),
        do: finding
  end

  @doc "The groups of modules that call each other in a circle."
  @spec cycles(t()) :: [[String.t()]]
  def cycles(%__MODULE__{order: order}), do: Enum.filter(order, &match?([_, _ | _], &1))

  @doc false
  @spec vocabulary() :: [atom()]
  def vocabulary do
    @keys ++
      Change.vocabulary() ++
      Steps.vocabulary() ++ Finding.severities() ++ Enum.map(Finding.table(), &elem(&1, 0))
  end

  @doc false
  @spec decode(binary()) :: t()
  def decode(reply) do
    # Whoever decodes has all atoms of the reply: they are in the modules named here.
    _ = vocabulary()
    reply |> :erlang.binary_to_term([:safe]) |> analysis()
  end

  defp analysis(read) do
    %__MODULE__{
      modules: Enum.map(read.modules, &Change.new/1),
      order: read.order,
      findings: for(read <- read.findings, not about_known?(read), do: struct!(Finding, read)),
      stateless?: read.stateless,
      steps: struct!(Steps, read.steps)
    }
  end

  # The files know nothing of OTP and Elixir; this node does.
  defp about_known?(%{name: :unknown_module_called, items: [name]}), do: known?(name)
  defp about_known?(_finding), do: false

  @doc false
  # Whether this node has a module, running or in a file. No atom is made to ask.
  @spec known?(String.t()) :: boolean()
  def known?(name) do
    :code.where_is_file(String.to_charlist(name <> ".beam")) != :non_existing or
      name in @preloaded
  end

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(analysis) do
    [
      "#{Table.count(length(analysis.modules), "module", "modules")} change, ",
      "#{Table.count(length(analysis.findings), "finding", "findings")}\n",
      Table.render(
        ["module", "roles", "pause", "functions"],
        Enum.map(ordered(analysis), &row/1)
      ),
      findings(analysis.findings)
    ]
  end

  defp findings([]), do: []

  defp findings(findings) do
    ["\n", Table.render(["severity", "what was found"], Enum.map(findings, &finding/1))]
  end

  defp finding(finding), do: ["#{finding.severity}", "#{finding.name}: #{finding.message}"]

  defp ordered(analysis) do
    for group <- analysis.order,
        name <- group,
        change <- analysis.modules,
        change.module == name,
        do: change
  end

  defp row(change) do
    sign = Map.fetch!(%{add: "+", delete: "-", replace: ""}, change.operation)
    name = String.replace_prefix(change.module, "Elixir.", "")
    [sign <> name, Enum.join(change.roles, ", "), "#{change.pause}", functions(change)]
  end

  defp functions(%{functions: nil}), do: "not compared"
  defp functions(%{operation: :add}), do: "new"
  defp functions(%{operation: :delete}), do: "gone"

  defp functions(%{functions: functions}) do
    Enum.join(
      functions.changed ++
        Enum.map(functions.added, &("+" <> &1)) ++ Enum.map(functions.removed, &("-" <> &1)),
      ", "
    )
  end

  defimpl Inspect do
    def inspect(analysis, _options) do
      "#HotPatch.Analysis<#{length(analysis.modules)} modules, #{length(analysis.findings)} findings>"
    end
  end

  defimpl String.Chars do
    def to_string(analysis),
      do: analysis |> HotPatch.Analysis.to_table() |> HotPatch.Support.Printable.lines()
  end
end
