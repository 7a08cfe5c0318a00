//! Archives with entries that are not wanted, by name or by kind.

use hot_patch_core::Rule;

use crate::support::zip::{Item, build, file, folder};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [names(), trees(), kinds(), features(), extra_fields()].into_iter().flatten().collect()
}

fn one(rule: Rule, what: &'static str, item: Item) -> Case {
    case(rule, what, build(&[item], b"").bytes)
}

fn names() -> Vec<Case> {
    let named = |rule, name: &'static str| one(rule, name, Item::named(name.as_bytes()));
    vec![
        named(Rule::NameEmpty, ""),
        named(Rule::NameAbsolute, "/etc/x"),
        named(Rule::NameAbsolute, "/"),
        named(Rule::NameDrive, "C:x.beam"),
        named(Rule::NameDrive, "c:/x.beam"),
        named(Rule::NameParent, ".."),
        named(Rule::NameParent, "../x.beam"),
        named(Rule::NameParent, "lib/../../x.beam"),
        named(Rule::NameDot, "./x.beam"),
        named(Rule::NameDot, "lib/./x.beam"),
        named(Rule::NameEmptyPart, "lib//x.beam"),
        named(Rule::NameBackslash, "lib\\x.beam"),
        named(Rule::NameBackslash, "..\\x.beam"),
        named(Rule::NameNul, "x.beam\0.txt"),
        named(Rule::NameControl, "x\x1b[2J.beam"),
        named(Rule::NameControl, "x\n.beam"),
        named(Rule::NameInvisible, "x\u{202e}maeb.exe"),
        named(Rule::NameInvisible, "x\u{200b}.beam"),
        named(Rule::NameInvisible, "x\u{feff}.beam"),
        named(Rule::NameTrailingDot, "x."),
        named(Rule::NameTrailingDot, "lib./x.beam"),
        named(Rule::NameTrailingSpace, "x.beam "),
        named(Rule::NameTrailingSpace, "lib /x.beam"),
        named(Rule::NameColon, "x.beam:y"),
        named(Rule::NameColon, "x.beam::$DATA"),
        named(Rule::NameWindows, "what?.beam"),
        named(Rule::NameWindows, "lib*/x.beam"),
        named(Rule::NameReserved, "CON"),
        named(Rule::NameReserved, "lib/nul.beam"),
        named(Rule::NameReserved, "com1.beam"),
        named(Rule::NameVersion, "x.beam;1"),
        one(Rule::NameNotUtf8, "Latin-1", Item::named(b"\xe9.beam")),
        one(Rule::NameNotUtf8, "overlong slash", Item::named(b"a\xc0\xafb")),
        one(Rule::NameTooLong, "1,025 bytes", Item::named(&[b'a'; 1025])),
    ]
}

fn trees() -> Vec<Case> {
    let two = |rule, one: &'static str, other: &'static str| {
        let item = |name: &str| match name.ends_with('/') {
            true => folder(name),
            false => file(name, b"content"),
        };
        case(rule, other, build(&[item(one), item(other)], b"").bytes)
    };
    vec![
        two(Rule::DuplicateName, "a.beam", "a.beam"),
        two(Rule::DuplicateName, "a/", "a/"),
        two(Rule::CaseCollision, "a.beam", "A.beam"),
        two(Rule::CaseCollision, "lib/a.beam", "Lib/b.beam"),
        two(Rule::CaseCollision, "é.beam", "É.beam"),
        two(Rule::CaseCollision, "ß.beam", "\u{1e9e}.beam"),
        two(Rule::UnicodeCollision, "é.beam", "e\u{301}.beam"),
        two(Rule::UnicodeCollision, "lib/e\u{301}/a", "lib/é/b"),
        two(Rule::UnicodeCollision, "한.beam", "\u{1112}\u{1161}\u{11ab}.beam"),
        two(Rule::UnicodeCollision, "\u{212b}.beam", "Å.beam"),
        two(Rule::CaseCollision, "É.beam", "e\u{301}.beam"),
        two(Rule::FileIsFolder, "a", "a/b"),
        two(Rule::FileIsFolder, "a", "a/"),
    ]
}

fn kinds() -> Vec<Case> {
    let mode = |rule, what, mode: u32| {
        let item = file("a", b"content").with(|item| item.external = mode << 16);
        one(rule, what, item)
    };
    let dos = |rule, what, made_by, external| {
        let built = build(&[file("a", b"content").with(|item| item.external = external)], b"");
        let at = built.centrals[0] + 4;
        case(rule, what, built.put16(at, made_by).bytes)
    };
    let folder_mode = folder("a/").with(|item| item.external = 0o100_644 << 16);
    vec![
        mode(Rule::Symlink, "symlink", 0o120_777),
        mode(Rule::SpecialFile, "fifo", 0o010_644),
        mode(Rule::SpecialFile, "character device", 0o020_644),
        mode(Rule::SpecialFile, "block device", 0o060_644),
        mode(Rule::SpecialFile, "socket", 0o140_644),
        mode(Rule::SpecialFile, "unknown", 0o170_644),
        mode(Rule::KindMismatch, "folder by mode", 0o040_755),
        one(Rule::KindMismatch, "folder by MS-DOS", file("a", b"").with(|i| i.external = 0x10)),
        one(Rule::KindMismatch, "file by mode", folder_mode),
        // A folder for 7-Zip, by the bits of that system.
        dos(Rule::UnknownSystem, "a file of the Amiga that sets its user", 0x0114, 0o104_755 << 16),
        dos(Rule::UnknownSystem, "of no system", 0xff14, 0),
        dos(Rule::VolumeLabel, "label of a FAT disk", 0x0014, 0x08),
        dos(Rule::VolumeLabel, "label, from Unix", 0x031e, 0x08),
        dos(
            Rule::VolumeLabel,
            "label of an NTFS disk, with a mode",
            0x0b14,
            0o100_644 << 16 | 0x28,
        ),
        dos(Rule::SpecialFile, "device", 0x0014, 0x40),
        dos(Rule::SpecialFile, "link of Windows", 0x0014, 0x420),
        dos(Rule::KindMismatch, "folder by MS-DOS, from FAT", 0x0014, 0x10),
        one(Rule::FolderWithData, "a folder with content", {
            Item { external: 0x10, ..file("a/", b"content") }
        }),
    ]
}

