defmodule HotPatch.Console.Assets do
  @moduledoc false
  # The style and the script of the pages, part of this module. Their names change with what they
  # hold, so that browsers may keep them for ever.

  alias HotPatch.Console.Response
  alias HotPatch.Support.Hex

  @folder Path.join(__DIR__, "assets")
  @types %{
    ".css" => "text/css; charset=utf-8",
    ".js" => "text/javascript; charset=utf-8",
    ".svg" => "image/svg+xml"
  }

  @assets (for file <- ["console.css", "console.js", "icon.svg"], into: %{} do
             path = Path.join(@folder, file)
             @external_resource path
             bytes = File.read!(path)

             digest = :crypto.hash(:sha256, bytes) |> Hex.encode() |> binary_part(0, 12)

             extension = Path.extname(file)

             {file,
              %{
                name: Path.rootname(file) <> "-" <> digest <> extension,
                type: @types[extension],
                bytes: bytes
              }}
           end)
  @by_name Map.new(@assets, fn {_file, asset} -> {asset.name, asset} end)

  @doc "The path of an asset, below the mount point."
  @spec path(String.t()) :: String.t()
  def path(file), do: "/assets/" <> @assets[file].name

  @doc "Answers with an asset."
  @spec show(term(), term(), term(), String.t()) :: Response.t()
  def show(_request, _access, _form, name) do
    case @by_name do
      %{^name => asset} ->
        %Response{
          headers: [
            {"content-type", asset.type},
            {"cache-control", "public, max-age=31536000, immutable"}
          ],
          body: asset.bytes
        }

      _unknown ->
        %Response{status: 404, headers: [{"content-type", "text/plain"}], body: "no such asset"}
    end
  end
end
