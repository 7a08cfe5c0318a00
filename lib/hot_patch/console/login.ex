defmodule HotPatch.Console.Login do
  @moduledoc """
  A host application's own login, in place of the accounts of the configuration:

      config :hot_patch, console: [login: MyApp.PatchLogin]

      defmodule MyApp.PatchLogin do
        @behaviour HotPatch.Console.Login

        @impl true
        def user(request) do
          with token when token != nil <- HotPatch.Console.Request.cookie(request, "my_app"),
               {:ok, user} <- MyApp.Sessions.find(token) do
            {:ok, %HotPatch.Console.User{name: user.email, role: :admin}}
          else
            _ -> :error
          end
        end

        @impl true
        def login_path(_request), do: "/sign-in"
      end

  Mounted in a Phoenix or Plug application (`HotPatch.Console.Plug`) the request has the `conn`, with what the
  application's own plugs have put there; for the console's own server it is `nil`:

      def user(%{conn: %{assigns: %{current_scope: %{user: %{admin?: true} = user}}}}),
        do: {:ok, %HotPatch.Console.User{name: user.email, role: :admin}}

      def user(_request), do: :error

  (`current_scope` is what Phoenix 1.8's `mix phx.gen.auth` assigns, before that it was `current_user`.)

  Who is in `conn.assigns` is who was there when the request came: a stream of events that goes on for long is
  ended by `HotPatch.Console.log_out/1`.

  The console asks it with every request. It must not take a request's word for who sent it: a header that
  a proxy sets is as good as the proxy is the only way in. Tokens of the configuration go on working beside it.
  """

  alias HotPatch.Console.Request
  alias HotPatch.Console.User

  @doc "Who sends this request."
  @callback user(Request.t()) :: {:ok, User.t()} | :error

  @doc "Where to send somebody who is not logged in: a path of this host, or a URL."
  @callback login_path(Request.t()) :: String.t()
end
