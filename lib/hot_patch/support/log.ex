defmodule HotPatch.Support.Log do
  @moduledoc false
  # The only place from which anything goes to the log: as one line, with nothing in it that a terminal would
  # obey or hide (see `HotPatch.Support.Printable`), in the metadata as in the text. Macros, so that an event has
  # the place of the call.

  alias HotPatch.Support.Printable

  for level <- [:debug, :info, :notice, :warning, :error] do
    @doc "Logs one line."
    defmacro unquote(level)(text, metadata \\ []) do
      level = unquote(level)

      quote do
        require Logger

        Logger.unquote(level)(
          fn -> Printable.line(unquote(text)) end,
          HotPatch.Support.Log.metadata(unquote(metadata))
        )
      end
    end
  end

  @doc "Logs an exception with its stack, behind a line that says what failed."
  defmacro failed(text, kind, reason, stack) do
    quote do
      require Logger

      Logger.error(fn ->
        [Printable.line(unquote(text)), " "] ++
          [Printable.exception(unquote(kind), unquote(reason), unquote(stack))]
      end)
    end
  end

  @doc "Metadata with every text in it made safe."
  @spec metadata(keyword()) :: keyword()
  def metadata(metadata) do
    for {key, value} <- metadata,
        do: {key, if(is_binary(value), do: Printable.line(value), else: value)}
  end
end
