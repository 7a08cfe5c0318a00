defmodule HotPatch.Console.Page.Template do
  @moduledoc false
  # `use` it with the names of templates below `console/templates`: each becomes a private function of its assigns.

  defmacro __using__(names) do
    folder = Path.expand("../templates", __DIR__)

    for name <- names do
      path = Path.join(folder, "#{name}.eex")

      quote do
        require EEx
        import HotPatch.Console.View
        @external_resource unquote(path)
        EEx.function_from_file(:defp, unquote(name), unquote(path), [:assigns],
          engine: HotPatch.Console.HTML
        )
      end
    end
  end
end
