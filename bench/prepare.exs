# What it costs a node to prepare a patch of 100 modules of 50 kB, with nobody waiting: judging the files, the code made
# ready by the VM's loader, the processes found, the files staged; against a loop of `code:load_binary` over the
# same modules, which does none of it but the loader's part. The ways take turns; milliseconds of this VM's own
# processor time and of the whole, medians.
#
#     MIX_ENV=prod mix run --no-start bench/prepare.exs [--modules 100] [--rounds 9]

for file <- ~w(table cluster/patch), do: Code.require_file("#{file}.exs", __DIR__)

defmodule Bench.Prepare do
  alias Bench.Cluster.Patch
  alias Bench.Table
  alias HotPatch.NodeAgent.Acceptance
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.Prepare

  def run(%{modules: count, rounds: rounds}) do
    root = Path.join(System.tmp_dir!(), "hot_patch_bench-#{System.pid()}")

    try do
      first = system(root, count)
      second = Patch.build(count, 2)
      {:ok, patch} = HotPatch.upload(Patch.zip(second), name: "bench")
      {:ok, _options, payload, _nodes, []} = HotPatch.Cluster.PatchCall.new(:apply, patch.id, [])

      IO.puts("OTP #{System.otp_release()}, #{rounds} rounds, #{count} modules\n")
      IO.puts(line(["way", "ms", "processor"]))

      runs =
        for _round <- 1..rounds, {name, way} <- ways(payload, first, second), do: {name, way.()}

      for {name, _way} <- ways(payload, first, second) do
        figures = for {^name, figures} <- runs, do: figures

        [ms, cpu] =
          for place <- [0, 1], do: figures |> Enum.map(&elem(&1, place)) |> Table.median()

        IO.puts(line([name, Table.decimal(ms), Table.decimal(cpu)]))
      end
    after
      File.rm_rf!(root)
    end
  end

  # Each leaves the system as it found it.
  defp ways(payload, first, second) do
    [
      {"load_binary", fn -> measure(fn -> load(second) end, fn _ -> load(first) end) end},
      {"prepare_loading", fn -> measure(fn -> prepare_loading(second) end) end},
      {"check", fn -> measure(fn -> Check.run(payload) end) end},
      {"accept",
       fn ->
         examination = Check.run(payload)
         measure(fn -> {:ok, _} = Acceptance.accept(examination, payload) end)
       end},
      {"whole", fn -> measure(fn -> prepare(payload) end, &Prepare.discard/1) end}
    ]
  end

  defp prepare(payload) do
    operation = operation(payload)
    {:ok, preparation} = payload |> Check.run() |> Prepare.run(operation, payload)
    preparation
  end

  defp operation(payload) do
    %HotPatch.Operation{
      id: "bench",
      course: "bench",
      kind: :apply,
      patch: payload.patch,
      by: "bench",
      coordinator: self(),
      ref: make_ref(),
      pause_timeout: 5_000,
      hold_timeout: 5_000,
      purge: :soft
    }
  end

  defp prepare_loading(beams) do
    {:ok, _prepared} =
      :code.prepare_loading(for {module, beam} <- beams, do: {module, ~c"bench", beam})
  end

  defp load(beams) do
    for {module, beam} <- beams do
      :code.purge(module)
      {:module, ^module} = :code.load_binary(module, :code.which(module), beam)
    end
  end

  defp measure(way, back \\ fn _result -> :ok end) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    before = Table.processor()
    {us, result} = :timer.tc(way)
    cpu = Table.processor() - before
    back.(result)
    {us / 1000, cpu / 1000}
  end

  defp system(root, count) do
    ebin = Path.join(root, "lib/#{Patch.app()}/ebin")
    File.mkdir_p!(ebin)
    Code.prepend_path(ebin)
    beams = Patch.build(count, 1)
    for {module, beam} <- beams, do: File.write!(Path.join(ebin, "#{module}.beam"), beam)
    Application.put_env(:hot_patch, :data_dir, Path.join(root, "data"))
    Application.put_env(:hot_patch, :release, {"bench", "1.0.0"})
    modules = for {module, _beam} <- beams, do: module
    spec = [vsn: ~c"1.0.0", modules: modules, registered: [], applications: [:kernel, :stdlib]]
    :ok = :application.load({:application, :bench_app, spec})
    {:ok, _started} = Application.ensure_all_started(:hot_patch)
    :ok = :code.ensure_modules_loaded(modules)

    for server <- Patch.servers(count),
        do: {:ok, _} = :gen_server.start({:local, server}, server, [], [])

    beams
  end

  defp line(cells), do: Table.line([16, 9, 10], cells)
end

{given, [], []} = OptionParser.parse(System.argv(), strict: [modules: :integer, rounds: :integer])
Bench.Prepare.run(%{modules: given[:modules] || 100, rounds: given[:rounds] || 9})
