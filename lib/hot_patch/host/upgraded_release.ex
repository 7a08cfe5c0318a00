defmodule HotPatch.Host.UpgradedRelease do
  @moduledoc false
  # The release that an upgrade has made current in this VM. The boot script names another one then: a
  # restart begins with what that says, and a persistent term ends with the VM, as it should.

  @key __MODULE__

  @doc "Name and version, `nil` where this VM runs what it was booted into."
  @spec get() :: {String.t(), String.t()} | nil
  def get, do: :persistent_term.get(@key, nil)

  @doc "This VM runs that release from now on; with `nil`, or with the one of the boot script, what it was booted into."
  @spec put({String.t(), String.t()} | nil) :: :ok
  def put(nil) do
    _ = :persistent_term.erase(@key)
    :ok
  end

  def put({_name, _version} = release), do: :persistent_term.put(@key, release)
end
