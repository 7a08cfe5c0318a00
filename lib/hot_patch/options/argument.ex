defmodule HotPatch.Options.Argument do
  @moduledoc false
  # Arguments as they come from a shell: text may be a charlist, which is what `"..."` means in
  # Erlang, and the name of a node may be text.

  alias HotPatch.Error
  alias HotPatch.Support.Suggestion

  @setting ~r/\A(\w+)\.(\w+|[A-Z]\w*(?:\.[A-Z]\w*)+|'[^']+')=(.+)\z/us

  @doc """
  Text in its usual form; what is no text is left as it is.

      iex> HotPatch.Options.Argument.text(~c"fix.zip")
      "fix.zip"
      iex> HotPatch.Options.Argument.text([:a])
      [:a]
  """
  @spec text(term()) :: term()
  def text([first | _] = charlist) when is_integer(first) do
    case if(not List.improper?(charlist), do: :unicode.characters_to_binary(charlist)) do
      text when is_binary(text) -> text
      _no_text -> charlist
    end
  rescue
    ArgumentError -> charlist
  end

  def text(other), do: other

  @doc """
  A change of an application's environment, as text has it: application, key and value. That stays
  text, because to read it makes its atoms. A key may be the name of a module, as Elixir writes it; one
  that is neither that nor plain stands in quotes.

      iex> HotPatch.Options.Argument.setting("my_app.limits={10,20}")
      {:ok, {"my_app", "limits", "{10,20}"}}
      iex> HotPatch.Options.Argument.setting("my_app.MyAppWeb.Endpoint=[{url,[{port,8080}]}]")
      {:ok, {"my_app", "Elixir.MyAppWeb.Endpoint", "[{url,[{port,8080}]}]"}}
      iex> HotPatch.Options.Argument.setting("my_app.'LIMITS'=1")
      {:ok, {"my_app", "LIMITS", "1"}}
  """
  @spec setting(String.t()) ::
          {:ok, {application :: String.t(), key :: String.t(), value :: String.t()}}
          | {:error, String.t()}
  def setting(text) do
    # What it is may be a secret.
    case Regex.run(@setting, text) do
      [_all, application, key, value] -> {:ok, {application, key_name(key), value}}
      nil -> {:error, "must be APP.KEY=TERM, the value an Erlang term"}
    end
  end

  defp key_name("'" <> quoted), do: String.trim_trailing(quoted, "'")
  defp key_name("Elixir." <> _ = module), do: module

  defp key_name(<<first, _::binary>> = key),
    do: if(first in ?A..?Z, do: "Elixir." <> key, else: key)

  @doc "What an operation, a patch, or a node is called, as text."
  @spec name(atom(), term()) :: {:ok, String.t()} | {:error, Error.t()}
  def name(_call, name) when is_atom(name) and name not in [nil, true, false],
    do: {:ok, Atom.to_string(name)}

  def name(call, name) do
    case text(name) do
      text when is_binary(text) and text != "" ->
        {:ok, text}

      other ->
        shown = inspect(other, limit: 5, printable_limit: 80)
        {:error, Error.new(:invalid_option, "#{call}: #{shown} is no name", %{option: :id})}
    end
  end

  @doc "The name of a node; text counts where a node of this name is known, so that no atom is made."
  @spec node(atom(), term(), [node()]) :: {:ok, node()} | {:error, Error.t()}
  def node(_call, name, _known) when is_atom(name) and name not in [nil, true, false],
    do: {:ok, name}

  def node(call, name, known) do
    text = text(name)

    case is_binary(text) && Enum.find(known, &(Atom.to_string(&1) == text)) do
      found when is_atom(found) and found not in [nil, false] -> {:ok, found}
      _ -> {:error, wrong(call, text, known)}
    end
  end

  defp wrong(call, text, known) do
    question =
      if is_binary(text),
        do: Suggestion.question(text, Enum.map(known, &Atom.to_string/1)),
        else: ""

    Error.new(
      :invalid_option,
      "#{call}: #{inspect(text, limit: 5, printable_limit: 80)} is no node that is known: a node is named by an " <>
        "atom, such as :\"a@10.0.0.1\"#{question}",
      %{option: :node}
    )
  end
end
