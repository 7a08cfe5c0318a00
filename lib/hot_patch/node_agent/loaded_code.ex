defmodule HotPatch.NodeAgent.LoadedCode do
  @moduledoc false
  # Facts about code as this node runs it, read from the code server and the VM without
  # calling into any of the modules.

  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  @typedoc "The current code of a module: its digest, and its `vsn` attribute as the code has it."
  @type t :: %__MODULE__{md5: binary(), vsn: [term()]}
  @enforce_keys [:md5, :vsn]
  defstruct [:md5, :vsn]

  @doc """
  The atom of a module name, if the VM already knows it.

  A module whose atom does not exist cannot be loaded here, so no atom is made to ask.
  """
  @spec module(String.t()) :: {:ok, module()} | :unknown
  def module(name) do
    {:ok, String.to_existing_atom(name)}
  rescue
    ArgumentError -> :unknown
  end

  @doc """
  The atom of a module that is about to be loaded, of a patch that was accepted: see
  HotPatch.NodeAgent.Acceptance.
  """
  @spec accepted_module(String.t()) :: module()
  def accepted_module(name), do: :erlang.binary_to_atom(name, :utf8)

  @doc "What is known of a module's current code; `nil` if it is not loaded."
  @spec facts(module()) :: t() | nil
  def facts(module) do
    if :erlang.module_loaded(module) do
      %__MODULE__{
        md5: :erlang.get_module_info(module, :md5),
        vsn: module |> :erlang.get_module_info(:attributes) |> vsn()
      }
    end
  rescue
    # Deleted between the two calls.
    ArgumentError -> nil
  end

  @doc "The digest of the running code of a module, by its name; nil if it is not loaded."
  @spec md5_of(String.t()) :: binary() | nil
  def md5_of(name) do
    with {:ok, module} <- module(name), do: md5(module), else: (:unknown -> nil)
  end

  @doc """
  The MD5 of a module's current code; `nil` if it is not loaded. The VM has it at hand, so that it
  may be asked for every module of a system.
  """
  @spec md5(module()) :: binary() | nil
  def md5(module) do
    :erlang.get_module_info(module, :md5)
  rescue
    # What has no code has no such thing.
    ArgumentError -> nil
  end

  @doc """
  The exports of a module's current code. The VM looks through all functions of all modules for
  them: this is for a few modules only.
  """
  @spec exports(module()) :: [{atom(), arity()}]
  def exports(module), do: :erlang.get_module_info(module, :exports)

  @doc "The `vsn` attribute as release_handler hands it to code_change: without its list if it is one."
  @spec old_vsn(t()) :: term()
  def old_vsn(%{vsn: [vsn]}), do: vsn
  def old_vsn(%{vsn: vsn}), do: vsn

  @doc "The same of a file's attribute, in External Term Format; nil if it has none."
  @spec vsn_of(binary() | nil) :: term()
  def vsn_of(nil), do: nil

  def vsn_of(etf) do
    case decode_vsn(etf) do
      [vsn] -> vsn
      vsn -> vsn
    end
  end

  @doc "Whether the running version is that of a file: same code and same `vsn`."
  @spec same?(t(), binary(), binary() | nil) :: boolean()
  def same?(facts, md5, vsn), do: facts.md5 == md5 and facts.vsn === decode_vsn(vsn)

  @doc """
  The path from which the node loads a module: of the code that runs, else of the file
  that the code path would give. `:none` when there is no such file.
  """
  @spec path(String.t()) :: {:loaded | :on_disk, Path.t()} | {:loaded, :no_file} | :none | :system
  def path(name) do
    with {:ok, module} <- module(name), true <- :erlang.module_loaded(module) do
      case :code.is_loaded(module) do
        {:file, :preloaded} -> :system
        {:file, file} -> {:loaded, file_of(name, file, :code.get_path())}
        false -> {:loaded, really(nil, name, [])}
      end
    else
      _ -> on_disk(name)
    end
  end

  @doc """
  The file from which a loaded module comes, by what the code server says of it and the code path:
  for those who ask for many modules, and read both once.
  """
  @spec file_of(String.t(), charlist() | atom(), [charlist()]) :: Path.t() | :no_file
  def file_of(name, [_ | _] = file, code_path), do: file |> expand() |> really(name, code_path)
  # Loaded from memory, or compiled for coverage.
  def file_of(name, _no_file, code_path), do: really(nil, name, code_path)

  @doc "The folder of an application on this node."
  @spec application_folder(String.t()) :: {:ok, atom(), Path.t()} | :unknown
  def application_folder(name) do
    with {:ok, application} <- module(name),
         folder when is_list(folder) <- :code.lib_dir(application) do
      {:ok, application, expand(folder)}
    else
      _ -> :unknown
    end
  end

  @doc "Whether modules must be loaded explicitly: nothing is loaded on first use."
  @spec embedded?() :: boolean()
  def embedded?, do: :code.get_mode() == :embedded

  # Code loaded by hand names a file that is not the node's, or none; and a file may have gone.
  defp really(file, name, code_path) do
    own? = file != nil and FileName.to_charlist(Path.dirname(file)) in code_path

    if own? and there?(file) do
      file
    else
      case on_disk(name) do
        {:on_disk, other} -> other
        :none -> if own?, do: file, else: :no_file
      end
    end
  end

  defp there?(file), do: match?({:ok, _info}, :file.read_file_info(file, [:raw]))

  defp on_disk(name) do
    case :code.where_is_file(FileName.to_charlist(name <> ".beam")) do
      :non_existing -> :none
      file -> {:on_disk, expand(file)}
    end
  end

  # A vsn holding atoms that do not exist here cannot be the running one.
  defp decode_vsn(nil), do: []

  defp decode_vsn(etf) do
    :erlang.binary_to_term(etf, [:safe])
  rescue
    ArgumentError -> :unknown
  end

  defp vsn(attributes), do: Keyword.get(attributes, :vsn, [])

  defp expand(charlist), do: charlist |> FileName.to_binary() |> Folder.absolute()
end
