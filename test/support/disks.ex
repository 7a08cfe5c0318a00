defmodule HotPatch.Test.Disks do
  @moduledoc false
  # Folders that cannot be written, in the ways in which that happens; all of it takes root.

  @doc "Whether folders can be mounted here, and files be made immutable."
  @spec available?() :: boolean()
  def available? do
    folder = Path.join(System.tmp_dir!(), "hot_patch_disks-#{System.pid()}")
    File.mkdir_p!(folder)
    read_only(folder)
    writable(folder)
    immutable(folder, true)
    immutable(folder, false)
    File.rm_rf!(folder)
    true
  rescue
    _not_permitted -> false
  end

  @doc "Mounts a folder over itself, to be read only."
  @spec read_only(Path.t()) :: :ok
  def read_only(folder) do
    run!("mount", ["--bind", folder, folder])
    run!("mount", ["-o", "remount,ro,bind", folder])
  end

  @doc "Ends that."
  @spec writable(Path.t()) :: :ok
  def writable(folder), do: run!("umount", [folder])

  @doc "Makes a file or folder one that not even the superuser may change, or no longer."
  @spec immutable(Path.t(), boolean()) :: :ok
  def immutable(path, yes?), do: run!("chattr", [if(yes?, do: "+i", else: "-i"), path])

  defp run!(command, args) do
    {_output, 0} = System.cmd(command, args, stderr_to_stdout: true)
    :ok
  end
end
