//! The commands `verify`, `diff`, `completions` and `man`, and colour.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An archive of one stored file, made by hand.
fn zip(name: &str, data: &[u8]) -> Vec<u8> {
    zip_of(&[(name, data)])
}

/// An archive of stored files, made by hand.
fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap().to_le_bytes();
    let (mut locals, mut central) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let sizes = [length(data), length(data)].concat();
        let name_size = u16::try_from(name.len()).unwrap().to_le_bytes();
        let crc = crc(data).to_le_bytes();
        let head = &b"\x14\0\0\0\0\0\0\0\x21\0"[..];
        let common = [head, &crc, &sizes, &name_size, b"\0\0"].concat();
        let (before, at) = ([&b"PK\x01\x02\x14\x03"[..], &common, &[0; 10]], length(&locals));
        central.extend([&before.concat()[..], &at, name.as_bytes()].concat());
        locals.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
    }
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    let counts = [b"PK\x05\x06\0\0\0\0", &[count, count].concat()[..]].concat();
    let end = [&counts[..], &length(&central), &length(&locals), b"\0\0"].concat();
    [locals, central, end].concat()
}

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn hot_patch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hot_patch")).args(args).output().expect("it runs")
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, bytes).expect("the folder for test files is writable");
    path
}

/// Runs a command on archives of one file each.
fn on(test: &str, args: &[&str], archives: &[(&str, &[u8])]) -> (i32, String, String) {
    let paths: Vec<String> = archives
        .iter()
        .enumerate()
        .map(|(n, (name, data))| file(&format!("{test}-{n}.zip"), &zip(name, data)))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let output = hot_patch(&[args, &paths].concat());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The module `m` that exports as many functions, named from `first` on.
fn exporting(first: u32, count: u32) -> Vec<u8> {
    let word = |n: u32| n.to_be_bytes().to_vec();
    let mut atoms = [word(count + 1), b"\x01m".to_vec()].concat();
    let mut exports = word(count);
    let mut code = [word(16), word(0), word(180), word(2 * count + 1), word(count)].concat();
    // A number with a tag, in three bytes.
    let tagged = |tag: u8, n: u32| [&[0x38 | tag][..], &n.to_be_bytes()[1..]].concat();
    for n in 0..count {
        let (name, label) = (n + 2, 2 * n + 1);
        atoms.extend([b"\x07f", format!("{:06}", first + n).as_bytes()].concat());
        exports.extend([word(name), word(0), word(label + 1)].concat());
        // label; func_info m NAME 0; label; return
        let info = [&[2, 0x12][..], &tagged(2, name), &[0]].concat();
        code.extend(
            [&[1][..], &tagged(0, label), &info, &[1], &tagged(0, label + 1), &[19]].concat(),
        );
    }
    code.push(3);
    let parts = [(b"AtU8", atoms), (b"Code", code), (b"StrT", vec![]), (b"ImpT", word(0))];
    let mut body = b"BEAM".to_vec();
    for (id, data) in parts.into_iter().chain([(b"ExpT", exports)]) {
        body.extend([&id[..], &word(u32::try_from(data.len()).unwrap()), &data].concat());
        body.resize(body.len().next_multiple_of(4), 0);
    }
    [b"FOR1".to_vec(), word(u32::try_from(body.len()).unwrap()), body].concat()
}

#[test]
fn diff_of_modules_that_have_very_many_functions() {
    let (old, new) = (exporting(0, 100_000), exporting(100_000, 100_000));
    let archives = [("m.beam", old.as_slice()), ("m.beam", new.as_slice())];
    let most = |of: &str| format!("--max-{of}=1000000");
    let limits = ["module-atoms", "atoms", "module-functions", "functions"].map(most);
    let args: Vec<&str> = ["diff"].into_iter().chain(limits.iter().map(String::as_str)).collect();
    let (code, text, error) = on("wide", &args, &archives);
    assert_eq!((code, error.as_str()), (1, ""));
    assert!(text.contains("changed  m.beam  other code, "), "{}", text.len());
    assert!(text.contains(" +f100000/0 ") && text.contains(" -f099999/0\n"), "{}", text.len());
}

#[test]
fn verify_says_in_a_line_what_is_good() {
    let (code, text, _) = on("good", &["verify"], &[("a.txt", b"x"), ("b.txt", b"y")]);
    assert_eq!(code, 0);
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("good-0.zip: good, 0 modules, 1 other file, sha256 "), "{text}");
}

#[test]
fn verify_says_what_is_bad_and_why() {
    let archives: [(&str, &[u8]); 3] = [("a.txt", b"x"), ("m.beam", b"FOR1"), ("../a", b"x")];
    let (code, text, _) = on("bad", &["verify"], &archives);
    assert_eq!(code, 1);
    assert!(text.contains("bad-1.zip: 1 file cannot be loaded\n  m.beam: "), "{text}");
    assert!(text.contains("bad-2.zip: refused (name_parent)\n"), "{text}");

    let (code, text, _) = on("bad", &["verify", "--json"], &archives);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let at = |pointer: &str| json.pointer(pointer).cloned().unwrap();
    assert_eq!(
        (at("/0/good"), at("/1/good"), at("/2/good")),
        (true.into(), false.into(), false.into())
    );
    assert_eq!(at("/1/problems/0/path"), "m.beam");
    assert_eq!(at("/2/refusal/rule"), "name_parent");
}

