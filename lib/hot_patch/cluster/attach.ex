defmodule HotPatch.Cluster.Attach do
  @moduledoc false
  # Brings HotPatch to a node that does not have it, and takes it away again.
  #
  # It lives in the memory of that node alone: no file of code is written there, and after a
  # restart of its VM it is gone. Whether the node can run it is asked of the node itself: its
  # loader takes all modules or none, and every function that they call must be there.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Attach.Bootstrap
  alias HotPatch.Cluster.Attach.Bundle
  alias HotPatch.Cluster.Attach.RemoteCall
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Dismissal
  alias HotPatch.Error
  alias HotPatch.Host.Config
  alias HotPatch.NodeAgent
  alias HotPatch.Store.Journal

  require HotPatch.Support.Log, as: Log

  @oldest_otp 25

  @typep result :: :ok | {:error, Error.t()}

  @doc "Starts HotPatch on a node; `options` are those of `HotPatch.attach/2`, and `by` is told."
  @spec attach(node(), map()) :: result()
  def attach(node, options) do
    lead(node, :attach, options, fn ->
      case RemoteCall.has(node) do
        {:running, version} ->
          same(version, node, options)

        {:own, version} ->
          {:error, not_started(version, node)}

        :died ->
          tidy(node, options)

        :nothing ->
          if RemoteCall.busy?(node), do: {:error, busy(node)}, else: bring(node, options)
      end
    end)
  end

  # Until the first module has come, or the first is to go, it may be cancelled.
  defp lead(node, what, options, fun) do
    about = %{id: Coordinator.new_id(), kind: what, patch: Atom.to_string(node), by: options.by}
    Coordinator.run(about, fn tell -> tell.(RemoteCall.answer(node, what, fun)) end)
  end

  defp wanted(node, what) do
    case Coordinator.asked() do
      nil ->
        :ok

      order ->
        about = %{kind: what, patch: Atom.to_string(node)}
        {:error, Coordinator.error(about, order, :nothing_changed, "nothing was changed there")}
    end
  end

  defp same({vsn, protocol}, node, options) do
    mine = {vsn(), NodeAgent.protocol()}

    if {vsn, protocol} == mine do
      with :ok <- as_asked(node, options), do: Cluster.remember(node)
    else
      {:error, incompatible(node, "it runs #{text({vsn, protocol})}, this node #{text(mine)}")}
    end
  end

  # What runs already is left as it is: options that would have it otherwise are not passed over.
  defp as_asked(node, options) do
    other =
      Enum.find(settings(options), fn
        {:release, asked} ->
          release(node) != asked

        {key, asked} ->
          RemoteCall.call(node, :application, :get_env, [:hot_patch, key]) != {:ok, asked}
      end)

    case other do
      nil ->
        :ok

      {key, _asked} ->
        {:error,
         Error.new(
           :invalid_option,
           "attach #{node}: option #{inspect(key)} says otherwise than it is there, where HotPatch runs already: " <>
             "detach it first, with leave_patches: true where patches are in force",
           %{option: key}
         )}
    end
  end

  defp release(node) do
    %{name: name, version: version} = RemoteCall.call(node, HotPatch.Release, :current, [])
    {name, version}
  end

  defp text({vsn, protocol}), do: "HotPatch #{vsn} (protocol #{protocol || "unknown"})"

  defp vsn, do: to_string(Application.spec(:hot_patch, :vsn))

  defp not_started(vsn, node) do
    Error.new(
      :unmanaged,
      "attach #{node}: it has HotPatch #{vsn} of its own, which is not started: call " <>
        "Application.ensure_all_started(:hot_patch) there",
      %{nodes: [node]}
    )
  end

  defp tidy(node, options) do
    case RemoteCall.call(node, Bootstrap, :tidy, []) do
      {:ok, sweeper} -> with :ok <- swept(sweeper, node, options), do: bring(node, options)
      {:error, :busy} -> {:error, busy(node)}
    end
  end

  # It ends whether it is waited for or not.
  defp swept(sweeper, node, options) do
    monitor = Process.monitor(sweeper)

    receive do
      {:DOWN, ^monitor, :process, ^sweeper, _reason} -> :ok
    after
      options.timeout ->
        Process.demonitor(monitor, [:flush])
        {:error, busy(node)}
    end
  end

  defp bring(node, options) do
    with :ok <- new_enough(node, RemoteCall.otp(node)),
         {:ok, own, alone} <- mine(Bundle.own(), node),
         {:ok, foothold} <- mine(Bundle.foothold(), node),
         {:ok, elixir} <- mine(elixir(RemoteCall.elixir(node)), node),
         modules = own ++ elixir,
         :ok <- runnable(node, Bundle.needs([foothold | own ++ alone], modules ++ alone)),
         :ok <- wanted(node, :attach),
         :ok <- settle(node, foothold),
         :ok <- enter(node, %{modules: modules, alone: alone, foothold: foothold}, options) do
      :ok = Cluster.remember(node)
      _ = note(:attach, node, options)
      :ok
    end
  end

  # Nothing older has been tried, and its loader may take what it cannot run.
  defp new_enough(_node, otp) when otp >= @oldest_otp, do: :ok

  defp new_enough(node, otp),
    do:
      {:error,
       incompatible(node, "it runs Erlang/OTP #{otp}, HotPatch needs #{@oldest_otp} or newer")}

  defp elixir(nil), do: Bundle.elixir()
  defp elixir(_its_own), do: {:ok, []}

  # A node that was attached itself has no files to give.
  defp mine({:error, text}, node) do
    {:error,
     Error.new(
       :file,
       "attach #{node}: #{text}: call it on a node where HotPatch is installed, as it was started"
     )}
  end

  defp mine(ok, _node), do: ok

  defp runnable(node, needs) do
    case RemoteCall.missing(node, needs) do
      [] ->
        :ok

      missing ->
        {:error, incompatible(node, lacks(missing) <> "; it runs #{RemoteCall.versions(node)}")}
    end
  end

  defp lacks(missing) do
    some =
      missing
      |> Enum.take(3)
      |> Enum.map_join(", ", fn {m, f, a} -> Exception.format_mfa(m, f, a) end)

    more = if length(missing) > 3, do: " and #{length(missing) - 3} more", else: ""
    "it does not have #{some}#{more}, which HotPatch calls"
  end

  # Somebody who attaches at the same time may have brought the same one. One of another
  # version is what an attempt that was cut off has left.
  defp settle(node, {module, file, bytes}) do
    cond do
      RemoteCall.md5(node, module) == :code.module_md5(bytes) -> :ok
      RemoteCall.busy?(node) -> {:error, busy(node)}
      true -> RemoteCall.load(node, module, file, bytes) |> loaded(node)
    end
  end

  defp loaded({:module, _module}, _node), do: :ok
  defp loaded({:error, reason}, node), do: {:error, not_loaded(node, inspect(reason))}

  defp enter(node, %{modules: modules, alone: alone, foothold: {first, _, _}}, options) do
    names = for {module, _file, _bytes} <- alone ++ modules, do: module

    attached = %{
      modules: [first | names],
      from: node(),
      by: options.by,
      at: System.os_time(:second)
    }

    cargo = %{
      modules: modules,
      alone: alone,
      spec: spec([first | names]),
      # It has no configuration of its own: what this node knows of libraries counts there, too.
      settings: [
        {:attached, attached},
        {:wrappers, Config.current().wrappers} | settings(options)
      ]
    }

    case RemoteCall.call_within(node, {Bootstrap, :enter, [cargo]}, options.timeout) do
      :ok ->
        :ok

      {:error, reason, sweeper} ->
        error = not_entered(node, reason)
        _ = swept(sweeper, node, options)
        {:error, error}

      {:error, :busy} ->
        {:error, busy(node)}
    end
  end

  # Elixir and Logger as applications are nothing that HotPatch waits for: what it calls of
  # them works without, and starting them would change how the node's shell and log behave.
  defp spec(names) do
    {:application, :hot_patch,
     [
       description: Application.spec(:hot_patch, :description),
       vsn: Application.spec(:hot_patch, :vsn),
       modules: Enum.filter(names, &(&1 in Application.spec(:hot_patch, :modules))),
       registered: [],
       applications: [:kernel, :stdlib],
       mod: {HotPatch.Application, []}
     ]}
  end

  defp settings(options) do
    for key <- [:data_dir, :release, :peers], value = options[key], do: {key, value}
  end

  defp not_entered(node, {:data_dir, text}) do
    Error.new(
      :file,
      "attach #{node}: nothing was left there, its data directory cannot be written: #{text}; " <>
        "name another with data_dir: ...",
      %{nodes: [node]}
    )
  end

  defp not_entered(node, {:loaded, modules}) do
    incompatible(
      node,
      "it has modules of HotPatch that are not of this version or not attached: " <> some(modules)
    )
  end

  defp not_entered(node, [{_module, _reason} | _] = reasons) do
    blamed =
      Enum.map_join(Enum.take(reasons, 3), ", ", fn {m, reason} -> "#{inspect(m)}: #{reason}" end)

    incompatible(
      node,
      "its loader does not take the modules (#{blamed}); it runs #{RemoteCall.versions(node)}"
    )
  end

  defp not_entered(node, reason) do
    Error.new(
      :internal,
      "attach #{node}: HotPatch does not start there, nothing was left: #{inspect(reason, limit: 20)}",
      %{nodes: [node]}
    )
  end

  defp not_loaded(node, text),
    do:
      incompatible(
        node,
        "its loader does not take the modules (#{text}); it runs #{RemoteCall.versions(node)}"
      )

  defp incompatible(node, text) do
    Error.new(
      :incompatible,
      "attach #{node}: #{text}; nothing was changed there. HotPatch on this node was compiled for " <>
        "Erlang/OTP #{System.otp_release()} and Elixir #{System.version()}: call it on one that runs what " <>
        "#{node} runs",
      %{nodes: [node]}
    )
  end

  defp busy(node) do
    Error.new(
      :busy,
      "nothing was changed: somebody else attaches or detaches #{node} just now: look again in a moment",
      %{node: node}
    )
  end

  defp some(modules) do
    more = if length(modules) > 3, do: " and #{length(modules) - 3} more", else: ""
    Enum.map_join(Enum.take(modules, 3), ", ", &inspect/1) <> more
  end

  @doc "Takes HotPatch away from a node that was attached."
  @spec detach(node(), map()) :: result()
  def detach(node, options) when node == node() do
    _ = options

    {:error,
     Error.new(:unmanaged, "detach #{node}: a node cannot detach itself: call it on another")}
  end

  def detach(node, options) do
    lead(node, :detach, options, fn ->
      case RemoteCall.attached(node) do
        nil -> {:error, not_attached(node, RemoteCall.has(node))}
        _attached -> leave(node, options)
      end
    end)
  end

  defp not_attached(node, :nothing) do
    Error.new(:unmanaged, "detach #{node}: it does not run HotPatch", %{nodes: [node]})
  end

  defp not_attached(node, _has) do
    Error.new(
      :not_attached,
      "detach #{node}: it was not attached, HotPatch is part of what it runs: to end it there take it " <>
        "out of the release",
      %{nodes: [node]}
    )
  end

  defp leave(node, options) do
    asked = Map.take(options, [:by, :leave_patches])

    with :ok <- wanted(node, :detach),
         {:ok, left, sweeper} <-
           RemoteCall.call_within(node, {Bootstrap, :quit, [asked]}, options.timeout) do
      :ok = Cluster.forget(node)
      :ok = Dismissal.left(node)
      # What it had noted is not lost with its data directory.
      for entry <- left.journal, do: _ = Journal.add(entry.what, entry)
      _ = note(:detach, node, options)
      tell(left, node)
      # Where that takes longer it goes on there, and nothing else depends on it.
      _ = swept(sweeper, node, options)
      :ok
    else
      {:error, %Error{} = cancelled} -> {:error, cancelled}
      {:error, reason} -> {:error, not_left(node, reason)}
    end
  end

  defp tell(left, node) do
    if left.data,
      do: Log.notice("HotPatch: detach #{node}: #{left.data} is still needed and stays")

    if left.elixir?,
      do:
        Log.notice(
          "HotPatch: detach #{node}: Elixir's modules stay, others have come to use them"
        )
  end

  defp not_left(node, {:in_force, ids}) do
    Error.new(
      :in_force,
      "detach #{node}: #{Enum.join(ids, ", ")} is in force there: roll it back first, or leave it as it " <>
        "is with leave_patches: true; then it cannot be rolled back until the node is attached again " <>
        "with the same data directory",
      %{nodes: [node], patches: ids}
    )
  end

  defp not_left(node, {:busy, holder}) do
    Error.new(
      :busy,
      "detach #{node}: #{holder.kind} of #{holder.patch} by #{holder.by} is under way there: try again when " <>
        "that is done",
      %{node: node, holder: holder}
    )
  end

  defp not_left(node, {:unfinished, text}) do
    Error.new(
      :busy,
      "detach #{node}: an earlier operation is not ended on disk there: #{text}; make room or make it writable",
      %{node: node}
    )
  end

  defp not_left(node, :busy), do: busy(node)
  defp not_left(node, :released), do: not_attached(node, :released)

  # By the node that it is about, also where that has no journal.
  defp note(what, node, options) do
    Journal.add(what, %{node: node, by: options.by, reason: options.reason, coordinator: node()})
  end
end
