# Writes src/beam/ops.rs, the table of the VM's instructions, out of the tables of the releases and of
# the roles in roles.txt:
#
#     elixir native/core/opcodes/opcodes.exs 25=GENOP_TAB 27=GENOP_TAB 29=GENOP_TAB
#
# genop.tab lies in OTP's sources as lib/compiler/src/genop.tab. Each release has all instructions of
# those before it; the last one given has the numbers. A number with a minus behind it is of an
# instruction that the release no longer loads.

defmodule Opcodes do
  @line ~r/^(\d+):\s*(-?)([a-z_0-9]+)\/(\d+)/
  @release ~r/^# OTP (\d+)\s*$/
  # Before OTP 20 the comments name releases in another way; none of them is of interest.
  @first 19

  def main(args) do
    tables = args |> Enum.map(&table/1) |> Enum.sort()
    {_newest, instructions} = List.last(tables)
    roles = roles()

    rows = for one <- instructions, do: row(one, last(one, tables), roles)
    unknown = Map.keys(roles) -- Enum.map(instructions, & &1.name)
    unknown == [] || raise("roles.txt has no instructions #{inspect(unknown)}")

    target = Path.join(__DIR__, "../src/beam/ops.rs")
    File.write!(target, [head(), rows, "];\n"])
    {_, 0} = System.cmd("rustfmt", ["--edition", "2024", target])
  end

  defp table(arg) do
    [release, path] = String.split(arg, "=", parts: 2)

    {instructions, _since} =
      path |> File.stream!() |> Enum.flat_map_reduce(@first, &line/2)

    numbers = Enum.map(instructions, & &1.number)
    numbers == Enum.to_list(1..length(numbers)) || raise("#{path} leaves out numbers")
    {String.to_integer(release), instructions}
  end

  defp line(text, since) do
    case {Regex.run(@line, text), Regex.run(@release, text)} do
      {[_, number, gone, name, arity], _} ->
        one = %{
          number: String.to_integer(number),
          name: name,
          arity: String.to_integer(arity),
          gone?: gone == "-",
          since: since
        }

        {[one], since}

      {nil, [_, release]} ->
        {[], String.to_integer(release)}

      {nil, nil} ->
        {[], since}
    end
  end

  # The last of the releases that loads it; 0 if none does.
  defp last(%{number: number} = one, tables) do
    loading =
      for {release, instructions} <- tables,
          %{gone?: false} = same <- [Enum.at(instructions, number - 1)] do
        {same.name, same.arity} == {one.name, one.arity} || raise("#{one.name} has changed")
        release
      end

    List.last(loading) || 0
  end

  defp roles do
    for line <- File.stream!(Path.join(__DIR__, "roles.txt")),
        [name | roles] <- [line |> String.split("#") |> hd() |> String.split()],
        into: %{},
        do: {name, roles}
  end

  defp row(one, last, roles) do
    roles = Map.get(roles, one.name)

    cond do
      last == 0 and roles == nil -> entry(one, 0, List.duplicate("Any", one.arity))
      last == 0 -> raise("#{one.name} is loaded by no release and has roles")
      roles == nil -> raise("#{one.name}/#{one.arity} has no roles")
      length(roles) != one.arity -> raise("#{one.name}/#{one.arity} has #{length(roles)} roles")
      true -> entry(one, last, roles)
    end
  end

  defp entry(one, last, roles) do
    "    op(\"#{one.name}\", #{one.since}, #{last}, &[#{Enum.join(roles, ", ")}]), // #{one.number}\n"
  end

  defp head do
    """
    //! Every instruction of every release: made by opcodes/opcodes.exs, not by hand.

    use super::role::Role::{self, *};

    /// An instruction.
    #[derive(Debug)]
    pub(super) struct Op {
        /// Its name.
        pub(super) name: &'static str,
        /// The first release that has it; 19 stands for all before too.
        pub(super) since: u8,
        /// The last release known here that loads it; 0 if none from OTP 25 on does.
        pub(super) last: u8,
        /// What its operands must be. An instruction that is not loaded has `Any`.
        pub(super) roles: &'static [Role],
    }

    const fn op(name: &'static str, since: u8, last: u8, roles: &'static [Role]) -> Op {
        Op { name, since, last, roles }
    }

    /// By the opcode, from 1 on.
    #[rustfmt::skip]
    pub(super) static OPS: &[Op] = &[
    """
  end
end

Opcodes.main(System.argv())
