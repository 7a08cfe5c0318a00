defmodule HotPatch.Native do
  @moduledoc false
  # Stubs of the native library, nothing more: one function for all requests, and `build`, which is
  # none. A node without the library still runs an agent, and one with the port never calls it, so a failed load is remembered and told to the
  # one who asks, and never keeps the application from starting.

  @on_load :load
  @key {__MODULE__, :load}

  @doc false
  @spec load() :: :ok
  def load do
    path = :filename.join(:code.priv_dir(:hot_patch), ~c"native/libhot_patch_nif")
    :persistent_term.put(@key, :erlang.load_nif(path, 0))
  rescue
    # priv_dir gives {:error, :bad_name} where the application's folder is not known.
    error -> :persistent_term.put(@key, {:error, {:bad_name, Exception.message(error)}})
  end

  @doc "Whether the library is there, and if not, why."
  @spec status() :: :ok | {:error, term()}
  def status, do: :persistent_term.get(@key, {:error, :not_loaded})

  @doc """
  Carries out a request (see native/core/src/requests): its name, its blobs, its options as an
  encoded term. The reply is an encoded term, for `:safe` decoding.
  """
  @spec request(String.t(), [binary()], binary()) :: binary()
  def request(_name, _blobs, _options), do: :erlang.nif_error(:nif_not_loaded)

  # It reads files of the operator's own builds, as long as that takes, and tells how far it is;
  # the port is made for bytes from outside, with a cap on memory and time, and answers once.
  @doc """
  Builds a patch as the JSON of a request says (`hot_patch_build::Request`); the answer is
  one term in External Term Format: `{:ok, %{zip: _, manifest: _, notes: _, compared: _}}` or
  `{:error, text}`. Meanwhile `watcher` is sent `{:hot_patch_build, done, total}` now and then.
  """
  @spec build(binary(), [binary()], pid()) :: binary()
  def build(_request, _significant_chunks, _watcher), do: :erlang.nif_error(:nif_not_loaded)
end
