defmodule Exchange do
  @moduledoc """
  A small telephone exchange, the system that HotPatch's demo and tests repair while it runs.

  Every call in progress is a process (`Exchange.Call`) on one node. It holds a line of a trunk
  (`Exchange.Trunk`), adds its seconds to the node's meter (`Exchange.Meter`), and leaves a
  record (`Exchange.Cdr`) when it ends. What it costs is the business of `Exchange.Billing`,
  and that is where the shipped build is wrong: calls under a minute are free.

  These functions work with the calls, trunks and records of the node they run on; calls are
  addressed by pid, from any node, or by id on their own node.
  """

  alias Exchange.{Billing, Call, Cdr, Meter, Numbering, Record, Trunk}

  @typedoc "A call in progress: its process, or its id on this node."
  @type call :: pid() | pos_integer()

  @typedoc "What a call tells about itself; the same in every build."
  @type info :: %{
          id: pos_integer(),
          from: Numbering.t(),
          to: Numbering.t(),
          seconds: non_neg_integer(),
          requests: pos_integer()
        }

  @doc "Connects `from` (a withheld number if not given) with `to`."
  @spec start_call(Numbering.t(), Numbering.t()) ::
          {:ok, pid()} | {:error, :no_line}
  def start_call(from \\ "withheld", to) do
    id = System.unique_integer([:positive])
    supervisor = {:via, PartitionSupervisor, {Exchange.Calls, id}}
    DynamicSupervisor.start_child(supervisor, {Call, {id, from, to}})
  end

  @doc "Starts a call for each pair of numbers; answers their processes in the same order."
  @spec start_calls([{Numbering.t(), Numbering.t()}]) :: [pid()]
  def start_calls(pairs) do
    for {from, to} <- pairs do
      {:ok, pid} = start_call(from, to)
      pid
    end
  end

  @doc "Lets the parties talk for `seconds` more; answers the call as it then is."
  @spec talk(call(), non_neg_integer()) :: info()
  def talk(call, seconds) when is_integer(seconds) and seconds >= 0,
    do: GenServer.call(server(call), {:talk, seconds})

  @doc "The call as it is now. Asking counts as a request."
  @spec info(call()) :: info()
  def info(call), do: GenServer.call(server(call), :info)

  @doc "What the call costs so far, in cents. Asking counts as a request."
  @spec charge(call()) :: non_neg_integer()
  def charge(call), do: GenServer.call(server(call), :charge)

  @doc "Ends the call; answers its record."
  @spec hang_up(call()) :: Record.t()
  def hang_up(call), do: GenServer.call(server(call), :hang_up)

  @doc "What a call of `seconds` to the number `to` would cost, in cents."
  @spec price(Numbering.t(), non_neg_integer()) :: non_neg_integer()
  def price(to, seconds), do: Billing.charge(to, seconds)

  @doc "The processes of all calls on this node."
  @spec calls() :: [pid()]
  def calls, do: Registry.select(Exchange.Registry, [{{{:call, :_}, :"$1", :_}, [], [:"$1"]}])

  @doc "How many calls this node carries."
  @spec count_calls() :: non_neg_integer()
  def count_calls,
    do: Registry.count_select(Exchange.Registry, [{{{:call, :_}, :_, :_}, [], [true]}])

  @doc "The books of this node: lines in use, seconds metered, calls ended, cents charged."
  @spec totals() :: %{
          lines: non_neg_integer(),
          seconds: non_neg_integer(),
          ended: non_neg_integer(),
          cents: non_neg_integer()
        }
  def totals do
    {ended, cents} = Cdr.totals()
    lines = Enum.map(Numbering.zones(), &Trunk.lines_in_use/1)
    %{lines: Enum.sum(lines), seconds: Meter.seconds(), ended: ended, cents: cents}
  end

  @doc false
  @spec name(term()) :: GenServer.name()
  def name(key), do: {:via, Registry, {Exchange.Registry, key}}

  defp server(pid) when is_pid(pid), do: pid
  defp server(id) when is_integer(id), do: name({:call, id})
end
