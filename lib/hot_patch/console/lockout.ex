defmodule HotPatch.Console.Lockout do
  @moduledoc false
  # Failed logins, and how long the next one has to wait: longer after each. By name and
  # address together, so that nobody can lock another out from elsewhere; by address and by name
  # alone only after more failures, and by name not for long.
  #
  # Behind a proxy all have one address. So an address that has failed often makes those names wait that have failed
  # there themselves, from the first time on: nobody's failures are another's wait, and who tries many names
  # has one attempt at each. A name that there is and one that there is not are treated alike.

  @kinds [
    both: %{free: 3, longest: 900},
    address: %{free: 10, longest: 900},
    name: %{free: 20, longest: 30}
  ]

  # Failures are forgotten after this, in seconds.
  @remembered 3_600

  # A flood of names must not fill the memory, nor names as long as a form may be: they are known by their digests.
  @most 10_000

  @type key :: {:both | :address | :name, term()}
  @type t :: %{key() => {failures :: pos_integer(), last :: integer()}}

  @doc "Seconds until a login may be tried; 0 if it may be now."
  @spec wait(t(), String.t(), String.t(), integer()) :: non_neg_integer()
  def wait(failures, name, address, now) do
    keys =
      if failed_here?(failures, name, address, now),
        do: keys(name, address),
        else: [name: digest(name)]

    keys |> Enum.map(&wait_for(failures[&1], elem(&1, 0), now)) |> Enum.max()
  end

  defp failed_here?(failures, name, address, now) do
    case failures[{:both, {digest(name), address}}] do
      {_count, last} -> now - last <= @remembered
      nil -> false
    end
  end

  @doc "Whether an address has failed so often that those have to wait who have failed there."
  @spec strained?(t(), String.t(), integer()) :: boolean()
  def strained?(failures, address, now),
    do: wait_for(failures[{:address, address}], :address, now) > 0

  @doc "Notes a failure."
  @spec failed(t(), String.t(), String.t(), integer()) :: t()
  def failed(failures, name, address, now) do
    failures = if map_size(failures) >= @most, do: tidy(failures, now), else: failures

    Enum.reduce(keys(name, address), failures, fn key, failures ->
      Map.update(failures, key, {1, now}, fn {count, last} ->
        if now - last > @remembered, do: {1, now}, else: {count + 1, now}
      end)
    end)
  end

  @doc "A login that succeeded ends the waiting of this name at this address."
  @spec succeeded(t(), String.t(), String.t()) :: t()
  def succeeded(failures, name, address), do: Map.drop(failures, keys(name, address))

  defp keys(name, address) do
    name = digest(name)
    [both: {name, address}, address: address, name: name]
  end

  defp digest(name), do: :crypto.hash(:sha256, name)

  defp wait_for(nil, _kind, _now), do: 0

  defp wait_for({count, last}, kind, now) do
    %{free: free, longest: longest} = @kinds[kind]
    delay = if count < free, do: 0, else: min(longest, Integer.pow(2, min(count - free, 10)))
    max(0, last + delay - now)
  end

  # The old ones first; if that is not enough, those of least weight.
  defp tidy(failures, now) do
    failures
    |> Enum.reject(fn {_key, {_count, last}} -> now - last > @remembered end)
    |> Enum.sort_by(fn {_key, {count, last}} -> {count, last} end, :desc)
    |> Enum.take(div(@most, 2))
    |> Map.new()
  end
end
