defmodule HotPatch.Swap.Hosted do
  @moduledoc false
  # Processes of Phoenix that work for a module of the user: LiveViews and channels. They run in the
  # loop of a gen_server whose callback module is the library's, which keeps the user's module and its
  # socket in its own state, and hands code_change on to it. When they mount or join, they
  # take the name of the user's module for their initial call (channel.ex, verified_mount/8, and
  # channel/server.ex, handle_info/2), so that nobody has to be asked.
  #
  # The term that the user's code_change gets is known, so its change is tried before the load like
  # that of any server. A state of another form than is known here is not guessed at.

  @typedoc "The part of the library's state that the user's code_change gets, and the way to it."
  @type library :: Phoenix.LiveView.Channel | Phoenix.Channel.Server

  # Of whom nobody else takes the name, the user's module exports what only the library's
  # `use` makes.
  @live_view Phoenix.LiveView.Channel
  @channel Phoenix.Channel.Server

  # What was rendered last, for the browser is told of the differences.
  @nothing_rendered {nil, %{}}

  # From this version on a component that LiveView is about to delete, and meets again when it renders, is rendered
  # as a whole, and goes on living, with its state.
  @revives {1, 2, 9}

  @doc "The library in whose loop a process with this initial call is; nil if it is none of those."
  @spec library(mfa() | term()) :: library() | nil
  def library({view, :mount, 3}) when is_atom(view),
    do: if(exports?(view, :__live__, 0), do: @live_view)

  def library({channel, :join, 3}) when is_atom(channel),
    do: if(exports?(channel, :__socket__, 1), do: @channel)

  def library(_call), do: nil

  @doc "The server in whose loop the processes of a view or a channel are; nil of a module that is neither."
  @spec server(module()) :: library() | nil
  def server(module), do: library({module, :mount, 3}) || library({module, :join, 3})

  @behaviours [
    {Phoenix.LiveView, :view},
    {Phoenix.LiveComponent, :component},
    {Phoenix.Channel, :channel}
  ]

  @doc "What a module that is loaded is to these libraries, by the behaviour that their `use` gives it."
  @spec kind(module()) :: :view | :component | :channel | nil
  def kind(module) do
    behaviours =
      for {:behaviour, modules} <- module.module_info(:attributes), one <- modules, do: one

    Enum.find_value(@behaviours, fn {behaviour, kind} -> behaviour in behaviours && kind end)
  end

  @doc "Whether a module is one of these libraries' own servers."
  @spec library?(module()) :: boolean()
  def library?(module), do: module in [@live_view, @channel]

  @doc "What the user's module gets of the whole state, if that has the form that is known."
  @spec inner(term(), module()) :: {:ok, map()} | :error
  def inner(%{socket: %{__struct__: Phoenix.LiveView.Socket, view: module} = socket}, module),
    do: {:ok, socket}

  def inner(%{__struct__: Phoenix.Socket, channel: module} = socket, module), do: {:ok, socket}
  def inner(_state, _module), do: :error

  @doc "The whole state with what the user's module has given back for its part."
  @spec outer(map(), map()) :: map()
  def outer(%{__struct__: Phoenix.Socket}, new), do: new
  def outer(%{socket: _} = state, new), do: forget_rendered(%{state | socket: new})

  @doc "Whether what the user's module has given back is of the same kind as it got."
  @spec alike?(map(), term()) :: boolean()
  def alike?(%{__struct__: kind, view: view}, %{__struct__: kind, view: view}), do: true
  def alike?(%{__struct__: kind, channel: name}, %{__struct__: kind, channel: name}), do: true
  def alike?(_old, _new), do: false

  @doc """
  Has a view render as a whole the next time that it does, as at its beginning, whatever has changed since. LiveView
  forgets the components of a view whose template is another than when it rendered last, with their states;
  one that is rendered as a whole keeps them. A view is left as it is where this LiveView cannot do that, and where it
  does not have any more what it has rendered.
  """
  @spec forget_rendered(state) :: state when state: term()
  def forget_rendered(state) do
    if shape(state) == :whole and version() >= @revives do
      {by_cid, ids, next} = state.components
      by_cid = Map.new(by_cid, fn {cid, component} -> {cid, unrendered(component)} end)
      %{state | fingerprints: @nothing_rendered, components: {by_cid, ids, next}}
    else
      state
    end
  end

  defp unrendered({module, id, assigns, private, _rendered}),
    do: {module, id, assigns, Map.put(private, :marked_for_deletion, true), @nothing_rendered}

  # The library has it for code reloaders: a clause of its handle_info/2.
  @reload {:phoenix_live_reload, "hot_patch", "hot_patch"}

  @doc "The message at which a view renders again."
  @spec reload() :: tuple()
  def reload, do: @reload

  @doc """
  That message, and the state in which a view is rendered again after a change: without what would have it compiled anew;
  `:none` where it is not, because it is none, is not mounted yet, or has not all that it shows.
  """
  @spec rendering_again(term()) :: {tuple(), map()} | :none
  def rendering_again(%{socket: %{view: _, private: %{} = private} = socket} = state) do
    quiet = %{socket | private: Map.delete(private, :phoenix_reloader)}

    if shape(state) == :temporary,
      do: :none,
      else: {@reload, forget_rendered(%{state | socket: quiet})}
  end

  def rendering_again(_state), do: :none

  @doc """
  Whether a view has all that it shows: with `temporary_assigns` it shows what it has no more, itself or in a
  component, and would show nothing there if it rendered again.
  """
  @spec shape(term()) :: :whole | :temporary | :unknown
  def shape(%{socket: %{private: private}, fingerprints: {_, _}, components: {by_cid, _, _}})
      when is_map(by_cid) do
    components = Map.values(by_cid)

    cond do
      not Enum.all?(components, &match?({_, _, _, %{}, {_, _}}, &1)) -> :unknown
      temporary?(private) or Enum.any?(components, &temporary?(elem(&1, 3))) -> :temporary
      true -> :whole
    end
  end

  def shape(%{socket: %{private: private}}) do
    if temporary?(private), do: :temporary, else: :unknown
  end

  def shape(_not_mounted), do: :unknown

  defp temporary?(private), do: Map.get(private, :temporary_assigns, %{}) != %{}

  @doc "The version of LiveView that runs; that of none is the lowest."
  @spec version() :: {non_neg_integer(), non_neg_integer(), non_neg_integer()}
  def version do
    with {:ok, vsn} <- :application.get_key(:phoenix_live_view, :vsn),
         {:ok, version} <- Version.parse(List.to_string(vsn)) do
      {version.major, version.minor, version.patch}
    else
      _ -> {0, 0, 0}
    end
  end

  defp exports?(module, function, arity) do
    :erlang.module_loaded(module) and function_exported?(module, function, arity)
  end
end
