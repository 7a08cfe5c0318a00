defmodule Demo.Archive do
  @moduledoc false
  # Makes patches: zips of the modules in which two builds of the exchange differ.

  @folder "exchange-1.0.0/ebin"

  @type change :: {module(), old_vsn :: [term()] | nil, new_vsn :: [term()]}

  @doc "The modules that are new or different in the folder `new`; a changed `vsn` counts."
  @spec changes(Path.t(), Path.t()) :: [change()]
  def changes(old, new) do
    for file <- beams(new),
        change = change(Path.join(old, file), Path.join(new, file)),
        do: change
  end

  @doc "Zips the changed modules of the folder `new`; `spoil` may damage a file on its way."
  @spec zip!([change()], Path.t(), Path.t(), (binary() -> binary())) :: Path.t()
  def zip!(changes, new, path, spoil \\ & &1) do
    entries =
      for {module, _old, _new} <- changes do
        file = "#{module}.beam"
        beam = new |> Path.join(file) |> File.read!()
        {to_charlist(Path.join(@folder, file)), spoil.(beam)}
      end

    {:ok, _} = :zip.create(to_charlist(path), entries)
    path
  end

  @doc """
  What tells a build of a module from another, `nil` if there is no such file.

  The MD5 of a module leaves its attributes out, so its `vsn` belongs to it.
  """
  @spec identity(Path.t()) :: {module(), md5 :: binary(), vsn :: [term()]} | nil
  def identity(path) do
    if File.exists?(path) do
      {:ok, {module, md5}} = path |> to_charlist() |> :beam_lib.md5()
      {:ok, {^module, vsn}} = path |> to_charlist() |> :beam_lib.version()
      {module, md5, vsn}
    end
  end

  defp beams(folder),
    do: folder |> File.ls!() |> Enum.filter(&(Path.extname(&1) == ".beam")) |> Enum.sort()

  defp change(old, new) do
    {module, _md5, vsn} = identity = identity(new)

    case identity(old) do
      ^identity -> nil
      nil -> {module, nil, vsn}
      {^module, _md5, old_vsn} -> {module, old_vsn, vsn}
    end
  end
end
