defmodule HotPatch.Store.Succession do
  @moduledoc false
  # What becomes of a state that was written under another release than the one that runs.
  #
  # Patches end with the version that they were made for. But an identity may also change without the
  # code: it was configured, or given to HotPatch.attach/2, or an application was put on the code path
  # of a system that has no release. Then the patches are what runs, and they must stay known, because
  # without their records nothing could take them back.
  #
  # And an upgrade that is not permanent is one until the next start, which boots the former release: with the
  # patches that were in force there, as if the upgrade had never come.

  alias HotPatch.Release

  @typedoc """
  `installed?`: OTP's release handler has changed the release in this VM. `as_left?`: the files of the
  patches are on disk as the patches have left them. Both are asked only where it matters.
  """
  @type facts :: %{
          release: Release.t(),
          boot: term(),
          installed?: (() -> boolean()),
          as_left?: (() -> boolean())
        }

  @doc """
  `:same`: it counts as it is. `:carried`: it counts under the release of now. `:returned`: the release from which
  an upgrade has started runs again. `:ended`: its patches have ended.
  """
  @spec judge(
          %{
            :release => Release.t(),
            :boot => term(),
            :stack => [term()],
            optional(atom()) => term()
          },
          facts()
        ) :: :same | :carried | :returned | :ended
  def judge(%{release: same}, %{release: same}), do: :same

  def judge(state, %{release: release} = facts) do
    cond do
      # At the start of a system without a release none of its applications is loaded yet.
      Release.none?(release) and Release.unreleased?(state.release) -> :same
      facts.installed?.() -> :ended
      find(state.stack, facts) != nil -> :returned
      # Within the life of a VM nobody else changes the release.
      state.boot == facts.boot -> :carried
      state.stack == [] -> :ended
      another_version?(state.release, release) -> :ended
      facts.as_left?.() -> :carried
      true -> :ended
    end
  end

  @doc """
  The upgrade that has started from the release that runs, in an earlier boot, with what lies above it: both are gone.
  """
  @spec find([map()], %{:release => Release.t(), :boot => term(), optional(atom()) => term()}) ::
          {record :: map(), above :: [map()]} | nil
  def find([%{upgrade: %{course: course}, boot: boot} = record | above], facts)
      when boot != facts.boot do
    if course.from == {facts.release.name, facts.release.version},
      do: {record, above},
      else:
        with(
          {found, below} <- find(record.replaced, facts),
          do: {found, below ++ [record | above]}
        )
  end

  def find(_no_upgrade_below, _facts), do: nil

  defp another_version?(before, now),
    do: before.name == now.name and not Release.unreleased?(now)
end
