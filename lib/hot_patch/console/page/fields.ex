defmodule HotPatch.Console.Page.Fields do
  @moduledoc false
  # The fields of a form for the options of a call, as the table of options describes them
  # (HotPatch.Options.Schema): an option that is there is on the page.

  use HotPatch.Console.Page.Template, [:field]

  alias HotPatch.Console.HTML
  alias HotPatch.Options

  @typedoc """
  What of the options is known when a form is shown: the `nodes` that there are to choose from, values that
  are `chosen` already, by option, and which options are `demanded`.
  """
  @type known :: %{
          optional(:nodes) => [node()],
          optional(:chosen) => %{atom() => term()},
          optional(:demanded) => [atom()]
        }

  @doc "The field of one option."
  @spec one(Options.call(), atom(), known()) :: HTML.safe()
  def one(call, name, known \\ %{}) do
    call |> Options.fields_of_form() |> Enum.find(&(&1.name == name)) |> show(known)
  end

  @doc "The fields of all options of a call, but for those that stand elsewhere in the form."
  @spec others(Options.call(), [atom()], known()) :: [HTML.safe()]
  def others(call, elsewhere, known \\ %{}) do
    for option <- Options.fields_of_form(call),
        option.name not in elsewhere,
        do: show(option, known)
  end

  defp show(option, known) do
    field(%{
      name: option.name,
      control: control(option.type),
      label: option.field[:label] || words(option.name),
      empty: option.field[:empty] || default(option),
      values: option.field[:values] || values(option.type),
      example: option.field[:example] || option.default,
      chosen: known[:chosen][option.name],
      choices: known[:nodes] || [],
      demanded: option.name in (known[:demanded] || [])
    })
  end

  defp default(%{default: nil}), do: "default"
  defp default(%{default: default}), do: "default: #{default}"

  defp control(:nodes), do: :nodes
  defp control(type) when type in [:boolean, :watch], do: :select
  defp control({:one_of, _values}), do: :select
  defp control(type) when type in [:count, :milliseconds, :seconds], do: :number
  defp control(:config), do: :lines
  defp control(_text_or_names), do: :text

  defp values({:one_of, values}), do: for(value <- values, do: {value, words(value)})
  defp values(type) when type in [:boolean, :watch], do: [true: "yes", false: "no"]
  defp values(_free), do: []
end
