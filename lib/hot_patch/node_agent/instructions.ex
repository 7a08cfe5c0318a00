defmodule HotPatch.NodeAgent.Instructions do
  @moduledoc false
  # What the instructions of a manifest mean on this node: which of them are for it, what they
  # change about its modules, what is done before the pause and what after the resume, and what
  # of that cannot be undone. HotPatch.NodeAgent.InstructionRunner carries them out.
  #
  # They are those of an .appup file. A patch becomes current in one step, so their order counts
  # only for what is done beside modules; module dependencies and types mean nothing here, nor
  # does the timeout of an update: all stand still within `pause_timeout`.

  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Store
  alias HotPatch.Support.TermText
  alias HotPatch.Swap
  alias HotPatch.Upgrade

  @typedoc """
  One instruction: its name, all of it as text, and whose module or application it is. `term` is
  what `code_change` is given, or a call's list of arguments; as text, of which no atom is made
  before the patch is accepted.
  """
  @type one :: %{
          what: atom(),
          text: String.t(),
          subject: String.t(),
          module: boolean(),
          how: atom(),
          function: String.t() | nil,
          arity: non_neg_integer(),
          term: String.t() | nil,
          brutal: boolean(),
          time: String.t() | nil
        }

  @typedoc """
  `steps` are carried out now, `down` by the rollback. `ran`: applications that ran before a patch
  which is now taken back, and how: they run again after it. `left`: patches whose place is
  taken, and whose own `down` nobody carries out.
  """
  @type t :: %__MODULE__{
          kind: :apply | :rollback,
          purge: :soft | :force,
          steps: [one()],
          down: [one()],
          ran: [{atom(), atom()}],
          left: [String.t()]
        }
  defstruct kind: :apply, purge: :soft, steps: [], down: [], ran: [], left: []

  @doc "Those of a patch that has none."
  @spec none() :: %{up: [], down: []}
  def none, do: %{up: [], down: []}

  @doc "Those for this node; or why one of them is impossible here."
  @spec here(Payload.t(), [HotPatch.NodeAgent.Verdict.t()]) :: {:ok, t()} | {:error, String.t()}
  def here(payload, verdicts) do
    # Code that waits for a restart is not yet there to be started or called.
    concerned? =
      Enum.any?(verdicts, & &1.target) and
        not Enum.any?(verdicts, &(&1.status == :not_updated))

    mine = if concerned?, do: find(payload), else: %__MODULE__{}
    mine = %{mine | kind: payload.kind, purge: payload.purge}

    case mine.kind == :apply && Enum.find_value(mine.steps, &impossible(&1, payload)) do
      text when is_binary(text) -> {:error, text}
      _ -> {:ok, mine}
    end
  end

  defp find(%{kind: :rollback, patch: patch}) do
    case Store.Applied.find(patch) do
      nil -> %__MODULE__{}
      record -> %__MODULE__{steps: record.down, ran: record.stopped}
    end
  end

  # Applied once more, what was done beside its modules is not done again.
  defp find(%{patch: patch} = payload) do
    %{up: up, down: down} = payload.instructions

    case Store.Applied.find(patch) do
      nil -> own(%__MODULE__{steps: up, down: down, left: left(payload)}, payload)
      record -> %__MODULE__{steps: Enum.filter(up, & &1.module), down: record.down}
    end
  end

  # What a release has more or less than the one before starts and stops, and its supervisors have the children that they
  # would have after a boot, where no instruction says otherwise.
  defp own(mine, payload) do
    case Upgrade.of(payload) do
      nil -> mine
      upgrade -> with_release(mine, upgrade, supervising(payload.entries))
    end
  end

  defp with_release(mine, upgrade, supervisors) do
    added =
      for %{from: nil, type: type} = one when type != :none <- upgrade.applications,
          do: {one.name, type}

    gone = for %{to: nil} = one <- upgrade.applications, do: {one.name, :later}
    up = new(added, :add_application, mine.steps) ++ new(gone, :remove_application, mine.steps)

    down =
      for({name, _type} <- Enum.reverse(added), do: {name, :later})
      |> new(:remove_application, mine.down)

    %{
      mine
      | steps: children(supervisors, mine.steps) ++ up,
        down: children(supervisors, mine.down) ++ down
    }
  end

  defp supervising(entries) do
    for %{beam: %{module: name, behaviours: behaviours}} <- entries,
        Enum.any?(behaviours, &(&1 in ["supervisor", "Elixir.Supervisor"])),
        do: name
  end

  # A supervisor that only takes over the specs would leave the children to nobody.
  defp children(modules, steps) do
    steps =
      Enum.map(steps, fn
        %{what: :update, how: :supervisor} = one -> %{one | how: :children}
        other -> other
      end)

    steps ++
      for name <- modules,
          not Enum.any?(steps, &(&1.module and &1.subject == name)),
          do: %{step(:update, name, :children) | module: true}
  end

  defp new(applications, what, others) do
    for {name, how} <- applications,
        not Enum.any?(others, &(not &1.module and &1.subject == name)),
        do: step(what, name, how)
  end

  defp step(what, subject, how) do
    %{
      what: what,
      text: "{#{what},#{subject}}",
      subject: subject,
      module: false,
      how: how,
      function: nil,
      arity: 0,
      term: nil,
      brutal: false,
      time: nil
    }
  end

  @doc """
  The applications that run after the change and did not before, with how they are started: those that an upgrade
  brings, and those that it had stopped and that come back.
  """
  @spec coming(t()) :: [{String.t(), atom()}]
  def coming(%__MODULE__{} = mine) do
    added =
      for %{what: :add_application, how: how, subject: name} <- mine.steps,
          how in [:permanent, :transient, :temporary],
          do: {name, how}

    back =
      for {application, type} <- mine.ran,
          name = Atom.to_string(application),
          not Enum.any?(mine.steps, &(not &1.module and &1.subject == name)),
          do: {name, type}

    added ++ back
  end

  @doc "The applications that are stopped before the pause, by name."
  @spec stopping(Payload.t()) :: [String.t()]
  def stopping(payload) do
    for %{what: what, subject: name} <- find(payload).steps,
        what in [:remove_application, :restart_application],
        do: name
  end

  @doc """
  The modules of supervisors whose children follow the new init. None of a name that this VM does not
  know: such a module has no supervisors.
  """
  @spec supervisors(Payload.t() | t()) :: [module()]
  def supervisors(%__MODULE__{steps: steps}) do
    for name <- children_of(steps),
        {:ok, module} <- [LoadedCode.module(name)],
        do: module
  end

  def supervisors(payload), do: payload |> find() |> supervisors()

  @doc "The same as names, also of modules that only other nodes know."
  @spec following(Payload.t()) :: [String.t()]
  def following(payload), do: children_of(find(payload).steps)

  defp children_of(steps), do: for(%{how: :children, subject: name} <- steps, do: name)

  defp left(%{cumulative?: false}), do: []

  defp left(_payload),
    do: for(%{id: id, down: [_ | _]} <- Store.Applied.list(), do: id)

  defp impossible(%{what: :add_application} = one, payload) do
    if not on_path?(one.subject <> ".app") and not brings?(payload, one.subject),
      do: "#{one.text}: this node has no #{one.subject}.app on its code path"
  end

  defp impossible(%{what: :apply} = one, payload) do
    brought = for %{beam: %{module: name}} <- payload.entries, do: name

    if one.subject not in brought and not on_path?(one.subject <> ".beam") and
         not runs?(one.subject),
       do: "#{one.text}: this node has no module #{one.subject}"
  end

  defp impossible(_other, _payload), do: nil

  defp brings?(payload, name) do
    upgrade = Upgrade.of(payload)
    upgrade != nil and Enum.any?(upgrade.applications, &(&1.name == name and &1.to != nil))
  end

  defp runs?(name) do
    case LoadedCode.module(name) do
      {:ok, module} -> :erlang.module_loaded(module)
      :unknown -> false
    end
  end

  defp on_path?(file), do: :code.where_is_file(String.to_charlist(file)) != :non_existing

  @doc """
  A change as the instruction for its module has it; as it is where there is none. What
  `code_change` is given comes only with `extra/2`: a plan needs no atoms of it.
  """
  @spec adjust(Swap.Change.t(), t()) :: Swap.Change.t()
  def adjust(change, mine) do
    case of_module(change, mine) do
      %{how: :soft} -> %{change | convert?: false}
      _ -> change
    end
  end

  @doc "A change with what the instruction for its module has for `code_change`."
  @spec extra(Swap.Change.t(), t()) :: Swap.Change.t()
  def extra(change, mine) do
    case of_module(change, mine) do
      %{how: :advanced, term: text} -> %{change | extra: term!(text)}
      _ -> change
    end
  end

  @doc "Whether an instruction wants the states of a module's processes converted."
  @spec converts?(Swap.Change.t(), t()) :: boolean()
  def converts?(change, mine), do: match?(%{how: :advanced}, of_module(change, mine))

  defp of_module(change, %__MODULE__{steps: steps}) do
    name = Atom.to_string(change.module)
    Enum.find(steps, &(&1.subject == name and &1.what in [:update, :load_module]))
  end

  @doc "A term whose text was written by the reader of archives."
  @spec term!(String.t()) :: term()
  def term!(text) do
    {:ok, term} = TermText.parse(text)
    term
  end

  @doc """
  What is done before the pause, and what after the resume, each in order. A call is for before
  only where it stands before the first instruction for a module.
  """
  @spec split(t()) :: {before :: [one()], later :: [one()]}
  def split(%__MODULE__{steps: steps}) do
    early =
      if Enum.any?(steps, & &1.module), do: Enum.take_while(steps, &(not &1.module)), else: []

    {calls, _others} = Enum.split_with(early, &(&1.what == :apply))

    stops =
      for %{what: what} = one <- steps,
          (what in [:remove_application, :restart_application] and one.how != :later) or
            (what == :apply and one in calls) or one.how == :children,
          do: one

    {stops, Enum.reject(steps, &(&1.what == :apply and &1 in calls))}
  end

  @doc "Whether anything is called or started beside the modules: it may make tables, and take names."
  @spec start?(t()) :: boolean()
  def start?(%__MODULE__{steps: steps}) do
    Enum.any?(steps, fn one ->
      one.how == :children or one.what in [:apply, :add_application, :restart_application]
    end)
  end

  @doc "Those that a start of the node has to follow: its boot script does not know of them."
  @spec applications(t()) :: [one()]
  def applications(%__MODULE__{kind: :rollback}), do: []

  def applications(%__MODULE__{steps: steps}),
    do: Enum.filter(steps, &(&1.what in [:add_application, :remove_application]))

  @doc "What will be done beside the modules, in lines for people."
  @spec lines(t()) :: [String.t()]
  def lines(%__MODULE__{} = mine) do
    {before, later} = split(mine)

    Enum.concat([
      for(one <- before, text = before_line(one), do: "before the pause: #{text}"),
      for(one <- mine.steps, text = module_line(one), do: text),
      for(one <- later, text = later_line(one), do: "after the resume: #{text}")
    ])
  end

  defp before_line(%{what: :apply} = one), do: "calls #{call(one)}"

  defp before_line(%{what: what} = one)
       when what in [:remove_application, :restart_application],
       do: "stops the application #{one.subject}, if it runs"

  defp before_line(_one), do: nil

  defp module_line(%{what: what, how: :soft} = one) when what in [:update, :load_module],
    do: "#{name(one)}: states are not converted" <> waits(one)

  defp module_line(%{how: :advanced} = one),
    do: "#{name(one)}: code_change is given #{one.term}" <> waits(one)

  defp module_line(_one), do: nil

  defp waits(%{time: nil}), do: ""
  defp waits(one), do: " (its timeout, #{one.time}, does not count: pause_timeout does)"

  defp later_line(%{what: :apply} = one), do: "calls #{call(one)}"

  defp later_line(%{what: :add_application, how: how} = one) when how in [:load, :none],
    do: "loads the application #{one.subject} (#{how})"

  defp later_line(%{what: :add_application} = one),
    do: "starts the application #{one.subject} (#{one.how})"

  defp later_line(%{what: :remove_application, how: :later} = one),
    do:
      "stops the application #{one.subject}, which nobody needs any more, and takes its modules out"

  defp later_line(%{what: :remove_application} = one),
    do: "unloads the application #{one.subject}"

  defp later_line(%{what: :restart_application} = one),
    do: "starts the application #{one.subject} again, if it ran"

  defp later_line(%{how: :children} = one),
    do:
      "the supervisors of #{name(one)} start their new children and stop those that are gone; one whose " <>
        "module goes, too, is stopped before the pause"

  defp later_line(_one), do: nil

  @doc "What of it cannot be undone, for the risks of a plan."
  @spec risks(t()) :: [String.t()]
  def risks(%__MODULE__{steps: steps, down: down, kind: kind, purge: purge} = mine) do
    {before, _later} = split(mine)

    Enum.concat([
      for(
        %{what: :apply} = one <- steps,
        kind == :apply,
        not Enum.any?(down, &(&1.what == :apply and &1.subject == one.subject)),
        do:
          "cannot be undone: the call of #{call(one)}; the way back calls nothing of #{name(one)}"
      ),
      for(
        %{what: :apply} = one <- before,
        do: "#{call(one)} is called before the pause: also where the change is then taken back"
      ),
      for(
        %{what: what} = one <- steps,
        what in [:remove_application, :restart_application],
        do: "cannot be undone: what the processes of #{one.subject} know is lost when it stops"
      ),
      for(
        %{what: :add_application} = one <- steps,
        kind == :apply,
        not Enum.any?(down, &(&1.what == :remove_application and &1.subject == one.subject)),
        do: "cannot be undone: #{one.subject} stays when the patch is taken back"
      ),
      for(
        id <- mine.left,
        do:
          "what #{id} has done beside its modules stays: a patch that takes its place carries " <>
            "out its own instructions alone"
      ),
      purged(for(%{brutal: true} = one <- steps, do: name(one)), purge)
    ])
  end

  defp purged([], _purge), do: []

  defp purged(names, :soft) do
    [
      "the brutal purge of #{Enum.join(names, ", ")} is a soft one: nobody is killed without purge: :force"
    ]
  end

  defp purged(names, :force) do
    ["cannot be undone: the brutal purge of #{Enum.join(names, ", ")} kills who runs old code"]
  end

  defp call(one), do: "#{name(one)}:#{one.function}/#{one.arity} with #{shown(one.term)}"

  defp shown(text),
    do: if(String.length(text) > 200, do: String.slice(text, 0, 200) <> "...", else: text)

  # Whose it is, for people.
  @spec name(one()) :: String.t()
  defp name(one), do: String.replace_prefix(one.subject, "Elixir.", "")
end
