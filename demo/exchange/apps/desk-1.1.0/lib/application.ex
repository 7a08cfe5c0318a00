defmodule Desk.Application do
  @moduledoc false

  use Application

  @impl Application
  def start(_type, _args), do: Desk.Supervisor.start_link()
end
