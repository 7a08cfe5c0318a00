defmodule HotPatch.LiveView do
  @moduledoc """
  Connected LiveViews show new code at once, and new static files are served at once.

  Where Phoenix LiveView runs, nothing has to be done for it. On every node, after every change, forth or back:

    * Every connected view whose module has changed, or a component, a function component, a layout or
      another module that its templates name, renders again. Sockets stay, and so do the states of its
      components. A view that fails to render goes on as it was, with what its page shows, and the log says why.
      Views that do not name what has changed are left alone.
    * Endpoints whose static manifest (`cache_static_manifest`) came with the patch read it again, so that
      `static_path/1` gives the new names. Pages that are open are sent the event `hot_patch:static`
      with `files`, a map from paths as they are in templates to those of now. A page with this shows new styles
      without a reload:

          window.addEventListener("phx:hot_patch:static", ({detail: {files}}) => {
            for (const link of document.querySelectorAll("link[rel=stylesheet][phx-track-static]")) {
              for (const [path, current] of Object.entries(files)) {
                const [stem, ending] = path.split(/(\\.[^.]+)$/)
                const name = new URL(link.href).pathname
                if (name === path || (name.startsWith(stem + "-") && name.endsWith(ending))) link.href = current
              }
            }
          })

      `Phoenix.LiveView.static_changed?/1` says true to pages that connect with the former files.

  The plan says how many views will render again.

  What LiveView would do by itself is less: it renders when a view's assigns change the next time, only what depends on
  these, and where the template of a view is another than before it forgets the view's components, with
  their states.

      config :hot_patch, live_view: false

  switches it off; then `render_again/0` may be called by hand. It takes LiveView 0.18.4 or newer.
  """

  @behaviour HotPatch.Hook

  alias HotPatch.Host.Config
  alias HotPatch.NodeAgent.Mentions
  alias HotPatch.NodeAgent.StaticFiles
  alias HotPatch.Support.Table
  alias HotPatch.Swap
  alias HotPatch.Swap.Views

  require HotPatch.Support.Log, as: Log

  # So many views that failed are named.
  @named 3

  @doc """
  Has all LiveViews that are connected to this node render again, in the code that runs. Says how many have, and how
  many have not.
  """
  @spec render_again() :: {rendered :: non_neg_integer(), others :: non_neg_integer()}
  def render_again do
    rendered = if Views.running?(), do: Views.render_again(Views.connected()), else: none()
    tell(rendered)
    {rendered.again, rendered.left + rendered.unknown + length(rendered.failed)}
  end

  defp none, do: %{again: 0, left: 0, unknown: 0, failed: []}

  # Many views take their time, for which no hook has.
  @impl HotPatch.Hook
  def after_write(change) do
    _ = if Config.current().live_view and Views.running?(), do: spawn(fn -> show(change) end)
    :ok
  end

  defp show(change) do
    files = StaticFiles.read_again(change.files)
    views = if files == %{}, do: concerned(change.modules), else: Views.connected()
    events = if files == %{}, do: [], else: [{"hot_patch:static", %{files: files}}]
    tell(Views.render_again(views, events))
  end

  defp tell(%{failed: [], unknown: 0, left: 0}), do: :ok

  defp tell(rendered) do
    named =
      for {pid, view, why} <- Enum.take(rendered.failed, @named),
          do: "#{inspect(view)} (#{inspect(pid)}): #{why}"

    Log.warning(
      "HotPatch: #{Table.count(rendered.again, "LiveView", "LiveViews")} rendered again, " <>
        "#{length(rendered.failed)} failed to and go on as they were, #{rendered.unknown} did not answer, " <>
        "#{rendered.left} with temporary assigns were left as they are" <>
        Enum.map_join(named, "", &"; #{&1}")
    )
  end

  @doc false
  @spec lines([module()]) :: [String.t()]
  def lines(modules) do
    with true <- Config.current().live_view and Views.running?(),
         [_ | _] = views <- concerned(modules) do
      by_view = Enum.frequencies_by(views, &elem(&1, 1))
      named = for {view, count} <- by_view, do: "#{count} #{inspect(view)}"

      [
        "#{Table.count(length(views), "connected LiveView renders", "connected LiveViews render")} again after " <>
          "the change: #{Enum.join(named, ", ")}; their sockets stay. One that gets a message of its own in the moment " <>
          "before, and whose template has changed, loses the states of its components, as LiveView does it"
      ]
    else
      _ -> []
    end
  end

  @doc false
  # Connected views of other modules that render again when these have changed, by their own.
  @spec showing([module()]) :: %{module() => [pid()]}
  def showing(modules) do
    if Config.current().live_view and Views.running?() do
      for {pid, view} <- concerned(modules), view not in modules, reduce: %{} do
        views -> Map.update(views, view, [pid], &[pid | &1])
      end
    else
      %{}
    end
  end

  # Connected views whose templates may show something else when these modules have changed.
  defp concerned([]), do: []

  defp concerned(modules) do
    views = Views.connected()
    modules = MapSet.new(modules, &Atom.to_string/1)
    patterns = modules |> MapSet.union(shown()) |> MapSet.to_list() |> Mentions.patterns()

    concerned =
      views
      |> Enum.map(&elem(&1, 1))
      |> Enum.uniq()
      |> Enum.filter(&reaches?([Atom.to_string(&1)], modules, patterns, MapSet.new()))

    Enum.filter(views, fn {_pid, view} -> view in concerned end)
  end

  # What views are made of: other views, components, and modules with function components, layouts among them.
  defp shown do
    for {module, _file} <- :code.all_loaded(),
        function_exported?(module, :__components__, 0) or
          function_exported?(module, :__live__, 0),
        into: MapSet.new(),
        do: Atom.to_string(module)
  end

  # Whether a change of these modules shows in what the first one shows, over what it names.
  defp reaches?([], _modules, _patterns, _seen), do: false

  defp reaches?([name | rest], modules, patterns, seen) do
    if name in seen do
      reaches?(rest, modules, patterns, seen)
    else
      case named(name, patterns) do
        # What cannot be read may show anything.
        :unknown -> true
        named -> reaches_on?(name, named, {rest, modules, patterns, seen})
      end
    end
  end

  defp reaches_on?(name, named, {rest, modules, patterns, seen}) do
    if name in modules or not MapSet.disjoint?(named, modules),
      do: true,
      else: reaches?(MapSet.to_list(named) ++ rest, modules, patterns, MapSet.put(seen, name))
  end

  defp named(name, patterns) do
    case Swap.former_code(String.to_existing_atom(name)) do
      nil -> :unknown
      bytes -> Mentions.which(bytes, patterns)
    end
  end
end
