defmodule HotPatch.Agent.PreviousCode do
  @moduledoc false
  # Where the code is that a module runs now: a rollback has to bring that back, and the file of the
  # module may hold another version, because somebody has loaded code by hand or copied a file.

  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.Running
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.Neighbours

  @typedoc """
  `:file`: the module's file has it. `{:other, bytes}`: it was found elsewhere. `{:lost, md5}`: nothing
  on this node has it.
  """
  @type t :: :file | {:other, binary()} | {:lost, md5 :: binary()}

  @doc """
  Looks for the running code of a module that is loaded from `target`: in the file, in what the patch
  itself brings, where the code server has it from, and among what is kept here or by other nodes of
  this host to take patches back.
  """
  @spec find(module(), Path.t(), binary() | nil, String.t()) :: t()
  def find(module, target, brings, patch) do
    case Running.facts(module) do
      nil ->
        :file

      facts ->
        if is?(facts, File.read(target)), do: :file, else: elsewhere(module, facts, brings, patch)
    end
  end

  defp elsewhere(module, facts, brings, patch) do
    name = Atom.to_string(module)

    [
      fn -> [{:ok, brings}] end,
      fn -> loaded_from(:code.is_loaded(module)) end,
      fn -> object_code(:code.get_object_code(module)) end,
      fn -> kept(name, Applied.state()) end,
      fn -> kept_by_others(name, patch) end
    ]
    |> Stream.flat_map(& &1.())
    |> Enum.find(&is?(facts, &1))
    |> case do
      {:ok, bytes} -> {:other, bytes}
      nil -> {:lost, facts.md5}
    end
  end

  defp loaded_from({:file, [_ | _] = file}), do: [File.read(file)]
  defp loaded_from(_no_file), do: []

  defp object_code({_module, bytes, _file}), do: [{:ok, bytes}]
  defp object_code(:error), do: []

  defp kept(name, state) do
    for file <- Enum.flat_map(state.stack, &all_files/1) ++ state.ended,
        file.module == name,
        digest <- [file.old, file.new, file[:ran]],
        is_binary(digest),
        do: Blobs.fetch(Store.blobs(), digest)
  end

  defp all_files(record), do: record.files ++ Enum.flat_map(record.replaced, &all_files/1)

  defp kept_by_others(name, patch) do
    for {folder, record} <- Neighbours.records(patch),
        file <- record.files,
        file.module == name,
        digest <- [file.old, file.ran],
        is_binary(digest),
        do: Blobs.fetch(Store.blobs(folder), digest)
  end

  # The digest does not cover the attributes, among which is the version.
  defp is?(facts, {:ok, bytes}) when is_binary(bytes) do
    case :beam_lib.chunks(bytes, [:attributes]) do
      {:ok, {_module, [attributes: attributes]}} ->
        :code.module_md5(bytes) == facts.md5 and Keyword.get(attributes, :vsn, []) === facts.vsn

      _no_module ->
        false
    end
  end

  defp is?(_facts, _none), do: false

  @doc """
  Whether a patch may take the place of this code: where no rollback could bring it back, only if the
  operator has said so.
  """
  @spec restorable(t(), Path.t(), Payload.t()) :: :ok | {:error, String.t()}
  def restorable({:lost, _md5} = lost, target, payload) do
    # A payload that was kept by an earlier version has no such field.
    case Map.get(payload, :drift, :refuse) do
      :accept ->
        :ok

      :refuse ->
        {:error,
         remark(lost, target) <>
           "; put its file there, or apply the patch with drift: :accept, and a rollback goes to what is on disk"}
    end
  end

  def restorable(_kept, _target, _payload), do: :ok

  @doc "What a person is to know of it before the patch is applied; nil where there is nothing."
  @spec remark(t(), Path.t()) :: String.t() | nil
  def remark(:file, _target), do: nil

  def remark({:other, _bytes}, target) do
    "what runs is not what is on disk (#{target}): a rollback brings each back"
  end

  def remark({:lost, md5}, target) do
    "what runs (MD5 #{Base.encode16(md5, case: :lower)}) is neither on disk (#{target}) nor kept anywhere " <>
      "on this node: no rollback could bring it back"
  end
end
