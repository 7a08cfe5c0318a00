defmodule HotPatch.Composition.Entry do
  @moduledoc """
  One file of an archive.

    * `:path` - its name in the archive
    * `:size` - bytes
    * `:sha256`, `:crc32` - of the bytes
    * `:executable` - whether the archive says that it is a program
    * `:kind` - `:beam`, `:damaged` (called `.beam` but not one that can be loaded), `:other`
    * `:rule`, `:reason` - of a damaged file: the name of the rule that it breaks, and what is wrong
    * `:bytes` - the file itself, exactly as it will be loaded and written; `nil` only where a
      rollback removes it
    * `:beam` - facts about the module, see `t:beam/0`, or `nil`
  """

  @typedoc """
  What is known of a module before any of its atoms exists: all names are binaries.

    * `:md5` - of the code, as OTP computes it
    * `:vsn`, `:attributes` - in External Term Format
    * `:on_load`, `:load_nif` - whether it runs code when loaded, or loads a NIF library
    * `:needs_otp` - the OTP release that is needed at least, as far as it is known
    * `:compiler` - version of the compiler that made it
    * `:compressed` - whether the file is gzip'd
    * `:load` - what it takes in the VM that loads it; `nil` for a file on disk
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
          compressed: boolean(),
          load: load() | nil
        }

  @typedoc """
  What a module, or all modules of an archive together, take in the VM that loads them. The names
  of atoms and functions stay in it for good.

    * `:atoms` - different ones: named in code, literals, attributes
    * `:functions` - different ones: its own, and those of other modules that it calls
    * `:literal_words` - of the literals
    * `:added_literals` - literals that the loader makes: file names, large integers, sets of keys
    * `:memory` - bytes at most, of code, literals, lines
  """
  @type load :: %{
          atoms: non_neg_integer(),
          functions: non_neg_integer(),
          literal_words: non_neg_integer(),
          added_literals: non_neg_integer(),
          memory: non_neg_integer()
        }

  @type t :: %__MODULE__{
          path: String.t(),
          size: non_neg_integer(),
          crc32: non_neg_integer(),
          sha256: <<_::256>>,
          bytes: binary() | nil,
          executable: boolean(),
          kind: :beam | :damaged | :other,
          rule: String.t() | nil,
          reason: String.t() | nil,
          beam: beam() | nil
        }
  @enforce_keys [:path, :size, :crc32, :sha256, :bytes, :kind]
  defstruct [
    :path,
    :size,
    :crc32,
    :sha256,
    :bytes,
    :kind,
    :rule,
    :reason,
    :beam,
    executable: false
  ]

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
      HotPatch.Support.Printable.line(
        "#HotPatch.Composition.Entry<#{entry.path} #{HotPatch.Composition.Entry.kind_text(entry)}>"
      )
    end
  end
end
