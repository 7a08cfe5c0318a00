defmodule HotPatch.Swap.OldCode.Report do
  @moduledoc false
  # Processes that still run old code after a swap, and who holds a fun that it has made.

  alias HotPatch.Straggler
  alias HotPatch.Swap.OldCode.FunPlaces
  alias HotPatch.Swap.OldCode.Users

  @doc "Who runs old code of these modules, or holds a fun of it."
  @spec of([module()]) :: [Straggler.t()]
  def of(modules) do
    running = for {pid, module, stack} <- Users.of(modules), do: straggler(pid, module, stack)
    known = MapSet.new(running, &{&1.pid, &1.module})
    {holders, _unseen} = modules |> Enum.filter(&:erlang.check_old_code/1) |> FunPlaces.of_old()

    # Whoever runs it has its funs on the stack.
    running ++
      for {pid, place, module} <- Enum.uniq(holders),
          not MapSet.member?(known, {pid, module}),
          do: holder(pid, place, module)
  end

  defp holder(pid, place, module) do
    %Straggler{
      node: node(),
      pid: pid,
      name: pid && name(pid),
      module: module,
      kind: :holds_fun,
      stack: List.wrap(place)
    }
  end

  @doc "All modules that have old code, whoever made it old."
  @spec of_all() :: [Straggler.t()]
  def of_all, do: of(for {module, _file} <- :code.all_loaded(), do: module)

  @doc "A process of which it is not known whether it began in the old code or the new."
  @spec unsure(pid()) :: Straggler.t()
  def unsure(pid), do: %Straggler{node: node(), pid: pid, name: name(pid), kind: :unsure}

  defp straggler(pid, module, stack) do
    %Straggler{
      node: node(),
      pid: pid,
      name: name(pid),
      module: module,
      kind: kind(stack),
      stack: stack |> Enum.take(3) |> Enum.map(&Exception.format_stacktrace_entry/1)
    }
  end

  defp kind([{:gen, :do_call, _arity, _location} | _]), do: :in_call

  defp kind(stack) do
    if Enum.any?(stack, &(elem(&1, 0) in [:gen_server, :gen_statem, :gen_event])),
      do: :in_callback,
      else: :in_loop
  end

  defp name(pid) do
    case Process.info(pid, :registered_name) do
      {:registered_name, name} when is_atom(name) -> name
      _ -> nil
    end
  end
end
