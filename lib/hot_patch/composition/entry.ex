defmodule HotPatch.Composition.Entry do
  @moduledoc """
  One file of an archive.

    * `:path` - its name in the archive
    * `:size` - bytes
    * `:sha256`, `:crc32` - of the bytes
    * `:kind` - `:beam`, `:damaged` (called `.beam` but not one, `:reason` says why), `:other`
    * `:executable` - whether the archive says that it is a program
    * `:bytes` - the file itself, exactly as it will be loaded and written; `nil` only where a
      rollback removes it
    * `:beam` - facts about the module, see `t:beam/0`, or `nil`
  """

  @typedoc """
  What is known of a module before any of its atoms exists: all names are binaries.

    * `:md5` - as `:code.module_md5/1` gives it
    * `:vsn`, `:attributes` - in External Term Format
    * `:on_load`, `:load_nif` - whether it runs code when loaded, or loads a NIF library
    * `:needs_otp` - the OTP release that is needed at least, as far as it is known
    * `:compiler` - version of the compiler that made it
    * `:compressed` - whether the file is gzip'd
  """
  @type beam :: %{
          module: String.t(),
          md5: <<_::128>> | nil,
          vsn: binary() | nil,
          attributes: binary(),
          exports: [{String.t(), arity()}],
          imports: [{String.t(), String.t(), arity()}],
          behaviours: [String.t()],
          chunks: [{String.t(), non_neg_integer()}],
          on_load: boolean(),
          load_nif: boolean(),
          needs_otp: pos_integer() | nil,
          compiler: String.t() | nil,
          compressed: boolean()
        }

  @type t :: %__MODULE__{
          path: String.t(),
          size: non_neg_integer(),
          crc32: non_neg_integer(),
          sha256: <<_::256>>,
          bytes: binary() | nil,
          executable: boolean(),
          kind: :beam | :damaged | :other,
          reason: String.t() | nil,
          beam: beam() | nil
        }
  @enforce_keys [:path, :size, :crc32, :sha256, :bytes, :kind]
  defstruct [:path, :size, :crc32, :sha256, :bytes, :kind, :reason, :beam, executable: false]

  @doc """
  What the file is, in a word or two: the module's name for a module.
  """
  @spec kind_text(t()) :: String.t()
  def kind_text(%__MODULE__{kind: :beam, beam: %{on_load: true}}), do: "module, on_load"
  def kind_text(%__MODULE__{kind: :beam, beam: %{load_nif: true}}), do: "module, NIF"
  def kind_text(%__MODULE__{kind: :beam}), do: "module"
  def kind_text(%__MODULE__{kind: :damaged}), do: "damaged module"
  def kind_text(%__MODULE__{kind: :other}), do: "other file"

  defimpl Inspect do
    def inspect(entry, _options) do
      HotPatch.Printable.line(
        "#HotPatch.Composition.Entry<#{entry.path} #{HotPatch.Composition.Entry.kind_text(entry)}>"
      )
    end
  end
end
