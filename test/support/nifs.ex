defmodule HotPatch.Test.Nifs do
  @moduledoc false
  # A module that loads a NIF library, in several versions. The library is HotPatch's own under another
  # module's name; which of two it is shows by the function that it brings.

  alias HotPatch.Test.Builds

  @module :hot_patch_test_nif_mod
  @own "Elixir.HotPatch.Native"

  @doc "The module."
  @spec module() :: module()
  def module, do: @module

  @doc "Whether there is a library to make them of, and what the system says of those that are loaded."
  @spec available?() :: boolean()
  def available?, do: File.exists?(source()) and File.exists?("/proc/self/maps")

  defp source, do: Application.app_dir(:hot_patch, "priv/native/libhot_patch_nif.so")

  @doc "A library: `a` brings the function `request`, `b` the function `requesb`."
  @spec library(:a | :b) :: binary()
  def library(which) do
    bytes = :binary.replace(File.read!(source()), @own, Atom.to_string(@module))
    if which == :a, do: bytes, else: :binary.replace(bytes, "\0request\0", "\0requesb\0")
  end

  @doc """
  A version of the module. Options: `library:`, the name of the file below `priv` without its ending;
  `reads:`, a file below `priv` whose content is noted when the module is loaded; `fails: true`.
  """
  @spec code(pos_integer(), keyword()) :: binary()
  def code(vsn, options \\ []) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn(#{vsn}).
    -on_load(init/0).
    -export([vsn/0, which/0, noted/0, request/3, requesb/3, build/3]).
    init() ->
        #{reads(options[:reads])}
        #{load(options[:library])}
        #{if options[:fails], do: "{error, refused}", else: "ok"}.
    vsn() -> #{vsn}.
    noted() -> persistent_term:get(#{@module}, none).
    which() -> which([{a, fun request/3}, {b, fun requesb/3}]).
    which([]) -> none;
    which([{Name, Fun} | Rest]) ->
        try Fun(<<"x">>, [], <<>>) of _ -> Name catch error:stub -> which(Rest) end.
    request(_, _, _) -> erlang:nif_error(stub).
    requesb(_, _, _) -> erlang:nif_error(stub).
    build(_, _, _) -> erlang:nif_error(stub).
    """)
  end

  defp load(nil), do: ""

  defp load(name),
    do: ~s|ok = erlang:load_nif(filename:join(code:priv_dir(exchange), "#{name}"), 0),|

  defp reads(nil), do: ""

  defp reads(name) do
    ~s|persistent_term:put(#{@module}, file:read_file(filename:join(code:priv_dir(exchange), "#{name}"))),|
  end
end
