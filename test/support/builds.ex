defmodule HotPatch.Test.Builds do
  @moduledoc false
  # The three builds of demo/exchange, compiled when they have changed and kept for the next test run,
  # and small Erlang modules compiled from text.

  alias HotPatch.Support.Folder

  @source Path.expand("../../demo/exchange", __DIR__)
  @builds ~w(shipped patched broken)
  @modules ~w(Billing Call Cdr Meter Tariff Trunk)

  @doc "Folder for what tests leave behind; made anew for each run of the VM."
  @spec tmp() :: Path.t()
  def tmp do
    case :persistent_term.get(__MODULE__, nil) do
      nil ->
        # Numbers of processes are not enough: in containers that share a folder they are the same.
        unique = "hot_patch_test-#{System.pid()}-#{System.os_time(:microsecond)}"
        :persistent_term.put(__MODULE__, Path.join(System.tmp_dir!(), unique))
        tmp()

      tmp ->
        tmp
    end
  end

  @doc "Compiles all builds, unless a run before has compiled the same."
  @spec compile!() :: :ok
  def compile! do
    kept = Path.join(Application.app_dir(:hot_patch), "../../exchange-#{digest()}")

    if File.dir?(kept) do
      File.mkdir_p!(tmp())
      File.cp_r!(kept, Path.join(tmp(), "builds"))
    else
      @builds
      |> Enum.map(&Task.async(fn -> compile!(&1) end))
      |> Task.await_many(120_000)

      keep(kept)
    end

    :ok
  end

  # Whole or not at all, also where two runs keep the same.
  defp keep(kept) do
    folder = Path.dirname(kept)
    new = Path.join(folder, "new-#{System.pid()}")
    for name <- File.ls!(folder), name =~ ~r/^exchange-/, do: File.rm_rf!(Path.join(folder, name))
    File.cp_r!(Path.join(tmp(), "builds"), new)
    with {:error, _kept_by_another_meanwhile} <- File.rename(new, kept), do: File.rm_rf!(new)
  end

  # Of all that the builds depend on.
  defp digest do
    files =
      for {path, %{type: :regular}} <- Folder.tree(@source),
          Path.extname(path) == ".ex",
          not String.contains?(path, "/_build/"),
          do: {path, File.read!(path)}

    own = __MODULE__.module_info(:md5)
    facts = {Enum.sort(files), own, System.version(), :erlang.system_info(:otp_release)}

    :sha256
    |> :crypto.hash(:erlang.term_to_binary(facts))
    |> Base.encode16()
    |> String.slice(0, 16)
  end

  @doc "The ebin folder of a build."
  @spec ebin(String.t()) :: Path.t()
  def ebin(build), do: Path.join([tmp(), "builds", build, "exchange-1.0.0", "ebin"])

  @doc "The files of a build that differ from the shipped one, as archive paths and bytes."
  @spec changed(String.t()) :: [{Path.t(), binary()}]
  def changed(build) do
    for name <- @modules,
        file = "Elixir.Exchange.#{name}.beam",
        {:ok, bytes} <- [File.read(Path.join(ebin(build), file))],
        File.read(Path.join(ebin("shipped"), file)) != {:ok, bytes},
        do: {"exchange-1.0.0/ebin/" <> file, bytes}
  end

  @doc "One changed file of a build, by the last part of its module's name."
  @spec changed(String.t(), String.t()) :: {Path.t(), binary()}
  def changed(build, name) do
    List.keyfind!(changed(build), "exchange-1.0.0/ebin/Elixir.Exchange.#{name}.beam", 0)
  end

  @doc "The repaired code of a call, with a fault that no check sees: what a call is asked for, `:info`, it fails at."
  @spec planted({Path.t(), binary()}) :: {Path.t(), binary()}
  def planted({path, bytes}) do
    {:ok, {module, [debug_info: {:debug_info_v1, backend, data}]}} =
      :beam_lib.chunks(bytes, [:debug_info])

    {:ok, forms} = backend.debug_info(:erlang_v1, module, data, [])

    forms =
      for form <- forms do
        with {:function, line, :serve, 2, clauses} <- form,
             do: {:function, line, :serve, 2, Enum.map(clauses, &faulty/1)}
      end

    {:ok, ^module, bytes} = :compile.forms(forms)
    {path, bytes}
  end

  defp faulty({:clause, line, [{:atom, _, :info} = info, {:var, _, state} | _], guards, _body}) do
    element = {:remote, line, {:atom, line, :erlang}, {:atom, line, :element}}
    fails = {:call, line, element, [{:integer, line, 1}, {:var, line, state}]}
    {:clause, line, [info, {:var, line, state}], guards, [fails]}
  end

  defp faulty(clause), do: clause

  @doc "A small module that says which version it is."
  @spec versioned(atom() | String.t(), pos_integer()) :: binary()
  def versioned(name, vsn) do
    erlang("""
    -module(#{name}).
    -vsn(#{vsn}).
    -export([vsn/0]).
    vsn() -> #{vsn}.
    """)
  end

  @doc "The same module with its code_change under a name that nobody calls."
  @spec without_code_change(binary()) :: binary()
  def without_code_change(bytes) do
    {:ok, _module, chunks} = :beam_lib.all_chunks(bytes)

    {:ok, renamed} =
      chunks
      |> Enum.map(fn
        {~c"AtU8", atoms} -> {~c"AtU8", :binary.replace(atoms, "code_change", "code_chains")}
        chunk -> chunk
      end)
      |> :beam_lib.build_module()

    renamed
  end

  @doc "Compiles an Erlang module from its text."
  @spec erlang(String.t()) :: binary()
  def erlang(text) do
    {:ok, tokens, _} = text |> String.to_charlist() |> :erl_scan.string()

    forms =
      tokens
      |> Enum.chunk_while([], &chunk_form/2, fn [] -> {:cont, []} end)
      |> Enum.map(fn form ->
        {:ok, parsed} = :erl_parse.parse_form(form)
        parsed
      end)

    {:ok, _module, beam} = :compile.forms(forms, [:deterministic])
    beam
  end

  defp chunk_form({:dot, _} = token, form), do: {:cont, Enum.reverse([token | form]), []}
  defp chunk_form(token, form), do: {:cont, [token | form]}

  defp compile!(build) do
    File.mkdir_p!(ebin(build))

    {output, status} =
      System.cmd("elixirc", ["-o", ebin(build) | sources(build)], stderr_to_stdout: true)

    if status != 0, do: raise("the #{build} build of the exchange does not compile:\n" <> output)
    File.write!(Path.join(ebin(build), "exchange.app"), application_resource(ebin(build)))
  end

  defp sources(build) do
    own = Folder.files("#{@source}/builds/#{build}", ".ex")

    # The broken build is the patched one but for its own files.
    base =
      if build == "broken" do
        names = Enum.map(own, &Path.basename/1)

        Enum.reject(
          Folder.files("#{@source}/builds/patched", ".ex"),
          &(Path.basename(&1) in names)
        )
      else
        []
      end

    lib =
      for {path, _stat} <- Folder.tree("#{@source}/lib"), Path.extname(path) == ".ex", do: path

    lib ++ own ++ base
  end

  defp application_resource(ebin) do
    modules =
      for file <- Folder.files(ebin, ".beam"),
          do: file |> Path.basename(".beam") |> String.to_atom()

    properties = [
      description: ~c"A telephone exchange",
      registered: [],
      vsn: ~c"1.0.0",
      modules: modules,
      applications: [:kernel, :stdlib, :elixir, :logger],
      mod: {Exchange.Application, []}
    ]

    :io_lib.format("~tp.~n", [{:application, :exchange, properties}])
  end
end
