defmodule HotPatch.Test.Phoenix do
  @moduledoc false
  # Stand-ins for what of Phoenix 1.8 and LiveView 1.2 a swap has to do with: servers with the initial call, label, state and
  # code_change that those have, and views, components and channels as their `use` makes them. `push` sends what
  # a browser would be told to the process in the place of its socket.

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Servers

  @channel Phoenix.LiveView.Channel
  @server Phoenix.Channel.Server

  @doc "Loads the libraries' modules, in this version of LiveView, until the end of the test."
  @spec load!(charlist()) :: :ok
  def load!(vsn \\ ~c"1.2.10") do
    Servers.load(@channel, channel())
    Servers.load(@server, server())

    :ok =
      :application.load(
        {:application, :phoenix_live_view,
         [vsn: vsn, modules: [@channel], applications: [:kernel, :stdlib]]}
      )

    ExUnit.Callbacks.on_exit(fn ->
      _ = :application.unload(:phoenix_live_view)
      Enum.each([@channel, @server], &Servers.unload/1)
    end)
  end

  @doc "What the browser of a view is told next, and the events that come with it."
  @spec shown(pid()) :: {text :: term(), events :: term()}
  def shown(pid) do
    receive do
      {:diff, ^pid, text, events} -> {text, events}
    after
      120_000 -> ExUnit.Assertions.flunk("it has not rendered")
    end
  end

  @doc "The code of LiveView's server; `note` comes to what its code_change gives, after the user's."
  @spec channel(String.t()) :: binary()
  def channel(note \\ "\#{}") do
    Builds.erlang(
      ~S"""
      -module('Elixir.Phoenix.LiveView.Channel').
      -behaviour(gen_server).
      -export([start/2, init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
      start(From, Rest) -> gen_server:start('Elixir.Phoenix.LiveView.Channel', From, [{hibernate_after, Rest}]).
      init({Pid, _Ref}) -> {ok, monitor(process, Pid)}.

      handle_info({'Elixir.Phoenix.Channel', {View, Transport, Assigns, Private}, From}, Ref) when is_reference(Ref) ->
          demonitor(Ref),
          put('$process_label', {'Elixir.Phoenix.LiveView', View, <<"lv:1">>}),
          put('$initial_call', {View, mount, 3}),
          Socket = #{'__struct__' => 'Elixir.Phoenix.LiveView.Socket', view => View, transport_pid => Transport,
                     assigns => Assigns#{'__changed__' => #{}}, private => Private},
          {ok, Mounted} = View:mount(#{}, #{}, Socket),
          gen_server:reply(From, ok),
          {noreply, render(#{socket => Mounted, topic => <<"lv:1">>, join_ref => <<"1">>, components => {#{}, #{}, 1},
                             fingerprints => {nil, #{}}, redirect_count => 0})};
      handle_info({phoenix_live_reload, _Topic, _File}, State) -> {noreply, render(State)};
      handle_info(Message, #{socket := #{view := View} = Socket} = State) ->
          {noreply, Changed} = View:handle_info(Message, Socket),
          {noreply, render(State#{socket := Changed})}.

      handle_call(socket, _From, #{socket := Socket} = State) -> {reply, Socket, State};
      handle_call(state, _From, State) -> {reply, State, State};
      handle_call({event, Event}, _From, #{socket := #{view := View} = Socket} = State) ->
          {noreply, Changed} = View:handle_event(Event, #{}, Socket),
          {reply, ok, render(State#{socket := Changed})}.
      handle_cast(_, State) -> {noreply, State}.

      render(#{socket := #{view := View, transport_pid := Pid, assigns := Assigns, private := Private} = Socket,
               fingerprints := {Before, _}, components := Components} = State) ->
          {Print, Text, Shown} = View:render(Assigns),
          {Known, Ids, Next} = case Before of
              nil -> Components;
              Print -> Components;
              _ -> {#{}, #{}, element(3, Components)}
          end,
          All = maps:from_list([{Cid, component(Component, maps:get(Cid, Known, none))} || {Cid, Component} <- Shown]),
          Pid ! {diff, self(), Text, maps:get(push_events, Private, [])},
          State#{fingerprints := {Print, #{}}, components := {All, Ids, Next},
                 socket := Socket#{private := maps:remove(push_events, Private)}}.

      component(Module, none) -> {Module, <<"id">>, #{clicks => 0}, #{}, {Module:print(), #{}}};
      component(Module, {Module, Id, Assigns, Private, _}) ->
          {Module, Id, Assigns, maps:remove(marked_for_deletion, Private), {Module:print(), #{}}}.

      code_change(Old, #{socket := #{view := View} = Socket} = State, Extra) ->
          NOTED = maps:merge(State, NOTE),
          case erlang:function_exported(View, code_change, 3) of
              true -> {ok, New} = View:code_change(Old, Socket, Extra), {ok, NOTED#{socket := New}};
              false -> {ok, NOTED}
          end.
      """
      |> String.replace("NOTED", "Noted")
      |> String.replace("NOTE", note)
    )
  end

  @doc "The code of the server of Phoenix' channels."
  @spec server() :: binary()
  def server do
    Builds.erlang(~S"""
    -module('Elixir.Phoenix.Channel.Server').
    -behaviour(gen_server).
    -export([start/2, init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
    start(From, Rest) -> gen_server:start('Elixir.Phoenix.Channel.Server', From, [{hibernate_after, Rest}]).
    init({Pid, _Ref}) -> {ok, monitor(process, Pid)}.

    handle_info({'Elixir.Phoenix.Channel', {Channel, Transport, Assigns, _Private}, From}, Ref) when is_reference(Ref) ->
        demonitor(Ref),
        put('$initial_call', {Channel, join, 3}),
        put('$process_label', {'Elixir.Phoenix.Channel', Channel, <<"room:1">>}),
        Socket = #{'__struct__' => 'Elixir.Phoenix.Socket', channel => Channel, channel_pid => self(), topic => <<"room:1">>,
                   transport_pid => Transport, assigns => Assigns, private => Channel:'__socket__'(private), joined => false},
        {ok, Joined} = Channel:join(<<"room:1">>, #{}, Socket),
        gen_server:reply(From, ok),
        {noreply, Joined#{joined := true}};
    handle_info(Message, #{channel := Channel} = Socket) -> Channel:handle_info(Message, Socket).

    handle_call(socket, _From, Socket) -> {reply, Socket, Socket};
    handle_call({event, Event}, _From, #{channel := Channel} = Socket) ->
        {reply, ok, Changed} = Channel:handle_in(Event, #{}, Socket), {reply, ok, Changed}.
    handle_cast(_, Socket) -> {noreply, Socket}.

    code_change(Old, #{channel := Channel} = Socket, Extra) ->
        case erlang:function_exported(Channel, code_change, 3) of
            true -> Channel:code_change(Old, Socket, Extra);
            false -> {ok, Socket}
        end.
    """)
  end

  @doc "The libraries' modules as changes have them that leave them as they are: `{module, old, new}`."
  @spec unchanged() :: [{module(), binary(), binary()}]
  def unchanged do
    for {module, beam} <- [{@channel, channel()}, {@server, server()}], do: {module, beam, beam}
  end

  @doc "Mounts a view, or joins a channel, for the calling process; `private` as its socket has it."
  @spec connect(:view | :channel, module(), map(), map()) :: pid()
  def connect(kind, module, assigns \\ %{}, private \\ %{}) do
    pid = begin(kind)
    tell(pid, module, assigns, private)
    pid
  end

  @doc "Starts the process of a view or channel, which works for nobody yet; it hibernates after so many milliseconds."
  @spec begin(:view | :channel, pos_integer()) :: pid()
  def begin(kind, rest \\ 15_000) do
    library = if kind == :view, do: @channel, else: @server
    {:ok, pid} = apply(library, :start, [{self(), make_ref()}, rest])
    ExUnit.Callbacks.on_exit(fn -> Process.exit(pid, :kill) end)
    pid
  end

  @doc "Tells it for whom it works."
  @spec tell(pid(), module(), map(), map()) :: :ok
  def tell(pid, module, assigns \\ %{}, private \\ %{}) do
    tag = Process.monitor(pid)
    send(pid, {Phoenix.Channel, {module, self(), assigns, private}, {self(), tag}})

    receive do
      {^tag, :ok} -> Process.demonitor(tag, [:flush])
      {:DOWN, ^tag, :process, ^pid, reason} -> raise "it died: #{inspect(reason)}"
    end

    :ok
  end

  @doc "A view that counts in an assign of this name. `more` are further functions, `exports` their exports."
  @spec view(module(), String.t(), keyword()) :: binary()
  def view(module, version, options \\ []) do
    key = Keyword.fetch!(options, :key)
    handle_info? = Keyword.get(options, :handle_info, false)
    convert = Keyword.get(options, :code_change)
    shows = Keyword.get(options, :shows, "[]")
    text = Keyword.get(options, :text, "{#{version}, maps:get(#{key}, A)}")

    Builds.erlang("""
    -module('#{module}').
    -vsn("#{version}").
    -behaviour('Elixir.Phoenix.LiveView').
    -export(['__live__'/0, '__components__'/0, mount/3, render/1, handle_event/3#{if handle_info?, do: ", handle_info/2"}
             #{if convert, do: ", code_change/3"}]).
    '__live__'() -> \#{kind => view, layout => false}.
    '__components__'() -> \#{}.
    mount(_Params, _Session, #{"\#{assigns := A} = S"}) -> {ok, S\#{assigns := A\#{#{key} => maps:get(n, A, 0)}}}.
    handle_event(inc, _, \#{assigns := \#{#{key} := N} = A} = S) -> {noreply, S\#{assigns := A\#{#{key} := N + 1}}};
    handle_event({keep, F}, _, \#{assigns := A} = S) -> {noreply, S\#{assigns := A\#{kept => F}}}.
    #{if handle_info?, do: "handle_info(strict, S) -> {noreply, S}."}
    render(A) -> {'#{version}', #{text}, #{shows}}.
    #{code_change(convert)}
    """)
  end

  @doc "A channel, likewise."
  @spec room(module(), String.t(), keyword()) :: binary()
  def room(module, version, options) do
    key = Keyword.fetch!(options, :key)
    convert = Keyword.get(options, :code_change)

    Builds.erlang("""
    -module('#{module}').
    -vsn("#{version}").
    -behaviour('Elixir.Phoenix.Channel').
    -export(['__socket__'/1, join/3, handle_in/3#{if convert, do: ", code_change/3"}]).
    '__socket__'(private) -> \#{log_join => info}.
    join(_Topic, _Params, \#{assigns := A} = S) -> {ok, S\#{assigns := A\#{#{key} => maps:get(n, A, 0)}}}.
    handle_in(inc, _, \#{assigns := \#{#{key} := N} = A} = S) -> {reply, ok, S\#{assigns := A\#{#{key} := N + 1}}}.
    #{code_change(convert)}
    """)
  end

  @doc "A component, by itself or of functions; what it renders has this print."
  @spec component(module(), atom()) :: binary()
  def component(module, print) do
    Builds.erlang("""
    -module('#{module}').
    -vsn("#{print}").
    -behaviour('Elixir.Phoenix.LiveComponent').
    -export(['__live__'/0, '__components__'/0, print/0, update/2]).
    '__live__'() -> \#{kind => component, layout => false}.
    '__components__'() -> \#{}.
    update(_, S) -> {ok, S}.
    print() -> #{print}.
    """)
  end

  defp code_change(nil), do: ""

  defp code_change({:gives, what}),
    do: "code_change(_, \#{assigns := A}, _) -> #{what}."

  # `A` are the assigns, and what it gives the new ones.
  defp code_change(convert),
    do:
      "code_change(Old, \#{assigns := A} = S, Extra) -> _ = {Old, Extra}, {ok, S\#{assigns := #{convert}}}."
end
