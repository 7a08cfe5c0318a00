defmodule HotPatch.Options.WatchLimits do
  @moduledoc false
  # What may be set of a watch, and what counts otherwise; see HotPatch.Watch.

  alias HotPatch.Host.Config

  @times [duration: 30_000, baseline: 1_000]

  @signs [
    crashes: {3, "processes that died of an error while they ran modules of the patch"},
    errors: {50, "log events of level error and worse"},
    restarts: {10, "children that supervisors found terminated"},
    run_queue: {5, "processes waiting for a scheduler, on average, per scheduler"},
    mailboxes: {20_000, "messages waiting in all mailboxes, growth"}
  ]

  # They have no limit that could be set.
  @fixed [
    health: {0, "the host application's own judgement: 0 well, 1 ill"},
    gone: {0, "the node no longer answers: 0 or 1"}
  ]

  @typedoc "Limits, `duration` and `baseline` in milliseconds, and the host's `health` function."
  @type t :: %{atom() => number() | mfa() | nil}

  @doc "What counts where nothing is set."
  @spec defaults() :: t()
  def defaults do
    @times
    |> Map.new()
    |> Map.merge(Map.new(@signs, fn {sign, {limit, _text}} -> {sign, limit} end))
    |> Map.put(:health, Config.current().health)
  end

  @doc "The signs, their limits and what they mean, as a Markdown table."
  @spec docs() :: String.t()
  def docs do
    rows =
      for {sign, {limit, text}} <- @signs ++ @fixed,
          do: "| `#{inspect(sign)}` | #{text} | #{limit} |"

    Enum.join(["| sign | what | limit |", "|---|---|---|" | rows], "\n")
  end

  @doc "The names of all signs."
  @spec signs() :: [atom()]
  def signs, do: Keyword.keys(@signs ++ @fixed)

  @doc "The names of all signs as a type, for `@type`."
  @spec sign_type() :: Macro.t()
  def sign_type, do: Enum.reduce(signs(), &{:|, [], [&1, &2]})

  @doc "Whether these may be set; else the rule that is broken."
  @spec check(keyword()) :: :ok | {:error, String.t()}
  def check(limits) do
    case Enum.reject(limits, fn {key, value} -> settable?(key, value) end) do
      [] ->
        :ok

      [{key, value} | _] ->
        {:error,
         "takes numbers from 0 for #{Enum.map_join(Keyword.keys(@times ++ @signs), ", ", &inspect/1)}, " <>
           "and {module, function, args} for :health, got: #{key}: #{inspect(value, limit: 5, printable_limit: 80)}"}
    end
  end

  defp settable?(:health, {m, f, args}), do: is_atom(m) and is_atom(f) and is_list(args)
  defp settable?(:health, _other), do: false
  defp settable?(:duration, value), do: is_integer(value) and value > 0
  defp settable?(:baseline, value), do: is_integer(value) and value >= 0

  defp settable?(key, value),
    do: Keyword.has_key?(@signs, key) and is_number(value) and value >= 0
end
