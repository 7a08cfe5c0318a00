defmodule HotPatch.Test.SmallDisk do
  @moduledoc false
  # A file system with room for little, where one may be mounted.

  alias HotPatch.Test.Builds

  @doc "Whether there can be one: that takes root, and a system that lets it."
  @spec available?() :: boolean()
  def available? do
    with_disk(4096, fn _folder -> true end)
  rescue
    _ -> false
  end

  @doc "Runs `fun` with the folder of a file system of so many bytes."
  @spec with_disk(pos_integer(), (Path.t() -> result)) :: result when result: term()
  def with_disk(bytes, fun) do
    folder = Path.join(Builds.tmp(), "disk-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    run!("mount", ["-t", "tmpfs", "-o", "size=#{bytes}", "tmpfs", folder])

    try do
      fun.(folder)
    after
      run!("umount", [folder])
    end
  end

  defp run!(command, args) do
    {_output, 0} = System.cmd(command, args, stderr_to_stdout: true)
  end
end
