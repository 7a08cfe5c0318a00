defmodule HotPatch.Command do
  @moduledoc false
  # The functions of HotPatch as commands of a terminal. What a command is about stands here; its
  # options come from the table of options, so that an option is there as soon as a function has
  # it. Names of nodes and the like become atoms: this is for a VM that lives for one call, of
  # the operator who wrote them.

  alias HotPatch.Options
  alias HotPatch.Options.CommandLine
  alias HotPatch.Support.Suggestion

  @typedoc "What a command is about: an archive on this machine, a patch, a node, or nothing."
  @type subject :: :file | :patch | :node | :release | nil

  @typedoc "A call of a function of HotPatch. Of `upload` the first argument is a path."
  @type call :: %{function: atom(), subject: subject(), arguments: [term()]}

  @commands [
    upload: {:file, "takes an archive in; prints the patch with its id"},
    list: {nil, "all patches"},
    composition: {:patch, "what is in a patch"},
    check: {:patch, "what applying would give, by file and node; changes nothing"},
    plan: {:patch, "load order, who will pause, risks; changes nothing"},
    rehearse: {:patch, "tries an apply on what runs now, with nobody paused"},
    apply: {:patch, "makes a patch current on all nodes"},
    rollback: {:patch, "takes it back"},
    export_antipatch: {:patch, "what it has replaced, as a zip in the file that `--to` names"},
    cancel: {:patch, "stops what is under way, and takes back what was done of it"},
    delete: {:patch, "forgets its archive"},
    nodes: {nil, "all nodes: release, patches, whether a restart is needed"},
    journal: {nil, "who did what, when, and how it ended"},
    drift: {nil, "code that differs from its file, or between the nodes"},
    stragglers: {nil, "who still runs old code"},
    releases: {nil, "which releases lie on each node, which runs, which a restart boots"},
    make_permanent: {:release, "has the next start boot the release that runs"},
    remove_release: {:release, "removes the folders of a release that is needed no more"},
    progress: {nil, "how far what is under way has come"},
    restart: {:node, "restarts a node and waits for it"},
    dismiss: {:node, "a node has left the system for good"},
    attach: {:node, "brings HotPatch to a node that does not have it"},
    detach: {:node, "takes it away again"}
  ]

  # Functions that mean something only within a VM, or to another command.
  @left_out [:subscribe, :unsubscribe, :to_json, :build_digests, :build_files]

  # Beside those of the functions.
  @own [cookie: :string, json: :boolean]

  @doc "All functions that are commands."
  @spec functions() :: [atom()]
  def functions, do: Keyword.keys(@commands)

  @doc "Functions that are no commands, because they mean nothing outside the VM."
  @spec left_out() :: [atom()]
  def left_out, do: @left_out

  @doc "The commands as a Markdown table."
  @spec docs() :: String.t()
  def docs do
    rows =
      for {function, {subject, text}} <- @commands,
          do: "| `#{Enum.join([name(function) | argument(subject)], " ")}` | #{text} |"

    Enum.join(["| command | what it does |", "|---|---|" | rows], "\n")
  end

  defp argument(nil), do: []
  defp argument(subject), do: [subject |> Atom.to_string() |> String.upcase()]

  @doc "The switches of all commands as a Markdown list, beside those of the task itself."
  @spec docs_of_switches() :: String.t()
  def docs_of_switches, do: CommandLine.docs(functions())

  @doc "The switches of all commands, for `OptionParser`."
  @spec switches() :: keyword()
  def switches do
    functions() |> Enum.flat_map(&CommandLine.switches/1) |> Enum.uniq() |> Keyword.merge(@own)
  end

  @doc "The call that a command line asks for; `given` are its options as they were parsed."
  @spec parse(String.t(), [String.t()], keyword()) :: {:ok, call()} | {:error, String.t()}
  def parse(command, arguments, given) do
    with {:ok, function} <- function(command),
         {subject, _text} = @commands[function],
         {:ok, arguments} <- subject(subject, arguments, command),
         {:ok, options} <- options(function, given) do
      arguments = if Options.rules(function) == [], do: arguments, else: arguments ++ [options]
      {:ok, %{function: function, subject: subject, arguments: arguments}}
    end
  end

  @doc "What a command is called."
  @spec name(atom()) :: String.t()
  defdelegate name(function), to: CommandLine

  defp function(command) do
    names = Enum.map(functions(), &name/1)

    case Enum.find(functions(), &(name(&1) == command)) do
      nil ->
        question = Suggestion.question(command, names)
        {:error, "there is no command #{command}#{question}; there are #{Enum.join(names, ", ")}"}

      function ->
        {:ok, function}
    end
  end

  defp subject(nil, [], _command), do: {:ok, []}
  defp subject(:node, [name], _command), do: {:ok, [String.to_atom(name)]}
  defp subject(subject, [text], _command) when subject != nil, do: {:ok, [text]}

  defp subject(subject, arguments, command) do
    wanted = Enum.join([command | argument(subject)], " ")
    {:error, "#{Enum.join([command | arguments], " ")} is not understood: it is #{wanted}"}
  end

  defp options(function, given) do
    with {:unknown, option} <-
           CommandLine.read(function, Keyword.drop(given, Keyword.keys(@own))),
         do: {:error, unknown(option, function)}
  end

  defp unknown(option, function) do
    switches = for {name, _type} <- Options.rules(function), do: "--" <> name(name)
    list = if switches == [], do: "none", else: Enum.join(switches, ", ")
    "--#{name(option)} is no option of #{name(function)}, which takes #{list}"
  end
end
