defmodule :hot_patch do
  @moduledoc """
  `HotPatch` as Erlang calls it: `hot_patch:apply(fix, [{canary, 1}])`.

  Every function of `HotPatch` is here under its name, and gives what it gives there. Texts may be strings (lists of
  characters), binaries, or atoms where a patch is named. Options are a list as Erlang has them, where `again` is
  `{again, true}` and `undefined` counts as not given, or a map. What comes back can be printed:

      {ok, Report} = hot_patch:apply(fix, [{reason, "ticket 4711"}]), hot_patch:show(Report).

  Errors are `{error, Error}`; `maps:get(reason, Error)` says what kind it is, `hot_patch:text(Error)` what to do.
  """

  alias HotPatch.Support.Printable

  # What a first argument names, other than a node.
  @of_nodes [:restart, :dismiss, :attach, :detach, :cancel]

  # Those that raise mean nothing to Erlang, whose match does.
  functions =
    for {name, arity} <- HotPatch.__info__(:functions),
        not String.ends_with?(Atom.to_string(name), "!"),
        not String.starts_with?(Atom.to_string(name), "_"),
        do: {name, arity}

  for {name, arity} <- functions do
    arguments = Macro.generate_arguments(arity, __MODULE__)
    types = List.duplicate(quote(do: term()), arity)

    @doc "See `HotPatch.#{name}/#{arity}`."
    @spec unquote(name)(unquote_splicing(types)) :: term()
    def unquote(name)(unquote_splicing(arguments)) do
      Kernel.apply(HotPatch, unquote(name), given(unquote(name), [unquote_splicing(arguments)]))
    end
  end

  @doc "Prints a result or an error, as a shell of Elixir would."
  @spec show(term()) :: :ok
  def show(result), do: :io.put_chars([text(result), ?\n])

  @doc "A result or an error as text."
  @spec text(term()) :: String.t()
  def text({:ok, result}), do: text(result)
  def text({:error, error}), do: text(error)
  def text(error) when is_exception(error), do: error |> Exception.message() |> Printable.lines()
  def text(list) when is_list(list), do: Enum.map_join(list, "\n", &text/1)

  def text(other) do
    if String.Chars.impl_for(other),
      do: other |> to_string() |> Printable.lines() |> String.trim_trailing(),
      else: inspect(other)
  end

  defp given(:to_json, arguments), do: arguments
  defp given(_name, []), do: []
  defp given(name, [only]), do: [first(name, only)]
  defp given(name, [one, options]), do: [first(name, one), options(options)]

  # The one argument of a function that takes nothing but options is these.
  defp first(name, argument) when name in [:journal, :drift, :stragglers], do: options(argument)
  defp first(name, argument) when name in @of_nodes, do: argument
  defp first(_name, argument) when is_atom(argument), do: Atom.to_string(argument)
  defp first(_name, argument), do: argument

  defp options(options) when is_map(options), do: options |> Map.to_list() |> options()

  defp options(options) when is_list(options) do
    for option <- options, not match?({_name, :undefined}, option), do: option(option)
  end

  defp options(other), do: other

  defp option(name) when is_atom(name), do: {name, true}
  defp option(option), do: option
end
