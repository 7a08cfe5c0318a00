defmodule Bench.HiddenNode do
  # This VM, where it only starts and asks the nodes that are measured.

  @doc "Makes it a hidden node."
  def start do
    {_output, 0} = System.cmd("epmd", ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
    name = :"hot_patch_bench_#{System.pid()}@127.0.0.1"
    {:ok, _pid} = :net_kernel.start(name, %{name_domain: :longnames, hidden: true})
    :ok
  end
end
