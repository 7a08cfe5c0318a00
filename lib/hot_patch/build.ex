defmodule HotPatch.Build do
  @moduledoc """
  Builds patches from two builds of a system, and signs them. The mix tasks `hot_patch.build`
  and `hot_patch.sign` do no more than read their options.

  It needs neither Mix nor a running system, so it also works from a release:

      bin/my_app eval 'IO.puts HotPatch.Build.run!(from: "/opt/my_app", to: "/tmp/new", out: "fix.zip")'
  """

  alias HotPatch.Analysis
  alias HotPatch.Archive
  alias HotPatch.Bridge
  alias HotPatch.Build.Overlays
  alias HotPatch.Build.Request
  alias HotPatch.Build.Settings
  alias HotPatch.Build.Split
  alias HotPatch.Composition
  alias HotPatch.Error
  alias HotPatch.Host.Keys
  alias HotPatch.Native
  alias HotPatch.Options
  alias HotPatch.Options.Argument
  alias HotPatch.Refusal
  alias HotPatch.Signature
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @typedoc "The options of `run/1`."
  @type options :: unquote(Options.spec(:build))

  @typedoc """
    * `:composition` - what a system that takes the patch will see
    * `:zip` - the archive
    * `:out` - where it was written, or `nil`
    * `:notes` - what was left out and why, and the like, in words
    * `:compared` - how many files were compared
    * `:analysis` - what the change means; `nil` for what was only signed
    * `:refusal` - of a dry run: why the patch would not be built, or `nil`
    * `:first` - where it was split: the patch that has to be in force before this one, of the same kind; or `nil`
  """
  @type t :: %__MODULE__{
          composition: Composition.t(),
          zip: binary(),
          out: Path.t() | nil,
          notes: [String.t()],
          compared: non_neg_integer(),
          analysis: Analysis.t() | nil,
          refusal: Error.t() | nil,
          first: t() | nil
        }
  @enforce_keys [:composition, :zip]
  defstruct [:composition, :zip, :out, :analysis, :refusal, :first, notes: [], compared: 0]

  @doc """
  Builds a patch and writes it, unless something in it is of severity `:danger` and not accepted
  by name; see `HotPatch.Analysis.Finding`. A dry run gives what would be refused too, with its
  `:refusal`.

  ## Options

  #{Options.docs(:build)}

  ## Errors

    * `HotPatch.Error` with `:build`, `:invalid_option`, `:key`, `:file`, `:no_native`
    * `HotPatch.Error` with `:dangerous`: `details.findings` are those that nobody has accepted
    * `HotPatch.Refusal` - what was built is beyond the limits that are configured here

  ## Examples

      iex> {:error, error} = HotPatch.Build.run(from: "/nowhere", to: "/nowhere", out: "fix.zip")
      iex> {error.reason, error.message =~ "/nowhere"}
      {:build, true}
  """
  @spec run(options()) :: {:ok, t()} | {:error, Error.t() | Refusal.t()}
  def run(options) do
    with {:ok, request, own} <- Request.new(options),
         {:ok, key} <- key(own.sign),
         :ok <- Bridge.check(Bridge.Nif) do
      {request, notes} = with_settings(request, own)
      make = &make(&1, key, Map.merge(own, &2), notes)

      if own.split,
        do: Split.run(request, own.out, make, &write(&1, wanted(own))),
        else: make.(request, %{})
    end
  end

  defp make(request, key, own, notes) do
    with {:ok, built} <- build(request, own.progress, notes),
         refusal = refusal(built),
         :ok <- if(own.dry_run or refusal == nil, do: :ok, else: {:error, refusal}),
         {:ok, zip} <- sign_with(key, built.zip, request["name"]),
         {:ok, composition} <- Archive.read(zip, request["name"]),
         {:ok, out} <- write(zip, wanted(own)) do
      {:ok,
       %__MODULE__{
         composition: composition,
         zip: zip,
         out: out,
         notes: built.notes ++ notes,
         compared: built.compared,
         analysis: built.analysis,
         refusal: refusal
       }}
    end
  end

  defp wanted(own), do: if(own.dry_run, do: nil, else: own.out)

  @doc "Like `run/1`, but raises the error."
  @spec run!(options()) :: t()
  def run!(options) do
    case run(options) do
      {:ok, built} -> built
      {:error, error} -> raise error
    end
  end

  @doc """
  Signs a patch that was built before, in place of any signature it has. `to` defaults to the
  archive itself.

  ## Examples

      iex> {:error, error} = HotPatch.Build.sign("fix.zip", "/no/such.key")
      iex> error.reason
      :key
  """
  @spec sign(Path.t(), Path.t(), Path.t() | nil) ::
          {:ok, t()} | {:error, Error.t() | Refusal.t()}
  def sign(archive, key, to \\ nil) do
    [archive, key, to] = Enum.map([archive, key, to], &Argument.text/1)
    name = Request.name(archive)

    with {:ok, key} <- Keys.read_secret(key),
         :ok <- Bridge.check(),
         {:ok, bytes, _name} <- Archive.Input.read(archive),
         {:ok, zip} <- sign_with(key, bytes, name),
         {:ok, composition} <- Archive.read(zip, name),
         {:ok, out} <- write(zip, to || archive) do
      {:ok, %__MODULE__{composition: composition, zip: zip, out: out}}
    end
  end

  defp key(nil), do: {:ok, nil}
  defp key(path), do: Keys.read_secret(path)

  # An upgrade brings the configuration of its release.
  defp with_settings(
         %{"from" => from, "to" => to, "modules" => nil, "in_place" => false} = request,
         own
       ) do
    if Settings.versions?(from, to),
      do: {request, Settings.told(from, to) ++ Overlays.told(from, to)},
      else: with_differences(request, own)
  end

  defp with_settings(request, own), do: with_differences(request, own)

  # What was given by hand is meant instead of what the build says.
  defp with_differences(request, %{config_differences: take?}) do
    settings = Settings.between(request["from"], request["to"])

    if take? do
      name = &{&1["application"], &1["key"]}
      given = MapSet.new(request["config"], name)
      more = for %{setting: one} <- settings.differences, name.(one) not in given, do: one
      {Map.update!(request, "config", &(&1 ++ more)), settings.notes}
    else
      {request, Settings.offered(settings)}
    end
  end

  # This does not go over the bridge: see HotPatch.Native. The library works in this process;
  # another hears how far it has come.
  defp build(request, progress, notes) do
    with {:ok, json} <- HotPatch.JSON.encode(request) do
      with {:error, text} <- built(json, progress),
           do: {:error, Error.new(:build, Enum.join(["build: #{text}" | notes], ". "))}
    end
  end

  defp built(json, progress) do
    {watcher, monitor} = spawn_monitor(fn -> watch(progress, 0) end)

    answer =
      json
      |> Native.build(Archive.significant_chunks(), watcher)
      |> :erlang.binary_to_term([:safe])

    # What it shows is to end before the result is shown.
    send(watcher, :done)
    receive(do: ({:DOWN, ^monitor, :process, ^watcher, _reason} -> :ok))
    with {:ok, built} <- answer, do: {:ok, %{built | analysis: Analysis.decode(built.analysis)}}
  end

  defp refusal(%{refusal: nil}), do: nil

  defp refusal(%{refusal: text} = built) do
    accepted =
      for %{"rule" => rule, "module" => of} <- built.manifest["accepted_findings"],
          do: "#{rule}:#{of}"

    findings = Analysis.refused(built.analysis, accepted)
    Error.new(:dangerous, "build: #{text}", %{findings: findings})
  end

  defp watch(progress, total) do
    receive do
      {:hot_patch_build, done, total} ->
        progress.(done, total)
        watch(progress, total)

      :done ->
        progress.(total, total)
    end
  end

  defp sign_with(nil, zip, _name), do: {:ok, zip}

  defp sign_with(key, zip, name) do
    with {:ok, composition} <- Archive.read(zip, name),
         {:ok, manifest} <- manifest(composition),
         {:ok, json} <- HotPatch.JSON.encode(Signature.make(key, manifest, composition.files)),
         {:ok, answer} <- Bridge.request("sign", [zip, json], Archive.options(), name) do
      with {:error, text} <- answer, do: {:error, Error.new(:build, "sign: #{text}")}
    end
  end

  defp manifest(%{manifest: nil, id: id}) do
    {:error,
     Error.new(
       :no_manifest,
       "sign: #{id} has no manifest, so there is nothing to sign: build it with mix hot_patch.build"
     )}
  end

  defp manifest(%{manifest: manifest}), do: {:ok, manifest.bytes}

  defp write(_zip, nil), do: {:ok, nil}

  # Whole or not at all: who waits for the file must not find half of it.
  defp write(zip, path) do
    temporary = "#{path}.#{System.pid()}.tmp"

    with :ok <- File.write(temporary, zip),
         :ok <- File.rename(temporary, path) do
      {:ok, path}
    else
      {:error, posix} ->
        _ = File.rm(temporary)
        {:error, Error.new(:file, "cannot write #{path}: #{:file.format_error(posix)}")}
    end
  end

  defimpl Inspect do
    def inspect(built, _options),
      do: HotPatch.Support.Printable.line("#HotPatch.Build<#{built.composition.id}>")
  end

  @doc false
  # What it is and what it means, without where it was written.
  @spec about(t()) :: String.t()
  def about(built) do
    notes = for note <- built.notes, do: ["note: ", Printable.line(note), "\n"]
    analysis = if built.analysis, do: [Analysis.to_table(built.analysis), "\n"], else: []
    Printable.lines([Composition.to_table(built.composition), "\n", analysis, notes])
  end

  defimpl String.Chars do
    def to_string(%{first: %{} = first} = built),
      do: Kernel.to_string(first) <> "\n" <> Kernel.to_string(%{built | first: nil})

    def to_string(built) do
      where =
        if built.out,
          do: "written to #{Printable.line(built.out)} (#{Table.bytes(byte_size(built.zip))})\n",
          else: "nothing was written\n"

      HotPatch.Build.about(built) <> where
    end
  end
end
