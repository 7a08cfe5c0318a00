defmodule HotPatch.Host.Comeback do
  @moduledoc false
  # Whether this VM is started again when it ends, and by whom: asked before it is ended on purpose. What starts it is no
  # part of it, so it is looked for from inside: heart is the VM's own, systemd tells what it does with a unit, and of all
  # else only the configuration can say it (`comes_back: true`). What is not known counts as no.

  alias HotPatch.Host.Config
  alias HotPatch.Support.FileName

  @typedoc """
  `:heart` with the command by which it starts the system. `:exit`: somebody who starts it again when it has ended with
  this status.
  """
  @type t :: {:heart, command :: String.t()} | {:exit, status :: 0 | 1, by :: String.t()}

  # As many bytes as heart takes as a command.
  @longest 2_046

  @doc "Who starts it again; or why that is not known, and what to do."
  @spec how() :: {:ok, t()} | {:error, String.t()}
  def how do
    command = command()

    facts = %{
      heart?: :init.get_argument(:heart) != :error and Process.whereis(:heart) != nil,
      command: command,
      lacking: command && lacking(command),
      said: Config.current().comes_back,
      unit: unit(),
      container: container()
    }

    judge(facts, &systemd/1)
  end

  @doc false
  @spec judge(map(), ({:system | :user, String.t()} -> {:ok, map()} | :error)) ::
          {:ok, t()} | {:error, String.t()}
  def judge(%{said: false}, _ask),
    do: refuse("config :hot_patch, comes_back: false says that nobody starts it again")

  def judge(%{heart?: true, command: nil}, _ask) do
    refuse("heart watches it, and has no command to start it: set HEART_COMMAND")
  end

  def judge(%{heart?: true, command: command}, _ask) when byte_size(command) > @longest,
    do: refuse("the command of heart is longer than the #{@longest} bytes that it takes")

  def judge(%{heart?: true, lacking: program, command: command}, _ask) when program != nil do
    refuse(
      "the command of heart is #{command}, and there is no program #{program}: put quotes around a path with blanks in it " <>
        "(HEART_COMMAND, which the release's env.sh sets)"
    )
  end

  def judge(%{heart?: true, command: command}, _ask), do: {:ok, {:heart, command}}
  def judge(%{said: true}, _ask), do: {:ok, {:exit, 0, "config :hot_patch, comes_back: true"}}

  def judge(%{unit: {_scope, name} = unit} = facts, ask) do
    case ask.(unit) do
      {:ok, %{"Restart" => restart}} when restart in ["always", "on-success"] ->
        {:ok, {:exit, 0, "systemd, #{name}, Restart=#{restart}"}}

      # What counts as a failure is a status of its own.
      {:ok, %{"Restart" => "on-failure"}} ->
        {:ok, {:exit, 1, "systemd, #{name}, Restart=on-failure"}}

      {:ok, %{"Restart" => restart}} ->
        refuse(
          "its unit #{name} of systemd has Restart=#{restart}: set Restart=always and reload it"
        )

      _not_told ->
        judge(%{facts | unit: nil}, ask)
    end
  end

  def judge(%{container: what}, _ask) when what != nil do
    refuse(
      "it runs in a container (#{what}), of which cannot be seen from inside whether it is started again, and with this " <>
        "disk or with that of its image. Deliver an image of the new release, or, where the same disk comes back, say so " <>
        "with config :hot_patch, comes_back: true"
    )
  end

  def judge(_nobody, _ask) do
    refuse(
      "neither heart nor systemd is found that would. Start it with -heart and HEART_COMMAND, or by a unit with " <>
        "Restart=always; or, where something else starts it again when it ends, say so with config :hot_patch, " <>
        "comes_back: true"
    )
  end

  defp refuse(why),
    do: {:error, "this node would not be started again when it ends: #{why}"}

  @doc "By what heart starts the system; nil without heart, or where it has nothing to do that by."
  @spec command() :: String.t() | nil
  # What was set by a call counts before what the environment says.
  def command do
    case Process.whereis(:heart) && :heart.get_cmd() do
      {:ok, [_ | _] = command} -> FileName.to_binary(command)
      _none_set -> FileName.from_environment("HEART_COMMAND")
    end
  catch
    :exit, _busy -> nil
  end

  @doc false
  # The program that a command names and that is not there. Of one that a shell has to read more into nothing is known.
  @spec lacking(String.t()) :: Path.t() | nil
  def lacking(command) do
    with [_all, program] <- Regex.run(~r/\A(\/[\w\/.@%:,+-]*)(?: [\w\/.@%:,+ -]*)?\z/u, command),
         false <- File.regular?(program),
         do: program,
         else: (_there_or_not_known -> nil)
  end

  # The unit in which this VM runs, by its control group.
  defp unit do
    with {:ok, text} <- File.read("/proc/#{System.pid()}/cgroup"),
         do: unit_of(text),
         else: (_ -> nil)
  end

  @doc false
  @spec unit_of(String.t()) :: {:system | :user, String.t()} | nil
  def unit_of(text) do
    Enum.find_value(String.split(text, "\n", trim: true), fn line ->
      parts = line |> String.split(":", parts: 3) |> List.last() |> Path.split()
      name = List.last(parts) || ""

      if Path.extname(name) == ".service" and not String.starts_with?(name, "user@"),
        do: {if(Enum.any?(parts, &user_manager?/1), do: :user, else: :system), name}
    end)
  end

  defp user_manager?(part), do: String.starts_with?(part, "user@")

  # What its manager says of a unit. That it is this VM which is its main process is asked as well: a shell in a session
  # belongs to a unit too, and nobody starts that again.
  defp systemd({scope, name}) do
    with program when is_binary(program) <- System.find_executable("systemctl"),
         user = if(scope == :user, do: ["--user"], else: []),
         {text, 0} <-
           System.cmd(program, user ++ ["show", name, "--property=MainPID,Restart"],
             stderr_to_stdout: true
           ),
         %{"MainPID" => pid} = said <- said(text),
         true <- pid == System.pid() do
      {:ok, said}
    else
      _not_told -> :error
    end
  end

  defp said(text) do
    for line <- String.split(text, "\n", trim: true),
        [key, value] <- [String.split(line, "=", parts: 2)],
        into: %{},
        do: {key, value}
  end

  defp container do
    Enum.find_value(
      [
        {File.exists?("/.dockerenv"), "/.dockerenv"},
        {File.exists?("/run/.containerenv"), "/run/.containerenv"},
        {System.get_env("KUBERNETES_SERVICE_HOST") != nil, "KUBERNETES_SERVICE_HOST"},
        {System.pid() == "1", "its process is number 1"}
      ],
      fn {there?, what} -> if there?, do: what end
    )
  end
end
