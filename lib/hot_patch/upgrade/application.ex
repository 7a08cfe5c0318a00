defmodule HotPatch.Upgrade.Application do
  @moduledoc """
  An application that an upgrade changes.

    * `:name`
    * `:from` - its version in the release that runs, or `nil` if that does not have it
    * `:to` - its version in the new release, or `nil` if that does not have it
    * `:type` - how the new release starts it: `:permanent`, `:transient`, `:temporary`, `:load` or `:none`
  """

  alias HotPatch.Host.SystemLibrary

  alias HotPatch.Support.Printable

  @type type :: :permanent | :transient | :temporary | :load | :none
  @type change :: :added | :upgraded | :removed
  @type t :: %__MODULE__{
          name: String.t(),
          from: String.t() | nil,
          to: String.t() | nil,
          type: type() | nil
        }
  @enforce_keys [:name, :from, :to, :type]
  defstruct @enforce_keys

  @types %{
    "permanent" => :permanent,
    "transient" => :transient,
    "temporary" => :temporary,
    "load" => :load,
    "none" => :none
  }

  @doc false
  @spec new(map()) :: t()
  def new(%{"name" => name, "from" => from, "to" => to, "type" => type}),
    do: %__MODULE__{name: name, from: from, to: to, type: type && Map.fetch!(@types, type)}

  @doc "What becomes of it."
  @spec change(t()) :: change()
  def change(%__MODULE__{from: nil}), do: :added
  def change(%__MODULE__{to: nil}), do: :removed
  def change(%__MODULE__{}), do: :upgraded

  @doc "Its folder in the new release, as the archive names it; `nil` if it has none there."
  @spec folder(t()) :: Path.t() | nil
  def folder(%__MODULE__{to: nil}), do: nil
  def folder(%__MODULE__{name: name, to: to}), do: "lib/#{name}-#{to}"

  @doc "Its folder in the release that runs, likewise."
  @spec former_folder(t()) :: Path.t() | nil
  def former_folder(%__MODULE__{from: nil}), do: nil
  def former_folder(%__MODULE__{name: name, from: from}), do: "lib/#{name}-#{from}"

  @doc "What becomes of it, in a line."
  @spec line(t()) :: String.t()
  def line(application) do
    Printable.line(
      case change(application) do
        :added ->
          "adds the application #{application.name} #{application.to}#{started(application)}"

        :upgraded ->
          "changes #{application.name} from #{application.from} to #{application.to}"

        :removed ->
          "removes the application #{application.name} #{application.from}"
      end
    )
  end

  @doc "Why nodes do not take an application of OTP, Elixir or HotPatch in another version while they run."
  @spec not_live(t()) :: String.t()
  def not_live(application) do
    "#{application.name} is #{application.from} where the release runs, and #{application.to} in the upgrade: " <>
      "#{SystemLibrary.owner(application.name)} is not changed live. Build both releases with the same, or " <>
      "apply the upgrade with restart: :rolling"
  end

  defp started(%{type: :permanent}), do: ""
  defp started(%{type: :load}), do: ", which is loaded and not started"
  defp started(%{type: :none}), do: ", whose code alone is loaded"
  defp started(%{type: type}), do: ", started as #{type}"
end
