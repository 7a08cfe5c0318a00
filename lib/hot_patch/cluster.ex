defmodule HotPatch.Cluster do
  @moduledoc false
  # The only place that knows other nodes: who there is, and asking agents in parallel.

  alias HotPatch.Answers
  alias HotPatch.Cluster.Census
  alias HotPatch.Cluster.Members
  alias HotPatch.Error
  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.History
  alias HotPatch.NodeInfo
  alias HotPatch.Support.Cause
  alias HotPatch.Support.Table

  @type answer :: {:ok, term()} | {:error, String.t()}

  # How long a node may take to say who it is.
  @hello_within 5_000
  @shell_within 1_000

  # Milliseconds after which one who may be told to stop looks whether he was.
  @look_every 100

  @typedoc "Which nodes: by name, by a rule, or nil for all."
  @type selection :: [node()] | {:role, atom()} | (NodeInfo.t() -> as_boolean(term())) | nil

  @doc """
  Asks every node who it is and what it knows of patches, once for all that a call has to know. It is
  every connected node of the system, and those that were named.
  """
  @spec census(selection(), History.wanted()) :: Census.t()
  def census(selection, wanted) do
    connected = everyone()
    named = if is_list(selection), do: selection, else: []
    census(connected ++ named, connected, wanted)
  end

  defp census(nodes, connected, wanted) do
    answers = who(nodes, wanted)
    patches = for {%{managed?: true, node: node}, patches} <- answers, do: {node, patches}
    %Census{infos: Enum.map(answers, &elem(&1, 0)), patches: patches, connected: connected}
  end

  @doc """
  The nodes an operation works on. Nodes that were named must answer and run HotPatch;
  without names it is this node and all visible ones, and those without HotPatch are told
  apart. Remote shells are none of the system's nodes.
  """
  @spec members(selection()) :: {:ok, Members.t()} | {:error, Error.t()}
  def members(selection), do: selection |> ask() |> members(selection)

  @doc "The same by what was answered already."
  @spec members(Census.t(), selection()) :: {:ok, Members.t()} | {:error, Error.t()}
  def members(census, selection) do
    with {:ok, members} <- reachable(census, selection) do
      if members.failed == [],
        do: {:ok, members},
        else: {:error, not_ready(:unreachable, members.failed)}
    end
  end

  @doc """
  The nodes that a question goes to. As `members/1`, but one that is connected and does not answer
  is no hindrance: it is among those that failed. One that was named has to answer.
  """
  @spec reachable(selection()) :: {:ok, Members.t()} | {:error, Error.t()}
  def reachable(selection), do: selection |> ask() |> reachable(selection)

  # Whoever names nodes has only those asked.
  defp ask(named) when is_list(named), do: census(named, [], :none)
  defp ask(_rule_or_all), do: census(nil, :none)

  @doc "The same by what was answered already."
  @spec reachable(Census.t(), selection()) :: {:ok, Members.t()} | {:error, Error.t()}
  def reachable(census, named) when is_list(named) do
    infos = Enum.filter(census.infos, &(&1.node in named))

    case Enum.group_by(infos, & &1.problem_kind) do
      %{unreachable: silent} -> {:error, not_ready(:unreachable, silent)}
      %{unmanaged: without} -> {:error, not_ready(:unmanaged, without)}
      _all_managed -> {:ok, %Members{infos: infos}}
    end
  end

  def reachable(%Census{connected: connected} = census, selection) do
    infos = Enum.filter(census.infos, &(&1.node in connected and not &1.shell?))
    {managed, others} = Enum.split_with(infos, & &1.managed?)
    {silent, without} = Enum.split_with(others, &(&1.problem_kind == :unreachable))

    members = %Members{
      infos: managed,
      unmanaged: Enum.map(without, & &1.node),
      failed: for(info <- silent, do: %{node: info.node, problem: info.problem}),
      missing: for({node, _how} <- Members.missing(managed, attached(), connected), do: node)
    }

    cond do
      managed == [] and silent != [] -> {:error, not_ready(:unreachable, silent)}
      managed == [] -> {:error, not_ready(:unmanaged, without)}
      true -> chosen(members, selection)
    end
  end

  defp chosen(members, nil), do: {:ok, members}

  defp chosen(members, selection) do
    case Enum.filter(members.infos, &selected?(&1, selection)) do
      [] ->
        names = Enum.map_join(members.infos, ", ", & &1.node)

        text =
          "option :nodes chooses none of #{names}; HotPatch.nodes() shows them with their roles"

        {:error, Error.new(:invalid_option, text, %{option: :nodes})}

      infos ->
        {:ok, %{members | infos: infos}}
    end
  rescue
    error in [UndefinedFunctionError, FunctionClauseError, KeyError, ArgumentError, MatchError] ->
      text = "option :nodes: the function failed: #{Exception.message(error)}"
      {:error, Error.new(:invalid_option, text, %{option: :nodes})}
  end

  defp selected?(info, {:role, role}), do: role in info.roles
  defp selected?(info, fun), do: fun.(info)

  @doc """
  Nodes that an operation works on where none are named: this one, all visible ones, and the
  hidden ones that were attached from here.
  """
  @spec everyone() :: [node()]
  def everyone do
    attached = attached()
    hidden = Enum.filter(Node.list(:hidden), &(&1 in attached))
    [node() | Node.list()] ++ hidden
  end

  @doc """
  Every node of the system: those that are connected, and those that belong to it and are away.
  """
  @spec nodes() :: [NodeInfo.t()]
  def nodes do
    connected = everyone()
    infos = infos(connected)

    away =
      for {node, how} <- Members.missing(infos, attached(), connected) do
        %NodeInfo{
          node: node,
          managed?: false,
          problem: "is away: #{how}",
          problem_kind: :missing
        }
      end

    Enum.sort_by(infos ++ away, & &1.node)
  end

  @doc "Who holds the nodes that are connected, and answer; no more is asked, so it may be asked often."
  @spec holders() :: [{node(), NodeAgent.Server.holder()}]
  def holders do
    for {node, {:ok, %{} = holder}} <-
          raw_call(everyone(), :holder, [], %{timeout: @hello_within}),
        do: {node, holder}
  end

  @doc "A node was attached from here."
  @spec remember(node()) :: :ok
  def remember(node), do: attached(&Enum.uniq([node | &1]))

  @doc "A node is attached no longer."
  @spec forget(node()) :: :ok
  def forget(node), do: attached(&List.delete(&1, node))

  defp attached(change),
    do: Application.put_env(:hot_patch, :attached_nodes, change.(attached()))

  defp attached, do: Application.get_env(:hot_patch, :attached_nodes, [])

  @doc "All other visible nodes."
  @spec peers() :: [node()]
  def peers, do: Node.list()

  @doc "What is to be known about nodes; those that do not answer are listed with the problem."
  @spec infos([node()]) :: [NodeInfo.t()]
  def infos(nodes), do: for({info, _patches} <- who(nodes, :none), do: info)

  defp who(nodes, wanted) do
    nodes = nodes |> Enum.uniq() |> Enum.sort()
    protocol = NodeAgent.protocol()

    for {node, answer} <- raw_call(nodes, :overview, [wanted], %{timeout: @hello_within}) do
      case answer do
        {:ok, {%NodeInfo{protocol: ^protocol} = info, patches}} -> {info, patches}
        {:ok, _other} -> {unmanaged(node, :unmanaged, "runs another version of HotPatch"), []}
        {:error, {kind, text}} -> {unmanaged(node, kind, text), []}
      end
    end
  end

  @doc """
  Asks the agents of several nodes the same, in parallel.
  """
  @spec call([node()], atom(), [term()], timeout()) :: [{node(), answer()}]
  def call(nodes, function, args, timeout),
    do: call_until(nodes, function, args, %{timeout: timeout})

  @doc """
  The same for one who may be told to stop: when `stop` says so, those that have not answered by then
  are waited for no longer. `answered` is called with each node and its answer as they come, for those
  who are shown how far it is.
  """
  @spec call_until([node()], atom(), [term()], waiting) :: [{node(), answer()}]
        when waiting: %{
               required(:timeout) => timeout(),
               optional(:stop) => (() -> boolean()) | nil,
               optional(:answered) => (node(), answer() -> term())
             }
  def call_until(nodes, function, args, waiting) do
    tell = Map.get(waiting, :answered, fn _node, _answer -> :ok end)
    answered = fn node, answer -> tell.(node, without_kind(answer)) end

    answers = raw_call(nodes, function, args, Map.put(waiting, :answered, answered))
    for {node, answer} <- answers, do: {node, without_kind(answer)}
  end

  @doc "The same for those who collect: what was answered, and who gave no answer, and why."
  @spec survey([node()], atom(), [term()], timeout()) ::
          {answers :: [{node(), term()}], [Members.failure()]}
  def survey(nodes, function, args, timeout) do
    answers = call(nodes, function, args, timeout)

    {for({node, {:ok, answer}} <- answers, do: {node, answer}),
     for({node, {:error, text}} <- answers, do: %{node: node, problem: text})}
  end

  @doc """
  Asks those that answer, and puts together what `items` makes of it: also who was asked and has not
  answered.
  """
  @spec collect(Members.t(), atom(), {atom(), [term()], timeout()}, fun) ::
          Answers.t()
        when fun: ([{node(), term()}] -> [term()])
  def collect(members, of, {function, args, timeout}, items) do
    {answers, failed} = survey(Members.nodes(members), function, args, timeout)

    %Answers{
      of: of,
      items: items.(answers),
      nodes: Enum.map(answers, &elem(&1, 0)),
      failed: Enum.sort_by(members.failed ++ failed, & &1.node),
      missing: members.missing
    }
  end

  @doc """
  Takes nodes for somebody. The first in the order of names decides between two who come at
  once, so it is asked before the others. Gives what each has granted, or the first answer that
  is no grant; letting go is for the caller.
  """
  @spec take([node()], ([node()] -> [{node(), answer()}])) ::
          {:ok, [{node(), term()}]} | {:error, node(), answer()}
  # rule: first-decides
  def take(nodes, ask) do
    [first | rest] = Enum.sort(nodes)

    with {:ok, taken} <- granted(ask.([first])),
         {:ok, others} <- granted(ask.(rest)),
         do: {:ok, taken ++ others}
  end

  defp granted(answers) do
    case Enum.reject(answers, &match?({_node, {:ok, {:ok, _grant}}}, &1)) do
      [] -> {:ok, for({node, {:ok, {:ok, grant}}} <- answers, do: {node, grant})}
      [{node, answer} | _] -> {:error, node, answer}
    end
  end

  defp without_kind({:ok, value}), do: {:ok, value}
  defp without_kind({:error, {_kind, text}}), do: {:error, text}

  # All requests first, in one go; then the answers, in the order in which they come.
  defp raw_call(nodes, function, args, waiting) do
    waiting = Map.merge(%{answered: fn _node, _answer -> :ok end, stop: nil}, waiting)

    requests =
      Enum.reduce(nodes, :erpc.reqids_new(), fn node, requests ->
        :erpc.send_request(node, NodeAgent, function, args, node, requests)
      end)

    answers = receive_all(requests, deadline(waiting.timeout), waiting, %{})
    for node <- nodes, do: {node, Map.get(answers, node) || late()}
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: now() + timeout

  defp now, do: System.monotonic_time(:millisecond)

  defp receive_all(requests, deadline, waiting, answers) do
    case receive_one(requests, deadline, waiting.stop) do
      {node, answer, requests} ->
        answer = plain(answer)
        waiting.answered.(node, answer)
        receive_all(requests, deadline, waiting, Map.put(answers, node, answer))

      # What has come by now is taken.
      :stop ->
        receive_all(requests, now(), %{waiting | stop: nil}, answers)

      nothing_more when nothing_more in [:all, :late] ->
        answers
    end
  end

  # What a node fails with is raised here, together with the node and the other requests.
  defp receive_one(requests, deadline, nil) do
    case :erpc.receive_response(requests, until(deadline), true) do
      {value, node, requests} -> {node, {:ok, value}, requests}
      :no_request -> :all
    end
  catch
    :error, {:erpc, :timeout} -> :late
    class, {reason, node, requests} -> {node, {class, reason}, requests}
  end

  # `:infinity` is greater than every number.
  defp receive_one(requests, deadline, stop) do
    cond do
      stop.() -> :stop
      now() >= deadline -> receive_one(requests, deadline, nil)
      true -> receive_some(requests, min(deadline, now() + @look_every), {deadline, stop})
    end
  end

  defp receive_some(requests, look_at, {deadline, stop}) do
    case :erpc.wait_response(requests, until(look_at), true) do
      {{:response, value}, node, requests} -> {node, {:ok, value}, requests}
      :no_response -> receive_one(requests, deadline, stop)
      :no_request -> :all
    end
  catch
    class, {reason, node, requests} -> {node, {class, reason}, requests}
  end

  defp until(:infinity), do: :infinity
  defp until(deadline), do: {:abs, deadline}

  defp late, do: plain({:error, {:erpc, :timeout}})

  defp plain({:ok, value}), do: {:ok, value}
  defp plain({:error, {:erpc, :noconnection}}), do: unreachable("is not reachable")
  defp plain({:error, {:erpc, :timeout}}), do: unreachable("did not answer in time")
  defp plain({:error, {:erpc, reason}}), do: unreachable("cannot be asked (#{inspect(reason)})")

  defp plain({:error, {:exception, :undef, [{NodeAgent, _, _, _} | _]}}) do
    {:error, {:unmanaged, "does not run HotPatch (HotPatch.attach/1 brings it there)"}}
  end

  defp plain({:exit, {:exception, {:noproc, _call}}}) do
    {:error, {:unmanaged, "has HotPatch, but it is not started: start the application hot_patch"}}
  end

  # Its agent was asked there, and the one who asked has given up.
  defp plain({:exit, {:exception, {:timeout, {_behaviour, :call, _args}}}}), do: late()

  defp plain({:error, {:exception, reason, stack}}) do
    {:error, {:unreachable, "failed: " <> Cause.of(:error, reason, stack)}}
  end

  defp plain({class, reason}), do: unreachable("failed: #{class} #{inspect(reason, limit: 20)}")

  defp unreachable(text), do: {:error, {:unreachable, text}}

  defp unmanaged(node, kind, text) do
    shell? = kind == :unmanaged and remote_shell?(node)
    %NodeInfo{node: node, managed?: false, problem: text, problem_kind: kind, shell?: shell?}
  end

  # Started by `erl -remsh` or `iex --remsh`: somebody's terminal.
  defp remote_shell?(node) do
    :erpc.call(node, :init, :get_argument, [:remsh], @shell_within) != :error or
      ~c"--remsh" in :erpc.call(node, :init, :get_plain_arguments, [], @shell_within)
  catch
    _class, _reason -> false
  end

  # Infos of nodes, or what is left of them.
  defp not_ready(reason, infos) do
    Error.new(
      reason,
      "nothing was done: #{Table.problems(infos)}; bring the node back, or name the others with nodes: [...]",
      %{nodes: Enum.map(infos, & &1.node)}
    )
  end
end
