defmodule HotPatch.Console.Params do
  @moduledoc false
  # What a form or a query says, as options of the calls. Nothing from outside becomes an atom: names
  # of nodes are looked for among those that are there.

  import Kernel, except: [node: 1]

  alias HotPatch.Options

  # What a form holds besides: our token, and that of the host application.
  @beside ["form", "_csrf_token"]

  @type form :: %{String.t() => [String.t()]}

  @doc "The options that a form or query holds; fields left empty count as not there."
  @spec options(atom(), form()) :: {:ok, keyword()} | {:error, String.t()}
  def options(call, form) do
    rules = Map.new(Options.fields_of_form(call), &{Atom.to_string(&1.name), &1.type})

    Enum.reduce_while(Map.drop(form, @beside), {:ok, []}, fn {name, values}, {:ok, options} ->
      case values |> Enum.reject(&(&1 == "")) |> value(rules[name]) do
        :absent -> {:cont, {:ok, options}}
        {:ok, value} -> {:cont, {:ok, [{String.to_existing_atom(name), value} | options]}}
        {:error, rule} -> {:halt, {:error, "#{call}: #{short(name)} #{rule}"}}
      end
    end)
  end

  @doc "A connected node by its name, also a hidden one, which may have been attached."
  @spec node(String.t()) :: {:ok, node()} | :error
  def node(name) do
    Enum.find_value([node() | Node.list(:connected)], :error, fn node ->
      if Atom.to_string(node) == name, do: {:ok, node}
    end)
  end

  defp value(_values, nil), do: {:error, "is not known here"}
  defp value([], _rule), do: :absent
  # A form can only say whether.
  defp value(texts, type) when type in [:boolean, :watch],
    do: value(texts, {:one_of, [true, false]})

  # A line each. What becomes of them the call says: nothing of them becomes an atom here.
  defp value(texts, :config) do
    lines = Enum.flat_map(texts, &String.split(&1, ["\r\n", "\n"], trim: true))
    if lines == [], do: :absent, else: {:ok, lines}
  end

  defp value(names, type) when type in [:nodes, :node_names], do: nodes(names)
  defp value([_, _ | _] = names, :canary), do: nodes(names)
  defp value([_, _ | _], _rule), do: {:error, "is given twice"}

  defp value([text], kind) when kind in [:milliseconds, :seconds, :count] do
    case Integer.parse(text) do
      {number, ""} -> {:ok, number}
      _no_number -> {:error, "must be a number"}
    end
  end

  # How many nodes, which share of them, or which.
  defp value([text], :canary) do
    with {:integer, :error} <- {:integer, whole(Integer.parse(text))},
         {:float, :error} <- {:float, whole(Float.parse(text))} do
      nodes([text])
    else
      {_kind, number} -> {:ok, number}
    end
  end

  defp value([text], {:one_of, allowed}) do
    case Enum.find(allowed, &(to_string(&1) == text)) do
      nil -> {:error, "must be one of #{Enum.join(allowed, ", ")}"}
      value -> {:ok, value}
    end
  end

  defp value([text], _text), do: {:ok, text}

  defp whole({number, ""}), do: number
  defp whole(_no_number), do: :error

  defp nodes(names) do
    found =
      names |> Enum.flat_map(&String.split(&1, ",", trim: true)) |> Enum.map(&{&1, node(&1)})

    case Enum.find(found, &match?({_name, :error}, &1)) do
      nil -> {:ok, for({_name, {:ok, node}} <- found, do: node)}
      {name, :error} -> {:error, "names #{short(name)}, which is no connected node"}
    end
  end

  defp short(text), do: inspect(text, printable_limit: 60)
end
