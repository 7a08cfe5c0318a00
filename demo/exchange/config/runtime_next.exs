import Config

config :exchange, region: System.get_env("EXCHANGE_REGION", "north")
