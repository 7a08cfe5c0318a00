defmodule HotPatch.Store.FileChange do
  @moduledoc false
  # What is to become of one file of the system: it gets new bytes, or with none it goes.
  #
  #   * `folders` were made for a file that is to go
  #   * `executable?`: a new file is a program
  #   * `early?`: it is to be in place before new code is loaded, and goes back if that is not
  #   * `disk?`: false where only memory is changed, and the file stays as it is
  #   * `former` is the digest of what takes the place of the file's content as what was before,
  #     where memory is not what the disk is, or another node may have changed it already; `:none`
  #     where there was no file
  #   * `rights` are those that a file is to have that is not there now
  #   * `alone?` is a module that runs code when it is loaded

  alias HotPatch.Store.Blobs
  alias HotPatch.Store.Rights

  @type t :: %__MODULE__{
          target: Path.t(),
          bytes: binary() | nil,
          folders: [Path.t()],
          executable?: boolean(),
          early?: boolean(),
          disk?: boolean(),
          former: Blobs.digest() | :none | nil,
          rights: Rights.t() | nil,
          alone?: boolean()
        }
  @enforce_keys [:target, :bytes]
  defstruct [
    :target,
    :bytes,
    :former,
    :rights,
    folders: [],
    executable?: false,
    early?: false,
    disk?: true,
    alone?: false
  ]
end
