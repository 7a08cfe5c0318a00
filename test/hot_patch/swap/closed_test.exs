defmodule HotPatch.Swap.ClosedTest do
  # Shadows of a closed set: whatever a compiler makes must be code that the VM takes, and all that leads out of it
  # must lead to the gate.
  use ExUnit.Case, async: true

  alias HotPatch.Bridge
  alias HotPatch.Swap.Replay.Gate

  # What stays as it is: exceptions, and operators and guards that instructions name.
  @exceptions [error: 1, error: 2, error: 3, exit: 1, throw: 1, nif_error: 1, nif_error: 2]

  @tag :slow
  test "every module of OTP and Elixir has one that the loader takes, and that calls nobody but the gate" do
    files =
      for app <- [:kernel, :stdlib, :compiler, :elixir, :logger, :ex_unit],
          file <- Path.wildcard("#{:code.lib_dir(app)}/ebin/*.beam"),
          do: file

    assert length(files) > 400

    for files <- Enum.chunk_every(files, 50) do
      beams = Enum.map(files, &File.read!/1)
      {:ok, answers} = Bridge.request("closed_shadow", beams, {"@closed_test", gate()}, "otp")

      made =
        for {{:ok, %{name: name, bytes: bytes}}, file} <- Enum.zip(answers, files),
            do: {String.to_atom(name), String.to_charlist(file), bytes}

      # None is refused but what cannot be copied at all.
      for {{:error, why}, file} <- Enum.zip(answers, files),
          do: assert(why =~ ~r/arguments|native records|when it is loaded/, "#{file}: #{why}")

      assert {:ok, _prepared} = :code.prepare_loading(made)

      # Those that have no copy are called by that name all the same: who makes them makes them anew without.
      names = for file <- files, into: MapSet.new(), do: shadow(file)
      for {_name, file, bytes} <- made, do: assert({file, leads_out(bytes, names)} == {file, []})
    end
  end

  defp shadow(file), do: String.to_atom(Path.basename(file, ".beam") <> "@closed_test")

  defp gate, do: :new |> Gate.naming() |> elem(1)

  # By the VM's own disassembler.
  defp leads_out(bytes, names) do
    for {module, function, arity} <- called(bytes),
        module != Gate,
        not MapSet.member?(names, module),
        not (module == :erlang and {function, arity} in @exceptions),
        do: {module, function, arity}
  end

  defp called(bytes) do
    {:beam_file, _module, _exports, _attributes, _info, functions} = :beam_disasm.file(bytes)

    for {:function, _name, _arity, _entry, code} <- functions,
        instruction <- code,
        call <- call(instruction),
        uniq: true,
        do: call
  end

  defp call({kind, _arity, {:extfunc, m, f, a}}) when kind in [:call_ext, :call_ext_only],
    do: [{m, f, a}]

  defp call({:call_ext_last, _arity, {:extfunc, m, f, a}, _words}), do: [{m, f, a}]
  defp call(:send), do: [{:erlang, :send, 2}]

  defp call(instruction)
       when is_tuple(instruction) and
              elem(instruction, 0) in [:apply, :apply_last, :call_fun, :call_fun2],
       do: [{:erlang, :apply, 3}]

  defp call(_other), do: []
end
