import Config

config :exchange, lines_per_trunk: 50_000
config :logger, level: :warning
