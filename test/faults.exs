# The long run of faults, see script/faults --help.

alias HotPatch.Test.Builds
alias HotPatch.Test.Cluster
alias HotPatch.Test.Faults.Campaign
alias HotPatch.Test.Faults.Scenarios

{given, []} =
  OptionParser.parse!(System.argv(),
    strict: [
      faults: :integer,
      schedules: :boolean,
      seed: :integer,
      only: :integer,
      scenario: :string,
      lanes: :integer
    ]
  )

scenario = given[:scenario]
names = ["kill" | Enum.map(Scenarios.names(), &Atom.to_string/1)]

if scenario && scenario not in names do
  IO.puts(:stderr, "faults: no scenario #{scenario}: there are #{Enum.join(names, ", ")}")
  System.halt(2)
end

options = %{
  faults: given[:faults] || if(given[:schedules], do: 1_000, else: 500),
  schedules?: given[:schedules] || false,
  seed: given[:seed] || :rand.uniform(1_000_000),
  only: given[:only],
  scenario: scenario && String.to_atom(scenario),
  lanes: given[:lanes] || 2
}

Logger.configure(level: :none)
Cluster.distribute!()
Builds.compile!()
IO.puts("faults: seed #{options.seed}")
{tried, right} = Campaign.run(options)
IO.puts("faults: #{tried} tried, #{right} ended right, seed #{options.seed}")

unless options.only && tried != right, do: File.rm_rf!(Builds.tmp())
System.halt(if tried == right, do: 0, else: 1)
