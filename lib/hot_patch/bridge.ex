defmodule HotPatch.Bridge do
  @moduledoc """
  The way to the reader of archives, which is written in Rust, and to what else is done with
  bytes that come from outside: comparing modules, signing, JSON. What can be asked is listed in
  native/core/src/requests; only `HotPatch.Build` does not go this way, see HotPatch.Native.

  There are two, with the same answers to the byte:

    * `:port` (the default) - a program of its own beside the VM, `priv/native/hot_patch`. It is
      started when the first archive is read and ends when none was for a minute
    * `:nif` - a library inside the VM, `priv/native/libhot_patch_nif.so`

  ```elixir
  config :hot_patch, bridge: :nif
  ```

  ## Why the port is the default

  An archive comes from outside, and the promise is that no upload can take a node down. A NIF
  shares the fate of the VM: where an allocation fails or a stack overflows the whole node ends,
  however carefully the rest is written. The same mishap in the program ends the program: the
  caller is told which archive it was reading, and the next archive is read by a new one. Its
  memory is capped by the system (`setrlimit`), it can write no files, and it is given no more
  time than `config :hot_patch, port_timeout: ms` (default 60,000).

  What that costs is the way there and back, one or two milliseconds, and three to six for each
  megabyte (`bench/archive.exs`), in a call that an operator makes by hand. Take `:nif` where no
  program may be started beside the VM.

  ## Memory

  The cap on the program's memory is made of the limits on archives, so that whatever they allow
  fits. `config :hot_patch, port_memory: bytes` (at least 32 MB) sets another, or `:infinity` none;
  an archive that needs more is refused, or ends the program.
  """

  alias HotPatch.Error
  alias HotPatch.Host.Config

  @typedoc "Bytes, or a file of which no more than so many bytes are read."
  @type blob :: binary() | {:path, Path.t(), most :: pos_integer()}

  @doc "Whether the bridge can be crossed on this node, and if not, why."
  @callback status() :: :ok | {:error, String.t()}

  @doc """
  Has a request carried out: its name, what it is about, its options as an encoded term. `about`
  names the archive for messages. The reply is an encoded term.
  """
  @callback request(name :: String.t(), [blob()], options :: binary(), about :: String.t()) ::
              {:ok, binary()} | {:error, Error.t()}

  # The kinds of failure that the other side knows. Replies are decoded with :safe, so each must
  # exist as an atom.
  @kinds [:unknown_request, :bad_request, :cancelled, :internal, :no_memory, :file]

  @doc false
  @spec vocabulary() :: [atom()]
  def vocabulary, do: [:failed | @kinds]

  @doc false
  @spec implementation() :: module()
  def implementation do
    case Config.current().bridge do
      :port -> HotPatch.Bridge.OSProcess
      :nif -> HotPatch.Bridge.Nif
    end
  end

  @doc false
  @spec check() :: :ok | {:error, Error.t()}
  def check, do: check(implementation())

  @doc false
  @spec check(module()) :: :ok | {:error, Error.t()}
  def check(bridge) do
    with {:error, cause} <- bridge.status(), do: {:error, missing(cause)}
  end

  @doc false
  @spec request(String.t(), [blob()], term(), String.t()) :: {:ok, term()} | {:error, Error.t()}
  def request(name, blobs, options, about) do
    with :ok <- check(),
         {:ok, reply} <-
           implementation().request(name, blobs, :erlang.term_to_binary(options), about) do
      reply |> :erlang.binary_to_term([:safe]) |> answer(about)
    end
  end

  defp answer({:failed, :file, why}, about) do
    {:error, Error.new(:file, "#{about}: cannot be read on #{node()}: #{why}")}
  end

  defp answer({:failed, kind, why}, about) when kind in @kinds do
    {:error, failed(about, why, %{cause: kind})}
  end

  defp answer(answer, _about), do: {:ok, answer}

  @doc false
  @spec failed(String.t(), String.t(), map()) :: Error.t()
  def failed(about, why, details) do
    Error.new(
      :reader,
      "#{about}: the reader failed at it on #{node()}: #{why}. Nothing was changed, and it is " <>
        "not tried again by itself; #{advice(details)}",
      details
    )
  end

  defp advice(%{cause: :timeout}),
    do: "config :hot_patch, port_timeout: gives it more milliseconds"

  defp advice(%{cause: :no_memory}),
    do: "config :hot_patch, port_memory: gives it more bytes of memory"

  defp advice(_details), do: "see where it comes from before you try again"

  @doc false
  @spec missing(String.t()) :: Error.t()
  def missing(cause) do
    Error.new(
      :no_native,
      "this node (#{node()}) cannot read archives: #{cause}; run the call on a node that can, " <>
        "or rebuild with `mix compile` where cargo is installed",
      %{cause: cause}
    )
  end
end
