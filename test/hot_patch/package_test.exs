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
