defmodule HotPatch.PackageTest do
  # What mix.exs says of the package and its docs is there.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)

  setup_all do
    %{project: Mix.Project.config()}
  end

  test "the package has what it takes to build it", %{project: project} do
    files = project[:package][:files]
    for file <- files, do: assert(File.exists?(Path.join(@root, file)), "#{file} is not there")

    [_, members] =
      Regex.run(~r/^members = \[(.*)\]$/m, File.read!(Path.join(@root, "Cargo.toml")))

    for [crate] <- Regex.scan(~r/native\/\w+/, members), do: assert(crate in files)
    for file <- ~w(Cargo.toml Cargo.lock lib mix.exs), do: assert(file in files)
  end

  # What `mix hex.build` wants of a project, as far as that can be seen without hex.
  test "it is fit for hex: it says what it is, and needs nothing", %{project: project} do
    assert {:ok, _} = Version.parse(project[:version])
    assert {:ok, _} = Version.parse_requirement(project[:elixir])
    assert String.length(project[:description]) in 1..300
    for {_name, _version, options} <- project[:deps], do: assert(options == [optional: true])
  end

  @tag :slow
  test "its dependencies are optional, and there where somebody can ask for them" do
    optional = [{:plug, "~> 1.14", [optional: true]}, {:telemetry, "~> 1.0", [optional: true]}]
    hex = "defmodule Hex do end; "

    host =
      "defmodule Host do def project, do: [app: :host, version: \"1.0.0\"] end; Mix.Project.push(Host); "

    asked = "System.put_env(\"HOT_PATCH_OPTIONAL_DEPS\", \"1\"); "

    for {before, deps} <- [
          {"", []},
          {host, []},
          {hex, []},
          {hex <> host, optional},
          {asked, optional}
        ] do
      assert deps_after(before) == deps, before
    end
  end

  # mix.exs as Mix reads it: alone, or while the project of a host is the one that is built.
  defp deps_after(before) do
    script =
      "Mix.start(); #{before}Code.compile_file(\"mix.exs\"); " <>
        "IO.write(inspect(Mix.Project.config()[:deps]))"

    {text, 0} = System.cmd("elixir", ["-e", script], cd: @root, env: [{"MIX_ENV", "test"}])
    {deps, _} = Code.eval_string(text)
    deps
  end

  test "licence and version are those of the crates", %{project: project} do
    workspace = File.read!(Path.join(@root, "Cargo.toml"))
    assert project[:package][:licenses] == ["Apache-2.0"]
    assert workspace =~ ~s(license = "Apache-2.0")
    assert workspace =~ ~s(\nversion = "#{project[:version]}")
    assert File.read!(Path.join(@root, "LICENSE")) =~ "Apache License"
  end

  test "every page is one of the docs, and every page of the docs is there", %{project: project} do
    extras = project[:docs][:extras]
    for page <- extras, do: assert(File.exists?(Path.join(@root, page)), "#{page} is not there")

    for pattern <- ["*.md", "docs/*.md"],
        page <- Path.wildcard(Path.join(@root, pattern)),
        do: assert(Path.relative_to(page, @root) in extras)
  end
end
