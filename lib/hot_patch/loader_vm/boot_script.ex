defmodule HotPatch.LoaderVM.BootScript do
  @moduledoc false
  # What a VM that is only there for its loader boots: no kernel, no stdlib, nothing but the
  # preloaded modules, two of OTP's, and the worker. All their code is in the script itself.

  # It is defined here so that its code is at hand as a value: a node that HotPatch was attached to
  # has no file of it.
  {:module, _name, worker, _result} =
    defmodule Worker do
      @moduledoc false
      # What runs inside the VM that may die: it puts one module after the other before the loader
      # and says how that went. See HotPatch.LoaderVM.Program for the protocol.
      #
      # That VM has no kernel and no stdlib: besides the preloaded modules there are `lists` and
      # `error_handler`, and no Elixir. So nothing here may call anything else but BIFs; a test
      # holds the module to it.

      @doc "Serves one parent over standard input and output, and ends the VM with it."
      @spec main() :: no_return()
      def main do
        port = :erlang.open_port({:fd, 0, 1}, [:binary, :eof, {:packet, 4}])
        true = :erlang.port_command(port, :erlang.term_to_binary(:ready))
        loop(port, [])
      end

      defp loop(port, prepared) do
        receive do
          {^port, {:data, frame}} ->
            {answer, prepared} = serve(:erlang.binary_to_term(frame), prepared)
            true = :erlang.port_command(port, :erlang.term_to_binary(answer))
            loop(port, prepared)

          {^port, :eof} ->
            :erlang.halt(0)
        end
      end

      # The loader only prepares: nothing of the module runs.
      defp serve({:module, name, bytes}, prepared) do
        module = :erlang.binary_to_atom(name, :utf8)

        case :erlang.prepare_loading(module, bytes) do
          {:error, reason} -> {{:refused, reason}, prepared}
          code -> {:prepared, keep(module, code, prepared)}
        end
      end

      # Makes all of them current in one step, as an apply does. Still nothing of them runs.
      defp serve(:finish, prepared) do
        case :erlang.finish_loading(codes(prepared)) do
          :ok -> {:finished, []}
          {reason, _modules} -> {{:unfinished, reason}, []}
        end
      end

      # A module that runs code when it is loaded must not run here, and this VM needs those that
      # it already has. Of two files of one module the loader takes only one at a time; that there
      # are two is for others to judge.
      defp keep(module, code, prepared) do
        if :erlang.has_prepared_code_on_load(code) or :erlang.module_loaded(module) or
             :lists.keymember(module, 1, prepared),
           do: prepared,
           else: [{module, code} | prepared]
      end

      defp codes([{_module, code} | rest]), do: [code | codes(rest)]
      defp codes([]), do: []
    end

  {:ok, {_name, stripped}} = :beam_lib.strip(worker)
  @worker stripped

  # `init` calls `lists`; without `error_handler` a call of an unknown function would not even
  # fail as such.
  @needed [:lists, :error_handler]

  @doc "A boot script, as the emulator reads it from a file."
  @spec make() :: {:ok, binary()} | {:error, String.t()}
  def make do
    with {:ok, needed} <- needed() do
      loads =
        for {module, bytes} <- [{Worker, @worker} | needed],
            do: {:apply, {:erlang, :load_module, [module, bytes]}}

      steps =
        [{:preLoaded, :erlang.pre_loaded()}, {:progress, :preloaded}] ++
          loads ++ [{:apply, {:erlang, :spawn, [Worker, :main, []]}}, {:progress, :started}]

      {:ok, :erlang.term_to_binary({:script, {~c"loader", ~c"1"}, steps})}
    end
  end

  defp needed do
    Enum.reduce_while(@needed, {:ok, []}, fn module, {:ok, read} ->
      case :code.get_object_code(module) do
        {^module, bytes, _file} -> {:cont, {:ok, [{module, bytes} | read]}}
        :error -> {:halt, {:error, "this node has no file of #{module}"}}
      end
    end)
  end
end
