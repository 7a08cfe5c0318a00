defmodule HotPatch.Test.Settings do
  @moduledoc false
  # What is configured for HotPatch, changed for one test. A node reads its configuration when it
  # starts; here it is told to read it again.

  import ExUnit.Callbacks
  import HotPatch.Test.Until

  alias HotPatch.Cluster.Comparison
  alias HotPatch.Host.Config
  alias HotPatch.Test.Cluster

  @doc "Sets an option until the test ends."
  @spec configure(atom(), term()) :: :ok
  def configure(option, value) do
    before = Application.fetch_env(:hot_patch, option)
    Application.put_env(:hot_patch, option, value)
    :ok = Config.load()

    on_exit(fn ->
      case before do
        {:ok, value} -> Application.put_env(:hot_patch, option, value)
        :error -> Application.delete_env(:hot_patch, option)
      end

      Config.load()
    end)
  end

  @doc """
  Keeps the node of the tests from comparing itself with others until the test ends, for who writes into its store by
  hand: it would settle what it finds there, in the middle of it.
  """
  @spec uncompared() :: :ok
  def uncompared do
    :ok = :sys.suspend(Comparison.name())
    on_exit(fn -> :sys.resume(Comparison.name()) end)

    with %{worker: {pid, _monitor}} <- :sys.get_state(Comparison.name()),
         do: until(fn -> not Process.alive?(pid) end, "it has compared what was there before")

    :ok
  end

  @doc "Sets options of another node."
  @spec configure_on(node(), keyword()) :: :ok
  def configure_on(node, options) do
    for {option, value} <- options,
        do: :ok = Cluster.call(node, Application, :put_env, [:hot_patch, option, value])

    Cluster.call(node, Config, :load, [])
  end
end
