defmodule HotPatch.NodeAgent.Inventory do
  @moduledoc false
  # The modules of the host system that this node runs. A coordinator that compares a patch with
  # them needs the native reader, which this node may lack. So it is told here which they are, and
  # gets the files of those that have to do with the patch.
  #
  # It works at low priority: a look at a system of hundreds of modules must not be felt by those
  # whom the system serves.

  alias HotPatch.Host.SystemLibrary
  alias HotPatch.NodeAgent.FileDigests
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Mentions
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Quiet

  @typedoc "A loaded module with its file."
  @type one :: %{module: module(), name: String.t(), path: Path.t()}

  @typedoc """
  Which files are wanted: those of the modules that `change`, of modules that are `named` by what
  comes, and of all that name one of the modules in `naming`, or `:all` files.
  """
  @type query :: %{change: [String.t()], named: [String.t()], naming: [String.t()] | :all}

  @typedoc """
  Files by the names of their modules. `unknown` are modules that are wanted and run another code
  than that of their file, or were too many.
  """
  @type related :: %{files: %{String.t() => binary()}, unknown: [String.t()]}

  @typedoc "Which modules run, and one digest of their code."
  @type summary :: %{digest: binary(), names: [String.t()]}

  # What a node sends at most: a system has about 20 kB for each module.
  @most_bytes 64 * 1024 * 1024

  @doc """
  Every loaded module that belongs to no system library, in the order of their names. What has no
  file at all was made in memory, and so is no part of the release.
  """
  @spec modules() :: [one()]
  def modules do
    code_path = :code.get_path()

    for {module, file} <- :code.all_loaded(),
        file != :preloaded,
        not system?(file),
        name = Atom.to_string(module),
        not String.ends_with?(name, "@hot_patch"),
        path = LoadedCode.file_of(name, file, code_path),
        path != :no_file,
        not system?(path) do
      %{module: module, name: name, path: path}
    end
    |> Enum.sort_by(& &1.name)
  end

  @doc "The names of all modules, and a digest in which two nodes agree that run the same code."
  @spec summary() :: summary()
  def summary do
    Quiet.run(fn ->
      running =
        for %{module: m, name: name} <- modules(), md5 = LoadedCode.md5(m), do: {name, md5}

      digest = :crypto.hash(:sha256, :erlang.term_to_binary(running))
      %{digest: digest, names: Enum.map(running, &elem(&1, 0))}
    end)
  end

  @doc "The files that a comparison with a change of some modules has to look at."
  @spec related(query()) :: related()
  def related(query) do
    Quiet.run(fn ->
      modules = modules()
      wanted = MapSet.new(query.change ++ query.named ++ named_before(query.change, modules))
      naming = if query.naming == :all, do: :all, else: Mentions.patterns(query.naming)

      {related, _size} =
        Enum.reduce(modules, {%{files: %{}, unknown: []}, 0}, &add(&1, &2, wanted, naming))

      related
    end)
  end

  # What the versions name that are to be replaced.
  defp named_before(changed, modules) do
    names = modules |> Enum.map(& &1.name) |> Mentions.patterns()
    changed = MapSet.new(changed)

    for %{name: name, path: path} <- modules,
        name in changed,
        {:ok, bytes} <- [FileDigests.read(path)],
        other <- Mentions.which(bytes, names),
        do: other
  end

  defp add(%{name: name} = one, {related, size} = before, wanted, naming) do
    wanted? = naming == :all or name in wanted

    case FileDigests.read(one.path) do
      {:ok, bytes} ->
        size = size + byte_size(bytes)

        cond do
          not wanted? and not Mentions.any?(bytes, naming) -> before
          size > @most_bytes or not runs?(one, bytes) -> {unknown(related, name), elem(before, 1)}
          true -> {put_in(related.files[name], bytes), size}
        end

      :error ->
        if wanted?, do: {unknown(related, name), size}, else: before
    end
  end

  defp unknown(related, name), do: update_in(related.unknown, &[name | &1])

  defp runs?(one, bytes), do: :code.module_md5(bytes) == LoadedCode.md5(one.module)

  defp system?(file) do
    case file |> FileName.to_binary() |> Path.split() |> Enum.reverse() do
      [_file, "ebin", folder | _] ->
        folder |> String.split("-") |> hd() |> SystemLibrary.application?()

      _ ->
        false
    end
  end
end
