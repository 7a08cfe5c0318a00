defmodule HotPatch.NodeAgent.PreviousCode do
  @moduledoc false
  # Where the code is that a module runs now: a rollback has to bring that back, and the file of the
  # module may hold another version, because somebody has loaded code by hand or copied a file.

  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Store.SharedHost
  alias HotPatch.Support.Hex

  @typedoc """
  `:file`: the module's file has it. `:brought`: it is what the patch brings, and the file has another:
  somebody has loaded it by hand, or an operation was cut off after the load. `{:other, bytes}`: it was
  found elsewhere. `{:lost, md5}`: nothing on this node has it.
  """
  @type t :: :file | :brought | {:other, binary()} | {:lost, md5 :: binary()}

  @doc """
  Looks for the running code of a module that is loaded from `target`: in the file, where the code
  server has it from, and among what is kept here or by other nodes of this host to take patches back.

  `brought?` tells that it is what the patch brings: the file of a patch that is not accepted yet is not
  looked into here. Whoever takes that patch back wants its code gone, and not left because it ran before.
  """
  @spec find(module(), Path.t(), boolean(), String.t()) :: t()
  def find(module, target, brought?, patch) do
    case LoadedCode.facts(module) do
      nil ->
        :file

      facts ->
        if is?(facts, File.read(target)), do: :file, else: other(module, facts, brought?, patch)
    end
  end

  defp other(_module, _facts, true, _patch), do: :brought
  defp other(module, facts, false, patch), do: elsewhere(module, facts, patch)

  defp elsewhere(module, facts, patch) do
    name = Atom.to_string(module)

    [
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
    for {folder, record} <- SharedHost.records(patch),
        file <- record.files,
        file.module == name,
        digest <- [file.old, file.ran],
        is_binary(digest),
        do: Blobs.fetch(Store.blobs(folder), digest)
  end

  # The digest does not cover the attributes, among which is the version. They are looked at only where
  # the digest says that it is the very code that runs here.
  defp is?(facts, {:ok, bytes}),
    do: :code.module_md5(bytes) == facts.md5 and vsn(bytes) === facts.vsn

  defp is?(_facts, _none), do: false

  defp vsn(bytes) do
    {:ok, {_module, [attributes: attributes]}} = :beam_lib.chunks(bytes, [:attributes])
    Keyword.get(attributes, :vsn, [])
  end

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

  def remark(:brought, target) do
    "it runs what the patch brings already, and what is on disk (#{target}) is not that: a rollback goes to " <>
      "what is on disk"
  end

  def remark({:other, _bytes}, target) do
    "what runs is not what is on disk (#{target}): a rollback brings each back"
  end

  def remark({:lost, md5}, target) do
    "what runs (MD5 #{Hex.encode(md5)}) is neither on disk (#{target}) nor kept anywhere " <>
      "on this node: no rollback could bring it back"
  end
end
