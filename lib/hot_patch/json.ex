defmodule HotPatch.JSON do
  @moduledoc false
  # JSON of everything the public functions give. Structs become plain maps here; the text
  # itself is written by serde_json on the other side of the bridge, because Elixir has no
  # encoder of its own before OTP 27.

  alias HotPatch.Bridge
  alias HotPatch.Composition
  alias HotPatch.Error
  alias HotPatch.Host.Keys
  alias HotPatch.Manifest
  alias HotPatch.Release
  alias HotPatch.Signature
  alias HotPatch.Status
  alias HotPatch.Support.Hex

  @statuses Status.all()

  @doc "Encodes a result, or a list of results."
  @spec encode(term()) :: {:ok, String.t()} | {:error, Error.t()}
  def encode(term) do
    etf = term |> plain() |> :erlang.term_to_binary()

    case Bridge.request("encode_json", [etf], [], "the result") do
      {:ok, {:ok, json}} -> {:ok, json}
      {:ok, {:error, why}} -> {:error, Error.new(:internal, "cannot be written as JSON: #{why}")}
      {:error, error} -> {:error, error}
    end
  end

  defp plain(%DateTime{} = time), do: DateTime.to_iso8601(time)
  defp plain(%Release{} = release), do: release |> Map.from_struct() |> plain()

  # The bytes of the files are what the archive is for, not what a list of them is for.
  defp plain(%Composition.Entry{beam: beam} = entry) do
    entry
    |> Map.from_struct()
    |> Map.drop([:bytes, :beam])
    |> Map.merge(%{sha256: Hex.encode(entry.sha256), beam: beam && beam(beam)})
    |> plain()
  end

  # As it was read, not as it is written.
  defp plain(%Manifest{} = manifest),
    do: manifest |> Map.from_struct() |> Map.drop([:bytes]) |> plain()

  defp plain(%Signature{} = signature) do
    %{name: signature.name, key: Base.encode64(signature.key), id: Keys.id(signature.key)}
  end

  defp plain(%{__struct__: _, sha256: sha256} = struct) when is_binary(sha256) do
    struct |> Map.from_struct() |> Map.put(:sha256, Hex.encode(sha256)) |> plain()
  end

  defp plain(%{__exception__: true} = exception) do
    exception
    |> Map.from_struct()
    |> Map.drop([:__exception__])
    |> Map.put(:error, exception.__struct__ |> Module.split() |> List.last())
    |> plain()
  end

  defp plain(%{__struct__: _} = struct), do: struct |> Map.from_struct() |> plain()

  defp plain(map) when is_map(map),
    do: map |> with_code() |> Map.new(fn {key, value} -> {key(key), plain(value)} end)

  defp plain(list) when is_list(list) do
    if List.improper?(list), do: inspect(list), else: Enum.map(list, &plain/1)
  end

  defp plain({kind, module}) when kind in [:add, :replace, :delete],
    do: %{"change" => kind, "module" => module}

  defp plain(other) when is_pid(other) or is_reference(other), do: inspect(other)
  defp plain(other) when is_tuple(other), do: inspect(other)
  defp plain(other), do: other

  # A status has its code beside it, for programs that store that.
  defp with_code(%{status: status} = map) when status in @statuses,
    do: Map.put_new(map, :status_code, Status.code(status))

  defp with_code(map), do: map

  defp beam(beam) do
    %{
      beam
      | md5: Hex.encode(beam.md5),
        vsn: beam.vsn && beam.vsn |> safe_term() |> inspect(),
        exports: Enum.map(beam.exports, fn {name, arity} -> "#{name}/#{arity}" end),
        imports: Enum.map(beam.imports, fn {m, f, arity} -> "#{m}:#{f}/#{arity}" end),
        chunks: Enum.map(beam.chunks, fn {id, size} -> %{"id" => id, "size" => size} end)
    }
    |> Map.delete(:attributes)
  end

  # A vsn with atoms that this node has never seen is shown as it came.
  defp safe_term(etf) do
    :erlang.binary_to_term(etf, [:safe])
  rescue
    ArgumentError -> {:external, Base.encode16(etf)}
  end

  defp key(key) when is_atom(key) or is_binary(key), do: to_string(key)
  defp key(key), do: inspect(key)
end
