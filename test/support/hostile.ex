defmodule HotPatch.Test.Hostile do
  @moduledoc false
  # Archives that break the rules, built field by field: a well-behaved zip tool makes none.

  import Bitwise

  @doc "An archive of entries (see `entry/2`); `fields` say what is wrong with it as a whole."
  @spec zip([map()], keyword()) :: binary()
  def zip(entries, fields \\ []) do
    prefix = Keyword.get(fields, :prefix, "")

    {locals, directory_at} =
      Enum.map_reduce(entries, byte_size(prefix), fn entry, at ->
        local = if entry[:at], do: "", else: local(entry)
        {{local, entry[:at] || at}, at + byte_size(local)}
      end)

    body = IO.iodata_to_binary(for {local, _at} <- locals, do: local)

    listed =
      for {entry, {_local, at}} <- Enum.zip(entries, locals), !entry[:hidden], do: {entry, at}

    directory = IO.iodata_to_binary(for {entry, at} <- listed, do: central(entry, at))
    count = Keyword.get(fields, :count, length(listed))
    gap = Keyword.get(fields, :gap, "")
    comment = Keyword.get(fields, :comment, "")

    finish =
      <<"PK", 5, 6, Keyword.get(fields, :disk, 0)::16-little, 0::16, count::16-little,
        count::16-little, byte_size(directory)::32-little,
        directory_at + byte_size(gap)::32-little, byte_size(comment)::16-little>>

    prefix <> body <> gap <> directory <> finish <> comment <> Keyword.get(fields, :suffix, "")
  end

  @doc "A stored file; `fields` replace what its headers say, `local:` what its own header says."
  @spec entry(String.t(), binary(), keyword()) :: map()
  def entry(name, data \\ "x", fields \\ []) do
    right = %{
      name: name,
      data: data,
      local: [],
      made_by: 0x0314,
      needs: 20,
      flags: 0,
      method: 0,
      time: 0x00210000,
      crc: :erlang.crc32(data),
      packed: byte_size(data),
      size: byte_size(data),
      extra: "",
      mode: 0o100644,
      attributes: 0
    }

    Map.merge(right, Map.new(fields))
  end

  @doc "A deflated file."
  @spec deflated(String.t(), binary(), keyword()) :: map()
  def deflated(name, data, fields \\ []) do
    packed = :zlib.zip(data)

    sizes = [
      method: 8,
      crc: :erlang.crc32(data),
      packed: byte_size(packed),
      size: byte_size(data)
    ]

    entry(name, packed, Keyword.merge(sizes, fields))
  end

  @doc "A stored file whose checksum and sizes follow it."
  @spec streamed(String.t(), binary()) :: map()
  def streamed(name, data) do
    entry(name, data,
      flags: 8,
      local: [crc: 0, packed: 0, size: 0, data: data <> "PK\a\b" <> facts(entry(name, data))]
    )
  end

  defp facts(e), do: <<e.crc::32-little, e.packed::32-little, e.size::32-little>>

  defp local(entry) do
    e = Map.merge(entry, Map.new(entry.local))

    <<"PK", 3, 4, e.needs::16-little, common(e)::binary, byte_size(e.name)::16-little,
      byte_size(e.extra)::16-little, e.name::binary, e.extra::binary, e.data::binary>>
  end

  defp central(e, at) do
    <<"PK", 1, 2, e.made_by::16-little, e.needs::16-little, common(e)::binary,
      byte_size(e.name)::16-little, byte_size(e.extra)::16-little, 0::16, 0::16, 0::16,
      (e.mode <<< 16) + e.attributes::32-little, at::32-little, e.name::binary, e.extra::binary>>
  end

  defp common(e) do
    <<e.flags::16-little, e.method::16-little, e.time::32-little, e.crc::32-little,
      e.packed::32-little, e.size::32-little>>
  end

  @doc "Archives and the rules that refuse them."
  @spec cases() :: [{atom(), binary()}]
  def cases, do: structure() ++ names() ++ entries()

  defp structure do
    good = zip([entry("a")])

    [
      not_a_zip: "",
      not_a_zip: String.duplicate("no zip ", 100),
      empty_archive: zip([]),
      empty_archive: zip([entry("a/", "", mode: 0o040755)]),
      truncated: binary_part(good, 0, byte_size(good) - 30),
      multi_disk: zip([entry("a")], disk: 1),
      prefix: zip([entry("a")], prefix: "#!/bin/sh\n"),
      suffix: zip([entry("a")], suffix: "more"),
      gap: good <> good,
      second_archive: zip([entry("a")], comment: good),
      bad_directory: zip([entry("a")], count: 2),
      gap: zip([entry("a")], gap: "between"),
      hidden_entry: zip([entry("a"), entry("b", "x", hidden: true)]),
      # The second one's header and data lie inside the first one's data.
      overlap: zip([entry("a", local(entry("b"))), entry("b", "x", at: 31)]),
      bad_local_header: zip([entry("a"), entry("b", "x", at: 3)]),
      header_mismatch: zip([entry("a", "x", local: [name: "b"])]),
      header_mismatch: zip([entry("a", "x", local: [size: 7])])
    ]
  end

  defp names do
    parts = [
      name_empty: "",
      name_too_long: String.duplicate("a", 1025),
      name_not_utf8: "a\xFF",
      name_nul: "a\0b",
      name_control: "a\eb",
      name_invisible: "a\u202Eb",
      name_backslash: "a\\b",
      name_absolute: "/etc/passwd",
      name_drive: "c:x",
      name_parent: "../../etc/passwd",
      name_parent: "a/../../b",
      name_dot: "./a",
      name_empty_part: "a//b",
      name_trailing_dot: "a.",
      name_trailing_dot: "a./b",
      name_trailing_space: "a ",
      name_colon: "a.beam:b",
      name_windows: "what?.beam",
      name_reserved: "lib/CON.beam",
      name_version: "b;1"
    ]

    for({rule, name} <- parts, do: {rule, zip([entry(name, "x", flags: 0x800)])}) ++
      [
        duplicate_name: zip([entry("a"), entry("a", "y")]),
        case_collision: zip([entry("a"), entry("A")]),
        unicode_collision: zip([entry("é"), entry("e\u0301")]),
        unicode_collision: zip([entry("한"), entry("\u1112\u1161\u11AB")]),
        file_is_folder: zip([entry("a"), entry("a/b")])
      ]
  end

  defp entries do
    [
      symlink: zip([entry("a", "/etc/passwd", mode: 0o120777)]),
      special_file: zip([entry("a", "", mode: 0o010644)]),
      unknown_system: zip([entry("a", "x", made_by: 0x0114, mode: 0o104755)]),
      volume_label: zip([entry("a", "x", made_by: 0x0014, attributes: 0x08, mode: 0)]),
      special_file: zip([entry("a", "x", made_by: 0x0014, attributes: 0x40, mode: 0)]),
      kind_mismatch: zip([entry("a", "x", made_by: 0x0014, attributes: 0x10, mode: 0)]),
      kind_mismatch: zip([entry("a/", "", mode: 0o100644)]),
      folder_with_data: zip([entry("a/", "x", mode: 0o040755)]),
      encrypted: zip([entry("a", "x", flags: 1)]),
      unsupported_method: zip([entry("a", "x", method: 14)]),
      unsupported_flag: zip([entry("a", "x", flags: 0x20)]),
      unsupported_version: zip([entry("a", "x", needs: 63)]),
      # What libarchive takes for a symbolic link.
      unknown_extra_field:
        zip([entry("a", "/etc/passwd", local: [extra: <<"xl", 5::16-little, 4, 0xA1FF::32>>])]),
      unknown_extra_field: zip([entry("a", "x", extra: <<0x1234::16-little, 0::16>>)]),
      bare_descriptor: zip([bare("a/", ""), deflated("b", "text")]),
      record_in_data: zip([streamed("a", "text" <> local(entry("b")))]),
      record_in_data: zip([streamed("a", "textPK\a\b" <> facts(entry("", "text")))]),
      bad_extra_field: zip([entry("a", "x", extra: <<1, 2, 3>>)]),
      bad_crc: zip([entry("a", "x", crc: 1)]),
      damaged_stream: zip([entry("a", "\xFF\xFF\xFF", method: 8, size: 9)]),
      size_too_small: zip([deflated("a", "a text", size: 3)]),
      size_too_large: zip([deflated("a", "a text", size: 30)]),
      bytes_after_stream: zip([trailing("a", "a text")]),
      unpacked_too_big: zip([deflated("a", String.duplicate(<<0>>, 101 * 1024 * 1024))]),
      too_many_entries: zip(for n <- 1..10_001, do: entry("f#{n}", "")),
      archive_too_big: zip([entry("a", :binary.copy("x", 10 * 1024 * 1024))])
    ]
  end

  # As `streamed/2`, without the signature by which a reader of a stream finds the end of the data.
  defp bare(name, data) do
    entry = streamed(name, data)
    right = facts(%{entry | data: data})
    %{entry | mode: 0o040755, local: Keyword.put(entry.local, :data, data <> right)}
  end

  defp trailing(name, data) do
    entry = deflated(name, data)
    %{entry | data: entry.data <> "more", packed: entry.packed + 4}
  end
end
