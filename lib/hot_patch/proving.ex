defmodule HotPatch.Proving do
  @moduledoc """
  Proves a patch on a build machine: boots the release that runs, on nodes of its own, under a load, and does to them
  what will be done to the system: rehearse, apply, roll back, apply again, restart a node. With `replay: seconds`
  what the load has processes receive is also run by both versions, before anything is applied. `mix hot_patch.rehearse`
  does no more than read its options.

  The nodes are copies of the release, in folders of their own, with a cookie of their own, on the loopback
  interface. Ports that the system itself listens on are its own matter: `PORT` is another free one for each node, and
  the load may give more (`c:HotPatch.Proving.Load.environment/1`). They are ended and their folders removed afterwards,
  whatever becomes of it; their logs are kept.

    * `:outcome` - `:ok`, or `:failed`
    * `:patch` - id of the patch
    * `:nodes` - the nodes that were started
    * `:steps` - what was done, see `HotPatch.Proving.Step`. With the first that fails it ends
    * `:rehearsal` - the last `HotPatch.Rehearsal`: with `replay:` what messages have shown, of which the table has all; `nil` where
      it did not come to that
    * `:logs` - the folder with the nodes' logs
    * `:started_at`, `:duration_us` - when, and how long it took

  `IO.puts/1` prints it, `HotPatch.to_json/1` gives JSON, `junit/1` what CI systems read.
  """

  alias HotPatch.Build
  alias HotPatch.Error
  alias HotPatch.Options
  alias HotPatch.Proving.JUnit
  alias HotPatch.Proving.Load
  alias HotPatch.Proving.Nodes
  alias HotPatch.Proving.Release
  alias HotPatch.Proving.Step
  alias HotPatch.Proving.Story
  alias HotPatch.Refusal
  alias HotPatch.Rehearsal
  alias HotPatch.Support.Hex
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @typedoc "The options of `run/1`."
  @type options :: unquote(Options.spec(:prove))
  @type t :: %__MODULE__{
          outcome: :ok | :failed,
          patch: String.t() | nil,
          nodes: [node()],
          steps: [Step.t()],
          rehearsal: Rehearsal.t() | nil,
          logs: Path.t(),
          started_at: DateTime.t(),
          duration_us: non_neg_integer()
        }
  @enforce_keys [:outcome, :steps, :logs, :started_at]
  defstruct [:outcome, :patch, :steps, :rehearsal, :logs, :started_at, nodes: [], duration_us: 0]

  @doc """
  Proves a patch. The error is that it could not be begun; that the patch has failed is the outcome.

  ## Options

  #{Options.docs(:prove)}

  ## Errors

  `HotPatch.Error` with `:invalid_option`, `:file`, `:build` (what is given is no release, or no load), and those of
  `HotPatch.Build.run/1`.

  ## Examples

      iex> {:error, error} = HotPatch.Proving.run(from: "/nowhere", patch: "/nowhere/fix.zip")
      iex> error.reason
      :file
  """
  @spec run(options()) :: {:ok, t()} | {:error, Error.t() | Refusal.t()}
  def run(options) do
    started_at = DateTime.utc_now()

    with {:ok, options} <- Options.validate(:prove, options),
         {:ok, load} <- Load.read(options.load),
         {:ok, zip} <- zip(options) do
      logs = Path.expand(options.logs || "hot_patch_rehearsal")
      work = Path.join(System.tmp_dir!(), "hot_patch-rehearsal-#{System.pid()}-#{Hex.random()}")

      try do
        with {:ok, release} <- Release.unpack(options.from, Path.join(work, "release")),
             {:ok, nodes} <- Nodes.prepare(release, options.nodes, work, logs) do
          told = Story.run(nodes, load, zip, options)

          {:ok,
           %__MODULE__{
             outcome: if(Enum.all?(told.steps, &(&1.outcome == :ok)), do: :ok, else: :failed),
             patch: told.patch,
             nodes: Nodes.names(nodes),
             steps: told.steps,
             rehearsal: told.rehearsal,
             logs: logs,
             started_at: started_at,
             duration_us: DateTime.diff(DateTime.utc_now(), started_at, :microsecond)
           }}
        end
      after
        File.rm_rf(work)
      end
    end
  end

  # One that is there already, or what the two builds give.
  defp zip(%{patch: nil, to: nil}) do
    Options.wrong(:prove, :to, "or :patch is needed: the repaired build, or the patch itself")
  end

  defp zip(%{patch: nil} = options) do
    with {:ok, built} <-
           Build.run(from: options.from, to: options.to, accept: options.accept, dry_run: true),
         nil <- built.refusal do
      {:ok, built.zip}
    else
      %{__exception__: true} = refusal -> {:error, refusal}
      error -> error
    end
  end

  defp zip(%{patch: path}) do
    with {:error, posix} <- File.read(path) do
      {:error, Error.new(:file, "cannot read #{path}: #{:file.format_error(posix)}")}
    end
  end

  @doc "The text of a load script to start from, for `load:`."
  @spec load_script() :: String.t()
  defdelegate load_script(), to: Load, as: :template

  @doc "The result as JUnit's XML, one case for each step."
  @spec junit(t()) :: String.t()
  defdelegate junit(proving), to: JUnit, as: :text

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(proving) do
    rows =
      for step <- proving.steps,
          do: ["#{step.name}", "#{step.outcome}", Table.milliseconds(step.us), step.text]

    [
      "rehearsal #{Printable.line(proving.patch || "of a patch")}: #{proving.outcome}, ",
      "#{Table.milliseconds(proving.duration_us)}; logs in #{Printable.line(proving.logs)}\n",
      Table.render(["step", "outcome", "took", "what was found"], rows),
      replay(proving.rehearsal)
    ]
  end

  # What messages have shown is what a person has to judge.
  defp replay(%{replay: seconds} = rehearsal) when seconds != nil,
    do: ["\n", Rehearsal.to_table(rehearsal)]

  defp replay(_none), do: []

  defimpl Inspect do
    def inspect(proving, _options) do
      HotPatch.Support.Printable.line("#HotPatch.Proving<#{proving.patch} #{proving.outcome}>")
    end
  end

  defimpl String.Chars do
    def to_string(proving),
      do: proving |> HotPatch.Proving.to_table() |> HotPatch.Support.Printable.lines()
  end
end
