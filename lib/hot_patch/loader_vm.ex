defmodule HotPatch.LoaderVM do
  @moduledoc false
  # Puts modules before the loader of a VM that may die, so that the loader of this node, which
  # serves, never sees one that ends a VM. OTP's loader trusts its input: a damaged size or
  # label aborts the emulator instead of giving an error. The native core judges modules before
  # they come here; this is the second line, and it is exact: it is the same loader.
  #
  # Trials are made one after the other, so that several uploads at a time cost the machine no
  # more than one. What was found is remembered by the digest of the modules: an archive is
  # tried once, however often somebody looks at it.

  use GenServer

  alias HotPatch.Host.Config
  alias HotPatch.LoaderVM.Program

  # Milliseconds that all modules of an archive may take together; 1,000 modules take a second.
  @within 60_000
  # Bytes of memory. The limits on archives let 100 MB of modules in; loaded they take a multiple.
  @memory 1024 * 1024 * 1024
  # How many findings are remembered.
  @remembered 200

  @typedoc "A name and a file, as they are in an archive: no atom is made of the name here."
  @type code :: {name :: String.t(), bytes :: binary()}

  @typedoc """
  What the loader said.

    * `{:refused, names}` - it refuses these with a reason, as it would on this node
    * `{:ended, name, how}` - it ended its VM at this module, or at all of them together (`nil`)
    * `{:untried, why}` - no VM could be started here
    * `:off` - this node is configured to do without (`config :hot_patch, loader_vm: :off`)
  """
  @type finding ::
          :accepted
          | {:refused, %{String.t() => String.t()}}
          | {:ended, String.t() | nil, String.t()}
          | {:untried, String.t()}
          | :off

  @typedoc """
  Which loader it was. A finding holds wherever the same one runs: its version, its kind
  (compiling or interpreting), and the machine it was built for.
  """
  @type identity :: {version :: String.t(), flavour :: atom(), architecture :: String.t()}

  @doc "Which loader this node has."
  @spec identity() :: identity()
  def identity do
    {List.to_string(:erlang.system_info(:version)), :erlang.system_info(:emu_flavor),
     List.to_string(:erlang.system_info(:system_architecture))}
  end

  @doc """
  Starts the server.

  Options: `name:`; `within:` in milliseconds and `memory:` in bytes bound one trial.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options \\ []) do
    {name, options} = Keyword.pop(options, :name, __MODULE__)
    GenServer.start_link(__MODULE__, options, name: name)
  end

  @doc """
  Has modules tried. The same ones are tried once; what could not be tried is tried again.

      iex> HotPatch.LoaderVM.try_modules([])
      :accepted
  """
  @spec try_modules(GenServer.server(), [code()]) :: finding()
  def try_modules(server \\ __MODULE__, modules)
  def try_modules(_server, []), do: :accepted

  def try_modules(server, modules) do
    if on?() do
      # Whoever sends them, in whatever order.
      modules = Enum.sort(modules)
      GenServer.call(server, {:try, digest(modules), modules}, :infinity)
    else
      :off
    end
  catch
    :exit, {reason, {GenServer, :call, _arguments}} ->
      {:untried, "the process that makes trials is not there (#{short(reason)})"}
  end

  @doc "Whether modules are tried on this node."
  @spec on?() :: boolean()
  def on?, do: Config.current().loader_vm == :on

  defp short({kind, _details}), do: inspect(kind)
  defp short(reason), do: inspect(reason)

  # Of names and lengths too, so that no other modules can have the same digest.
  defp digest(modules) do
    modules
    |> Enum.reduce(:crypto.hash_init(:sha256), fn {name, bytes}, context ->
      context
      |> :crypto.hash_update(<<byte_size(name)::32, name::binary, byte_size(bytes)::32>>)
      |> :crypto.hash_update(bytes)
    end)
    |> :crypto.hash_final()
  end

  @impl GenServer
  def init(options) do
    # The VM is a port: its end is to be a message, not ours.
    Process.flag(:trap_exit, true)

    {:ok,
     %{
       within: Keyword.get(options, :within, @within),
       memory: Keyword.get(options, :memory, @memory),
       # Newest first.
       found: []
     }}
  end

  @impl GenServer
  def handle_call({:try, digest, modules}, _from, state) do
    case List.keyfind(state.found, digest, 0) do
      {^digest, finding} ->
        {:reply, finding, state}

      nil ->
        finding = run(modules, state)
        {:reply, finding, remember(state, digest, finding), :hibernate}
    end
  end

  @impl GenServer
  # What a VM that was given up still had to say.
  def handle_info(_message, state), do: {:noreply, state}

  # Why there was no VM may pass.
  defp remember(state, _digest, {:untried, _why}), do: state

  defp remember(state, digest, finding),
    do: %{state | found: Enum.take([{digest, finding} | state.found], @remembered)}

  defp run(modules, state) do
    case Program.start(state.memory, max(div(state.within, 1_000), 1)) do
      {:ok, program} ->
        deadline = System.monotonic_time(:millisecond) + state.within

        try do
          each(modules, program, deadline, %{})
        after
          Program.stop(program)
        end

      {:error, why} ->
        {:untried, why}
    end
  end

  # One at a time: where the VM ends it is known at which.
  defp each([{name, bytes} | rest], program, deadline, refused) do
    case ask(program, {:module, name, bytes}, deadline) do
      {:ok, :prepared} ->
        each(rest, program, deadline, refused)

      {:ok, {:refused, reason}} ->
        each(rest, program, deadline, Map.put(refused, name, text(reason)))

      {:ended, how} ->
        {:ended, name, how}
    end
  end

  # Modules that are refused never become current: what the others do together says nothing.
  defp each([], _program, _deadline, refused) when refused != %{}, do: {:refused, refused}

  defp each([], program, deadline, _refused) do
    case ask(program, :finish, deadline) do
      {:ok, :finished} -> :accepted
      {:ok, {:unfinished, reason}} -> {:ended, nil, "did not make them current: #{text(reason)}"}
      {:ended, how} -> {:ended, nil, how}
    end
  end

  defp ask(program, request, deadline) do
    _ = Program.send(program, request)

    case Program.answer(program, deadline) do
      {:ok, {:refused, _reason} = answer} -> {:ok, answer}
      {:ok, {:unfinished, _reason} = answer} -> {:ok, answer}
      {:ok, answer} when answer in [:prepared, :finished] -> {:ok, answer}
      {:ok, _nonsense} -> {:ended, "says what it should not"}
      {:ended, how} -> {:ended, how}
      :late -> {:ended, "did not come to an end in time"}
    end
  end

  defp text(reason) when is_atom(reason), do: Atom.to_string(reason)
  defp text(reason), do: inspect(reason)
end
