defmodule HotPatch.ConsumerTest do
  # Somebody else's project with HotPatch as a dependency, made of nothing but what the package has, on a machine
  # without cargo.
  use ExUnit.Case, async: true

  alias HotPatch.Build.Precompiled

  @moduletag :tmp_dir
  @moduletag :long
  @moduletag timeout: 600_000
  @root Path.expand("../..", __DIR__)

  # What is optional is there or not: this stands for Plug's package.
  @plug %{
    "mix.exs" => """
    defmodule Plug.MixProject do
      use Mix.Project
      def project, do: [app: :plug, version: "1.19.0"]
    end
    """,
    "lib/plug.ex" => """
    defmodule Plug do
      @callback init(term) :: term
      @callback call(term, term) :: term
    end
    defmodule Plug.Conn do
      def halt(conn), do: conn
    end
    """
  }

  @project %{
    "mix.exs" => """
    defmodule Consumer.MixProject do
      use Mix.Project
      def project, do: [app: :consumer, version: "1.0.0", deps: deps()]
      def application, do: [extra_applications: [:logger]]

      defp deps do
        [{:hot_patch, path: "../package"}] ++
          if(System.get_env("WITH_PLUG"), do: [{:plug, path: "../plug"}], else: [])
      end
    end
    """,
    "lib/consumer.ex" => "defmodule Consumer do\nend\n"
  }

  setup %{tmp_dir: dir} do
    package = Path.join(dir, "package")

    for file <- Mix.Project.config()[:package][:files] do
      File.mkdir_p!(Path.dirname(Path.join(package, file)))
      File.cp_r!(Path.join(@root, file), Path.join(package, file))
    end

    write(dir, "plug", @plug)
    write(dir, "consumer", @project)

    # As script/package does it, of what was built in this tree.
    File.cp_r!(Path.join(@root, "priv"), Path.join(package, "priv"))
    Precompiled.pack!(package, Path.join(dir, "packed"), Mix.Project.config()[:version])
    File.rm_rf!(Path.join(package, "priv"))
    :ok
  end

  defp write(dir, project, files) do
    for {file, text} <- files do
      path = Path.join([dir, project, file])
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, text)
    end
  end

  test "compiles and runs it, and has the page with Plug whenever Plug comes", %{tmp_dir: dir} do
    assert {output, 0} = mix(dir, ["compile", "--warnings-as-errors"])
    assert output =~ "taking the archive reader that was built"

    look = """
    behaves? = HotPatch.Console.Plug.init(at: "/a") == %{at: ["a"]}
    IO.inspect({HotPatch.Native.status(), behaves?}, label: "seen")
    """

    assert {output, 0} = mix(dir, ["run", "-e", look])
    assert output =~ "seen: {:ok, true}"

    # Added later, HotPatch finds it as it is, and nothing is compiled again for that.
    call = """
    conn = HotPatch.Console.Plug.call(%{path_info: ["b"]}, %{at: ["a"]})
    IO.inspect({conn, Code.ensure_loaded?(Plug)}, label: "seen")
    """

    assert {output, 0} = mix(dir, ["run", "-e", call], [{"WITH_PLUG", "1"}])
    assert output =~ ~s(seen: {%{path_info: ["b"]}, true})
  end

  defp mix(dir, args, env \\ []) do
    path =
      System.get_env("PATH")
      |> String.split(":")
      |> Enum.reject(&File.exists?(Path.join(&1, "cargo")))
      |> Enum.join(":")

    System.cmd(System.find_executable("mix"), args,
      cd: Path.join(dir, "consumer"),
      env:
        [{"MIX_ENV", "dev"}, {"PATH", path}, {"HOT_PATCH_PRECOMPILED", Path.join(dir, "packed")}] ++
          [{"HOT_PATCH_SKIP_NATIVE", nil}, {"CARGO_TARGET_DIR", nil}] ++ env,
      stderr_to_stdout: true
    )
  end
end
