defmodule HotPatch.Host.SystemLibrary do
  @moduledoc false
  # What a patch may never touch: OTP, Elixir, HotPatch itself, and whatever the code
  # server guards as sticky. In a release OTP's applications lie beside the user's own in
  # one lib folder, so they are known by name and not by place.

  @otp ~w(
    asn1 common_test compiler crypto debugger dialyzer diameter edoc eldap erl_docgen
    erl_interface erts et eunit ftp inets jinterface kernel megaco mnesia observer odbc os_mon
    parsetools public_key reltool runtime_tools sasl snmp ssh ssl stdlib syntax_tools tftp tools
    wx xmerl
  )
  @elixir ~w(eex elixir ex_unit iex logger mix)
  @ourselves ~w(hot_patch)

  @doc "Whether an application of this name belongs to the system."
  @spec application?(String.t()) :: boolean()
  def application?(name), do: name in @otp or name in @elixir or name in @ourselves

  @doc "Why something of a system application is refused."
  @spec reason(String.t(), String.t()) :: String.t()
  def reason(what, application) do
    "#{what} belongs to #{owner(application)}: system libraries are never patched, they change with an upgrade"
  end

  @doc "Says in words what a system application is part of, for a reason."
  @spec owner(String.t()) :: String.t()
  def owner(name) when name in @elixir, do: "Elixir"
  def owner(name) when name in @ourselves, do: "HotPatch itself"
  def owner(_name), do: "Erlang/OTP"
end
