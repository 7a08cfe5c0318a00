alias HotPatch.Test.{Builds, Cluster}

Cluster.distribute!()
Builds.compile!()
Application.put_env(:hot_patch, :data_dir, Path.join(Builds.tmp(), "data"))
ExUnit.after_suite(fn _ -> File.rm_rf!(Builds.tmp()) end)
# script/test browser runs those; they need more than Elixir.
ExUnit.start(capture_log: true, exclude: [:browser])
