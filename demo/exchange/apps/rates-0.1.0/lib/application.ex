defmodule Rates.Application do
  @moduledoc false

  use Application

  @impl Application
  def start(_type, _args), do: Supervisor.start_link([Rates], strategy: :one_for_one)
end
