import Config

config :exchange, lines_per_trunk: 50_000
config :logger, level: :warning

# The next version of the release.
if System.get_env("EXCHANGE_BUILD") == "next" do
  config :exchange, lines_per_trunk: 60_000, charged_seconds: 60
end