#[test]
fn what_the_mac_has_added_is_named() {
    let of_mac = ["__MACOSX/._a.txt", ".DS_Store"];
    let with = |name: &'static str, data: &'static [u8]| {
        [(of_mac[0], &b"x"[..]), (name, data), (of_mac[1], &b"y"[..])]
    };
    let good = file("mac-good.zip", &zip_of(&with("a.txt", b"x")));
    let bad = file("mac-bad.zip", &zip_of(&with("m.beam", b"FOR1")));
    let [good, bad] = [good, bad].map(|path| path.to_str().unwrap().to_owned());
    for command in ["inspect", "verify"] {
        for (path, code) in [(&good, 0), (&bad, i32::from(command == "verify"))] {
            let output = hot_patch(&[command, path]);
            assert_eq!(output.status.code(), Some(code), "{command} {path}");
            let text = String::from_utf8(output.stdout).unwrap();
            let said: Vec<&str> = text
                .lines()
                .filter(|line| line.ends_with("left out, as the Mac has added it"))
                .collect();
            let expected =
                of_mac.map(|name| format!("  {name}: left out, as the Mac has added it"));
            assert_eq!(said, expected, "{text}");

            let json = hot_patch(&[command, "--json", path]).stdout;
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(json.pointer("/0/left_out"), Some(&of_mac.to_vec().into()));
        }
    }
    // An archive without any says nothing of it.
    let (_, text, _) = on("mac-none", &["verify"], &[("a.txt", b"x")]);
    assert!(!text.contains("left out"), "{text}");
}

#[test]
fn diff_tells_same_from_different_from_neither() {
    let (code, text, _) = on("same", &["diff"], &[("a", b"x"), ("a", b"x")]);
    assert_eq!(code, 0);
    assert!(text.ends_with("0 added, 0 removed, 0 changed, 1 the same\n"), "{text}");

    let (code, text, _) = on("changed", &["diff"], &[("a", b"x"), ("a", b"yy")]);
    assert_eq!(code, 1);
    assert!(text.contains("changed  a     other content, 1 -> 2 bytes"), "{text}");

    let (code, text, _) = on("moved", &["diff", "--json"], &[("a", b"x"), ("b", b"x")]);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json.pointer("/added/0"), Some(&"b".into()));
    assert_eq!(json.pointer("/removed/0"), Some(&"a".into()));

    let (code, text, error) = on("refused", &["diff"], &[("a", b"x"), ("../a", b"x")]);
    assert_eq!((code, text.as_str()), (2, ""));
    assert!(
        error.contains("refused (name_parent), so that there is nothing to compare"),
        "{error}"
    );
}

#[test]
fn colour_is_for_terminals_or_on_demand() {
    let (_, plain, _) = on("plain", &["verify"], &[("a", b"x")]);
    assert!(!plain.contains('\x1b'), "{plain}");
    let (_, coloured, _) = on("coloured", &["verify", "--color=always"], &[("a", b"x")]);
    assert!(coloured.contains("\x1b[32mgood\x1b[0m"), "{coloured}");
}

#[test]
fn every_command_says_its_exit_codes_and_gives_examples() {
    for command in ["inspect", "verify", "diff"] {
        let text = String::from_utf8(hot_patch(&[command, "--help"]).stdout).unwrap();
        for taught in ["Exit codes:\n  0  ", "\n  1  ", "\n  2  ", "Examples:", "--max-archive"] {
            assert!(text.contains(taught), "the help of {command} does not mention {taught}");
        }
        let page = hot_patch(&["man", command]);
        assert!(page.status.success() && page.stdout.starts_with(b".ie"));
    }
    assert_eq!(hot_patch(&["man", "port"]).status.code(), Some(2));
}

#[test]
fn shells_are_told_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = hot_patch(&["completions", shell]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("verify"), "{shell}");
    }
}

#[test]
fn names_of_files_cannot_play_tricks_with_the_terminal() {
    let tricks = ["\u{1b}[2J", "\nforged: good, 1 module", "\u{9b}2J", "\u{202e}piz.doog"];
    for (n, trick) in tricks.iter().enumerate() {
        let name = format!("trick-{n}{trick}.zip");
        let (good, bad) = (file(&name, &zip("a", b"x")), file(&format!("bad-{name}"), b"no zip"));
        let missing = good.with_file_name(format!("missing-{name}"));
        let [good, bad, missing] = [&good, &bad, &missing].map(|path| path.to_str().unwrap());
        for args in [
            vec!["inspect", good, bad],
            vec!["verify", good, bad],
            vec!["diff", good, good],
            vec!["diff", bad, good],
            vec!["verify", missing],
            vec!["build", "--from", missing, "--to", good, "--out", good],
        ] {
            let output = hot_patch(&args);
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(text.contains("trick-") && !text.contains(trick), "{args:?}: {text:?}");
        }
        // JSON has escapes of its own, and is to lead back to the file.
        for (args, at) in [
            (&["verify", good][..], "/0/archive"),
            (&["inspect", good], "/0/archive"),
            (&["diff", good, good], "/new"),
        ] {
            let json = hot_patch(&[args, &["--json"]].concat()).stdout;
            let text = String::from_utf8(json).unwrap();
            assert!(!text.contains(trick), "{args:?}: {text:?}");
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json.pointer(at), Some(&good.into()), "{text}");
        }
    }
}

#[test]
fn a_complaint_that_cannot_be_written_leaves_the_exit_code() {
    for (args, code) in [
        (&["verify", "nowhere.zip"][..], 2),
        (&["man", "nothing"], 2),
        (&["build", "--from", "nowhere", "--to", "nowhere", "--out", "nowhere.zip"], 1),
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hot_patch"));
        let status = command.args(args).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}
