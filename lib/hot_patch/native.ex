defmodule HotPatch.Native do
  @moduledoc false
  # Stubs of the native library, nothing more. A node without the library still runs an
  # agent: only the node that reads an archive needs it, so a failed load is remembered
  # and told to the one who asks, and never keeps the application from starting.

  @on_load :load
  @key {__MODULE__, :load}

  @type options ::
          {max_archive :: pos_integer(), max_entries :: pos_integer(),
           max_unpacked :: pos_integer(), max_name :: pos_integer(),
           significant_chunks :: [binary()]}

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

  @doc "Reads an archive; the answer is one term in External Term Format, for `:safe` decoding."
  @spec read_archive(binary(), options()) :: binary()
  def read_archive(_archive, _options), do: :erlang.nif_error(:nif_not_loaded)

  @doc """
  Copies modules under other names, each with `suffix` behind its own; the answer is one term in
  External Term Format: a list of `{:ok, %{name: _, bytes: _, lambdas: _}}` or `{:error, reason}`.
  """
  @spec shadow([binary()], binary()) :: binary()
  def shadow(_modules, _suffix), do: :erlang.nif_error(:nif_not_loaded)

  @doc """
  Compares modules before a change with those after it; `nil` for the names of those that go means
  all that are not there after it. `down?`: it is an older version that comes. The answer is one
  term in External Term Format, for `:safe` decoding; see HotPatch.Analysis.
  """
  @spec analyse(
          [binary()],
          [binary()],
          [String.t()] | nil,
          [{String.t(), String.t()}],
          down? :: boolean()
        ) :: binary()
  def analyse(_before, _after, _deleted, _compiled_with, _down?),
    do: :erlang.nif_error(:nif_not_loaded)

  @doc """
  The text of an `.appup`: for an application, its versions and its modules before and after, and
  whether it is to be restarted.
  """
  @spec appup(String.t(), {String.t(), String.t()}, {[binary()], [binary()]}, boolean()) ::
          binary()
  def appup(_application, _versions, _modules, _restart), do: :erlang.nif_error(:nif_not_loaded)

  @doc """
  Reads instructions of a manifest; the answer is one term in External Term Format: `{:ok, list}`,
  each as in HotPatch.Agent.Instructions, or `{:error, text}`.
  """
  @spec instructions([String.t()]) :: binary()
  def instructions(_texts), do: :erlang.nif_error(:nif_not_loaded)

  @doc "Every finding there can be: name, severity, what it means, what to do."
  @spec finding_names() :: [{String.t(), String.t(), String.t(), String.t()}]
  def finding_names, do: :erlang.nif_error(:nif_not_loaded)

  @doc """
  Builds a patch as the JSON of a request says (`hot_patch_core::build::Request`); the answer is
  one term in External Term Format: `{:ok, %{zip: _, manifest: _, notes: _, compared: _}}` or
  `{:error, text}`. Meanwhile `watcher` is sent `{:hot_patch_build, done, total}` now and then.
  """
  @spec build(binary(), [binary()], pid()) :: binary()
  def build(_request, _significant_chunks, _watcher), do: :erlang.nif_error(:nif_not_loaded)

  @doc """
  Puts a signature, as JSON, into an archive; the answer is `{:ok, zip}` or `{:error, text}` in
  External Term Format.
  """
  @spec sign(binary(), options(), binary()) :: binary()
  def sign(_archive, _options, _signature), do: :erlang.nif_error(:nif_not_loaded)

  @doc "Turns a term in External Term Format into JSON."
  @spec encode_json(binary()) :: {:ok, binary()} | {:error, binary()}
  def encode_json(_etf), do: :erlang.nif_error(:nif_not_loaded)
end
