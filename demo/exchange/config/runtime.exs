import Config

# script/demo --console: the page on every node of this machine; the first to come has the port, and
# another takes over when that one goes.
if port = System.get_env("EXCHANGE_CONSOLE_PORT") do
  config :hot_patch,
    console: [
      port: String.to_integer(port),
      accounts: [
        %{
          name: "operator",
          role: :admin,
          password: System.fetch_env!("EXCHANGE_CONSOLE_PASSWORD")
        }
      ]
    ]
end
