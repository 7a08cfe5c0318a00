alias HotPatch.Test.Builds
alias HotPatch.Test.Cluster

# Newer versions of Mix take what no project depends on from the code path: tests make releases with it.
if function_exported?(Mix, :ensure_application!, 1), do: apply(Mix, :ensure_application!, [:sasl])

Cluster.distribute!()
Builds.compile!()
Application.put_env(:hot_patch, :data_dir, Path.join(Builds.tmp(), "data"))
:ok = HotPatch.Host.Config.load()
ExUnit.after_suite(fn _ -> File.rm_rf!(Builds.tmp()) end)
# PropEr is a package of its own in Debian (erlang-proper); script/matrix makes the systems that
# its tests take, and script/test browser runs those of the page: they need more than Elixir.
without = if Code.ensure_loaded?(:proper), do: [], else: [:proper]
# What is waited for comes; on a busy machine it may take its time.
ExUnit.start(
  capture_log: true,
  assert_receive_timeout: 120_000,
  timeout: 300_000,
  exclude: [:matrix, :browser] ++ without
)
