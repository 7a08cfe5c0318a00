# Run by script/demo, which builds the exchange and starts its nodes.
for file <- ~w(console archive cluster traffic story upgrade page),
    do: Code.require_file("#{file}.ex", __DIR__)

{options, []} =
  OptionParser.parse!(System.argv(),
    strict: [
      calls: :integer,
      shipped: :string,
      patched: :string,
      broken: :string,
      work: :string,
      page: :string,
      upgrade: :string
    ]
  )

demo = %{
  total: options[:calls],
  folders: Map.new(Keyword.take(options, [:shipped, :patched, :broken])),
  work: options[:work],
  upgrade: options[:upgrade]
}

# Until somebody ends it.
if url = options[:page], do: Demo.Page.run(demo, url)

started = System.monotonic_time(:millisecond)

outcome =
  try do
    if demo.upgrade, do: Demo.Upgrade.run(demo), else: Demo.Story.run(demo)
  rescue
    error -> {:failed, [Exception.message(error)]}
  end

seconds = div(System.monotonic_time(:millisecond) - started, 1_000)

case outcome do
  {:ok, summary} ->
    Demo.Console.title("Everything was as it should be. (#{seconds} seconds)")
    IO.puts(summary)

  {:failed, claims} ->
    Demo.Console.title("This was not so:")
    Enum.each(claims, &Demo.Console.verdict(false, &1))
    System.halt(1)
end
