//! The command line as a user meets it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An archive of the stored file `a.txt` with the content `hi`, made by Python's `zipfile`.
const GOOD: &[u8] =
    b"PK\x03\x04\x14\0\0\0\0\0\0\0!\0\xac*\x93\xd8\x02\0\0\0\x02\0\0\0\x05\0\0\0a.txthiPK\x01\
    \x02\x14\x03\x14\0\0\0\0\0\0\0!\0\xac*\x93\xd8\x02\0\0\0\x02\0\0\0\x05\0\0\0\0\0\0\0\0\0\
    \0\0\x80\x01\0\0\0\0a.txtPK\x05\x06\0\0\0\0\x01\0\x01\x003\0\0\0%\0\0\0\0\0";

fn hot_patch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hot_patch")).args(args).output().expect("it runs")
}

/// A file for one test, named after it.
fn archive(test: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.zip"));
    fs::write(&path, bytes).expect("the folder for test files is writable");
    path
}

fn inspect(path: &Path, more: &[&str]) -> Output {
    let path = path.to_str().expect("the path is UTF-8");
    hot_patch(&[&["inspect", path][..], more].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

#[test]
fn an_accepted_archive_is_listed() {
    let output = inspect(&archive("accepted", GOOD), &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.contains("accepted, 1 file,"), "{text}");
    assert!(text.contains("a.txt") && text.contains("NEEDS OTP"), "{text}");
}

#[test]
fn json_can_be_read_by_programs() {
    let output = inspect(&archive("json", GOOD), &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json.pointer("/0/files/0/path"), Some(&"a.txt".into()));
    assert_eq!(json.pointer("/0/files/0/kind"), Some(&"other".into()));
    assert_eq!(json.pointer("/0/refusal"), Some(&serde_json::Value::Null));
}

#[test]
fn a_refused_archive_is_explained() {
    let cut = GOOD.get(..40).expect("it is longer");
    let path = archive("refused", cut);
    let output = inspect(&path, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("refused (truncated)"), "{}", stdout(&output));
    let output = inspect(&path, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json.pointer("/0/refusal/rule"), Some(&"truncated".into()));
}

#[test]
fn limits_can_be_set() {
    let output = inspect(&archive("limits", GOOD), &["--max-archive", "100"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("archive_too_big"));
}

#[test]
fn one_refused_archive_among_several_decides_the_exit_code() {
    let good = archive("several_good", GOOD);
    let bad = archive("several_bad", b"no archive");
    let output = inspect(&good, &[bad.to_str().expect("the path is UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("accepted") && text.contains("not_a_zip"), "{text}");
}

#[test]
fn usage_and_unreadable_files_are_told_apart_from_refusals() {
    let output = hot_patch(&["inspect", "/nowhere/at/all.zip"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot read /nowhere/at/all.zip"), "{error}");
    assert_eq!(hot_patch(&[]).status.code(), Some(2));
    assert_eq!(hot_patch(&["inspect"]).status.code(), Some(2));
}

#[test]
fn help_teaches() {
    let output = hot_patch(&["inspect", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for taught in ["Exit codes", "--json", "Examples", "refused"] {
        assert!(text.contains(taught), "the help does not mention {taught}");
    }
}
