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

      Logger.error(
        fn ->
          [Printable.line(unquote(text)), " "] ++
            [Printable.exception(unquote(kind), unquote(reason), unquote(stack))]
        end,
        HotPatch.Support.Log.metadata([])
      )
    end
  end

  @doc "Metadata with every text in it made safe."
  @spec metadata(keyword()) :: keyword()
  def metadata(metadata) do
    safe =
      for {key, value} <- metadata,
          do: {key, if(is_binary(value), do: Printable.line(value), else: value)}

    safe ++ here(Process.group_leader())
  end

  # What an operator calls from a node of their own has that node's group leader. OTP would log it there, where
  # nobody looks for it afterwards, and not where it has happened.
  defp here(leader) when node(leader) == node(), do: []
  defp here(_leader), do: for(pid <- [Process.whereis(:user)], pid != nil, do: {:gl, pid})
end
