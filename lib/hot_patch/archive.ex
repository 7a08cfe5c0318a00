defmodule HotPatch.Archive do
  @moduledoc false
  # The one reader of archives: bytes in, a composition or one refusal out. What it gives
  # is what is shown, checked, loaded and written; nothing unzips a second time.

  alias HotPatch.Bridge
  alias HotPatch.Composition
  alias HotPatch.Composition.Entry
  alias HotPatch.Error
  alias HotPatch.Host.Config
  alias HotPatch.Manifest
  alias HotPatch.Refusal
  alias HotPatch.Signature
  alias HotPatch.Support.Hex

  # The rules of the reader. The reply is decoded with :safe, so each must exist as an
  # atom; the test suite compares this list with the reader's own.
  @rules ~w(
    archive_too_big not_a_zip truncated empty_archive too_many_entries unpacked_too_big
    out_of_memory multi_disk zip64 prefix suffix second_archive hidden_entry gap overlap
    bad_directory bad_local_header header_mismatch bad_descriptor bare_descriptor bad_extra_field
    unknown_extra_field inconsistent_headers name_empty name_too_long name_not_utf8 name_nul name_control
    name_invisible name_backslash name_absolute name_drive name_parent name_dot
    name_empty_part name_trailing_dot name_trailing_space name_colon name_windows name_reserved
    name_version second_name duplicate_name case_collision unicode_collision file_is_folder symlink
    special_file unknown_system volume_label kind_mismatch folder_with_data encrypted unsupported_method
    unsupported_version unsupported_flag record_in_data damaged_stream bytes_after_stream
    size_too_small size_too_large bad_crc too_many_atoms too_many_functions too_much_memory
    manifest_too_big manifest_too_deep manifest_malformed manifest_duplicate
    manifest_unknown_field manifest_schema manifest_unlisted manifest_missing manifest_digest
    manifest_module manifest_instruction manifest_config manifest_upgrade signature_malformed signature_alone
  )a

  # Likewise the keys of the reply. A module's literals are atoms from its loading on.
  @beam_keys ~w(module md5 vsn attributes exports imports behaviours chunks on_load load_nif
                needs_otp compiler compressed load name lambdas by_name effect makes_funs)a
  @load_keys ~w(atoms functions literal_words added_literals memory)a
  @reply_keys ~w(sha256 size files left_out path crc32 bytes executable kind rule reason beam other
                 damaged refused entry message ok true false nil manifest content signature
                 zip notes compared analysis refusal error)a

  @instruction_keys ~w(what text subject module how function arity term brutal time update
                       load_module add_module delete_module add_application remove_application
                       restart_application apply soft advanced supervisor children permanent
                       transient temporary load none)a

  # What modules may take in the VM that loads them, in the order in which the reader takes it.
  @load_limits ~w(max_module_atoms max_atoms max_module_functions max_functions max_literal_words
                  max_literal_depth max_added_literals max_module_memory max_memory)a

  @doc "Names of all rules by which an archive can be refused."
  @spec rules() :: [atom()]
  def rules, do: @rules

  @doc "Every atom that a reply of the reader can hold."
  @spec vocabulary() :: [atom()]
  def vocabulary do
    @rules ++ @beam_keys ++ @load_keys ++ @reply_keys ++ @instruction_keys ++ Bridge.vocabulary()
  end

  @doc """
  Reads an archive. `name` becomes the first part of the patch's id. An upgrade may be as large as the tarball of a
  release, of which it may be all: one to another Erlang/OTP brings every application.
  """
  @spec read(binary(), String.t()) :: {:ok, Composition.t()} | {:error, Refusal.t() | Error.t()}
  def read(bytes, name) do
    limits = Config.current()

    with {:error, %Refusal{rule: :archive_too_big}} = refused <-
           read(bytes, name, limits.max_archive_bytes) do
      case byte_size(bytes) <= limits.max_release_bytes &&
             read(bytes, name, limits.max_release_bytes) do
        {:ok, %Composition{manifest: %{upgrade: %{}}}} = upgrade -> upgrade
        _no_upgrade -> refused
      end
    end
  end

  defp read(bytes, name, most) do
    options = put_elem(options(), 0, most)

    with {:ok, answer} <- Bridge.request("read_archive", [first(bytes, most)], options, name),
         do: outcome(answer, name)
  end

  # One byte more than the limit is enough to be refused, and need not be sent.
  defp first(bytes, most),
    do: if(byte_size(bytes) > most, do: binary_part(bytes, 0, most + 1), else: bytes)

  @doc """
  Copies of modules under other names, each made or refused; `naming` is how names become others at run
  time, and `id` names the patch in an error.
  """
  @spec copies([binary()], tuple(), String.t()) ::
          {:ok, [{:ok, map()} | {:error, String.t()}]} | {:error, Error.t()}
  def copies(modules, naming, id), do: Bridge.request("shadow", modules, naming, id)

  @doc """
  Where functions lead that are in these modules: what they call out of them, each as `{module, name, arity}`, and
  why some of that is not known. `id` names the patch in an error.
  """
  @spec leads([binary()], [function], String.t()) ::
          {:ok, [{out :: [function], unknown :: [String.t()]}]} | {:error, Error.t()}
        when function: {String.t(), String.t(), arity()}
  def leads(modules, functions, id), do: Bridge.request("leads", modules, functions, id)

  @doc "What the manifest of a patch has done beside its modules, read."
  @spec instructions(Composition.t()) ::
          {:ok, %{up: [map()], down: [map()]}} | {:error, Error.t()}
  def instructions(%Composition{manifest: nil}), do: {:ok, %{up: [], down: []}}

  def instructions(%Composition{manifest: %{instructions: texts}, id: id}) do
    with {:ok, up} <- read_instructions(texts.up, id),
         {:ok, down} <- read_instructions(texts.down, id),
         do: {:ok, %{up: up, down: down}}
  end

  # They were read with the archive: here nothing can be wrong with them.
  defp read_instructions(texts, id) do
    with {:ok, {:ok, read}} <- Bridge.request("instructions", texts, nil, id), do: {:ok, read}
  end

  @doc "The id of an archive: its name and the first 12 hex digits of its SHA-256."
  @spec id(String.t(), binary()) :: String.t()
  def id(name, sha256) do
    name <> "-" <> (sha256 |> binary_part(0, 6) |> Hex.encode())
  end

  @doc "The limits in force, as the reader takes them."
  @spec options() :: tuple()
  def options do
    limits = Config.current()
    load = for key <- @load_limits, do: Map.fetch!(limits, key)

    {limits.max_archive_bytes, limits.max_entries, limits.max_unpacked_bytes,
     limits.max_name_bytes, List.to_tuple(load), significant_chunks()}
  end

  @doc "The VM's own list, so that a digest here is what code:module_md5/1 gives there."
  @spec significant_chunks() :: [String.t()]
  def significant_chunks do
    Enum.map(:beam_lib.significant_chunks() -- [~c"Line", ~c"Type"], &List.to_string/1)
  end

  defp outcome({:ok, composition}, name), do: {:ok, composition(composition, name)}
  defp outcome({:refused, refusal}, _name), do: {:error, struct!(Refusal, refusal)}

  defp composition(%{sha256: sha256, size: size, files: files} = read, name) do
    %Composition{
      id: id(name, sha256),
      sha256: sha256,
      size: size,
      files: Enum.map(files, &struct!(Entry, &1)),
      load: read.load,
      left_out: read.left_out,
      manifest: Manifest.new(read.manifest),
      signature: Signature.new(read.signature)
    }
  end
end
