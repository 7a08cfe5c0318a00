defmodule HotPatch.Host.Emulator do
  @moduledoc false
  # The emulator of this very VM, as a program that another VM can be started with: one that reads what nobody here
  # may be harmed by.

  alias HotPatch.Support.FileName

  # A VM that starts would read these as if they stood on its command line.
  @inherited ~w(ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ERL_LIBS ERL_INETRC HEART_COMMAND)

  @doc """
  The program, and the environment that it needs, in which nothing is left that would change how it starts; or where
  there is none. `erlexec` is what `erl` becomes; it takes from the environment where everything is.
  """
  @spec find() :: {:ok, Path.t(), [{charlist(), charlist() | false}]} | {:error, String.t()}
  def find do
    root = FileName.to_binary(:code.root_dir())

    folder =
      FileName.from_environment("BINDIR") ||
        Path.join([root, "erts-#{:erlang.system_info(:version)}", "bin"])

    path = Path.join(folder, "erlexec")

    own = [
      {~c"BINDIR", FileName.to_charlist(folder)},
      {~c"ROOTDIR", FileName.to_charlist(root)},
      {~c"EMU", ~c"beam"},
      {~c"PROGNAME", ~c"erl"},
      {~c"ERL_CRASH_DUMP_SECONDS", ~c"0"}
    ]

    if File.regular?(path),
      do: {:ok, path, own ++ for(name <- inherited(), do: {String.to_charlist(name), false})},
      else: {:error, "there is no emulator at #{path}"}
  end

  defp inherited, do: ["ERL_OTP#{System.otp_release()}_FLAGS" | @inherited]
end