fn features() -> Vec<Case> {
    let flags =
        |rule, what, flags| one(rule, what, file("a", b"content").with(|i| i.flags = flags));
    let method = |what, method| {
        one(Rule::UnsupportedMethod, what, file("a", b"content").with(|i| i.method = method))
    };
    // Info-ZIP would leave it out: it reads 4.6 at most.
    let version = |what, local: bool, central: bool| {
        let mut built = build(&[file("a", b"content")], b"");
        let (at, listed) = (built.locals[0] + 4, built.centrals[0] + 6);
        if local {
            built = built.put16(at, 63);
        }
        if central {
            built = built.put16(listed, 63);
        }
        case(Rule::UnsupportedVersion, what, built.bytes)
    };
    vec![
        flags(Rule::Encrypted, "encrypted", 1),
        flags(Rule::Encrypted, "strongly encrypted", 1 | 1 << 6),
        flags(Rule::Encrypted, "masked headers", 1 << 13),
        flags(Rule::UnsupportedFlag, "patch data", 1 << 5),
        flags(Rule::UnsupportedFlag, "reserved", 1 << 15),
        version("in both headers", true, true),
        version("in the directory only", false, true),
        version("in its own header only", true, false),
        method("implode", 6),
        method("deflate64", 9),
        method("bzip2", 12),
        method("zstd", 93),
    ]
}

fn extra_fields() -> Vec<Case> {
    let central = |rule, what, field: &[u8]| {
        let field = field.to_vec();
        one(rule, what, file("a", b"content").with(|item| item.central_extra = field))
    };
    let local = |rule, what, field: &[u8]| {
        let field = field.to_vec();
        one(rule, what, file("a", b"content").with(|item| item.local_extra = field))
    };
    // The checksum is that of the name "a".
    let second_name = b"\x75\x70\x06\x00\x01\x43\xbe\xb7\xe8b";
    let asi = |mode: u16, number: u32, target: &[u8]| {
        let mut body = vec![0; 4];
        body.extend(mode.to_le_bytes());
        body.extend(number.to_le_bytes());
        body.extend([0; 4]);
        body.extend(target);
        [&[0x6e, 0x75, body.len() as u8, 0][..], &body].concat()
    };
    let short_asi = b"\x6e\x75\x06\x00\0\0\0\0\xff\xa1";
    // As libarchive has it: a bitmap of what follows, here the mode of a symbolic link.
    let libarchive = b"\x78\x6c\x05\x00\x04\x00\x00\xff\xa1";
    // The name by Xceed, in UTF-16.
    let xceed = b"\x4e\x55\x08\x00NUCX\x01\x00b\x00";
    vec![
        central(Rule::BadExtraField, "cut off in its head", b"\x55\x54\x05"),
        central(Rule::BadExtraField, "cut off in its body", b"\x55\x54\x05\x00\x01"),
        local(Rule::BadExtraField, "local, cut off", b"\x55\x54\x05\x00\x01"),
        local(Rule::BadExtraField, "Unicode path, too short", b"\x75\x70\x02\x00\x01\x00"),
        central(Rule::SecondName, "another Unicode path", second_name),
        local(Rule::SecondName, "another Unicode path", second_name),
        central(Rule::Encrypted, "AES", b"\x01\x99\x07\x00\x02\x00AE\x03\x08\x00"),
        central(Rule::Zip64, "zip64 sizes", b"\x01\x00\x08\x00\x07\0\0\0\0\0\0\0"),
        local(Rule::BadExtraField, "ASi, too short", short_asi),
        local(Rule::Symlink, "link by an ASi field", &asi(0o120_777, 1, b"x")),
        local(Rule::KindMismatch, "folder by an ASi field", &asi(0o040_755, 0, b"")),
        local(Rule::SpecialFile, "link target in an ASi field", &asi(0o100_644, 1, b"x")),
        central(Rule::SpecialFile, "device by an ASi field", &asi(0o060_644, 0x801, b"")),
        local(Rule::UnknownExtraField, "mode by libarchive", libarchive),
        central(Rule::UnknownExtraField, "mode by libarchive", libarchive),
        central(Rule::UnknownExtraField, "name by Xceed", xceed),
        local(Rule::UnknownExtraField, "nobody's", b"\x34\x12\x00\x00"),
        local(Rule::UnknownExtraField, "behind a known one", b"\xfe\xca\x00\x00\x34\x12\x00\x00"),
        local(Rule::SpecialFile, "PKWARE, too short", b"\x0d\x00\x04\x00\0\0\0\0"),
        local(
            Rule::SpecialFile,
            "link target of PKWARE",
            b"\x0d\x00\x0d\x00\0\0\0\0\0\0\0\0\0\0\0\0x",
        ),
    ]
}
