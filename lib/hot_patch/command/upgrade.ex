defmodule HotPatch.Command.Upgrade do
  @moduledoc false
  # A release on its way to a system that runs another version of it: whether that is so, and what is sent.

  alias HotPatch.Command.Target
  alias HotPatch.Support.Folder

  @doc """
  The version of a release, where a system runs another version of the same; `:error` where that runs the same, or is
  another system, or where one of them is no release.
  """
  @spec version(Target.t(), Path.t()) :: {:ok, String.t()} | :error
  def version(%module{} = target, release) do
    with {:ok, name, version} <- named(release),
         {:ok, running} <- module.release(target),
         true <- String.starts_with?(running, name <> "-") and running != "#{name}-#{version}" do
      {:ok, version}
    else
      _the_same_or_no_release -> :error
    end
  end

  # As its start would read it.
  defp named(release) do
    with {:ok, text} <- File.read(Path.join(release, "releases/start_erl.data")),
         [_erts, version] <- String.split(text),
         folder = Path.join([release, "releases", version]),
         [file] <- Folder.matching(folder, "*.rel") -- ["start_clean.rel", "no_dot_erlang.rel"],
         {:ok, [{:release, {name, _version}, _erts, _applications}]} <-
           :file.consult(String.to_charlist(Path.join(folder, file))) do
      {:ok, to_string(name), version}
    else
      _no_release -> :error
    end
  end

  @doc "The release as a tarball: its applications, and what it boots by. The ERTS stays where it is."
  @spec tarball(Path.t()) :: {:ok, binary()} | {:error, String.t()}
  def tarball(release) do
    path =
      Path.join(System.tmp_dir!(), "hot_patch_deploy-#{System.pid()}-#{System.os_time()}.tar.gz")

    entries =
      for part <- ["lib", "releases"],
          do: {String.to_charlist(part), String.to_charlist(Path.join(release, part))}

    try do
      with :ok <- :erl_tar.create(String.to_charlist(path), entries, [:compressed, :dereference]),
           {:ok, bytes} <- File.read(path) do
        {:ok, bytes}
      else
        {:error, reason} ->
          {:error, "#{release} cannot be packed: #{:erl_tar.format_error(reason)}"}
      end
    after
      File.rm(path)
    end
  end
end
