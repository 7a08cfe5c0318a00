//! The command `build` as a user meets it.

use std::path::Path;
use std::process::{Command, Output};

fn hot_patch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hot_patch")).args(args).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Two builds of an application that differ in one file.
fn builds(test: &str) -> [String; 3] {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    for (side, rates) in [("from", "1"), ("to", "2")] {
        let application = folder.join(side).join("lib/shop-1.0.0");
        for part in ["ebin", "priv"] {
            std::fs::create_dir_all(application.join(part)).expect("it is writable");
        }
        std::fs::write(application.join("ebin/shop.app"), "").expect("it is writable");
        std::fs::write(application.join("priv/rates"), rates).expect("it is writable");
    }
    ["from", "to", "fix.zip"].map(|name| folder.join(name).display().to_string())
}

#[test]
fn a_patch_is_built_and_tried_out_before() {
    let [from, to, out] = builds("built");
    let args = ["build", "--from", &from, "--to", &to, "--out", &out];
    let output = hot_patch(&[&args[..], &["--dry-run"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("shop-1.0.0/priv/rates"), "{}", stdout(&output));
    assert!(!Path::new(&out).exists());

    let config = ["--config", "shop.limit=100", "--transition", "none", "--for", "shop-1.0.0"];
    let output = hot_patch(&[&args[..], &config].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let first = std::fs::read(&out).expect("it was written");
    assert_eq!(hot_patch(&[&args[..], &config].concat()).status.code(), Some(0));
    assert_eq!(std::fs::read(&out).expect("it was written"), first);
    let output = hot_patch(&["inspect", &out]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn what_cannot_be_built_is_told_from_wrong_usage() {
    let [from, to, out] = builds("refused");
    let output = hot_patch(&["build", "--from", &from, "--to", &from, "--out", &out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nothing differs"), "{}", stderr(&output));
    let output = hot_patch(&["build", "--from", "/nowhere", "--to", &to, "--out", &out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere"), "{}", stderr(&output));
    let args = ["build", "--from", &from, "--to", &to, "--out", &out, "--accept", "on_load:Shop"];
    let output = hot_patch(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--accept on_load:Shop matches nothing"));
    assert!(!Path::new(&out).exists());
    for wrong in [
        &["build", "--to", &to, "--out", &out][..],
        &["build", "--from", &from, "--to", &to, "--out", &out, "--config", "limit"],
        &["build", "--from", &from, "--to", &to, "--out", &out, "--for", "shop"],
        &["build", "--from", &from, "--to", &to, "--out", &out, "--accept", "on_load:"],
        &["build", "--from", &from, "--to", &to, "--out", &out, "--split"],
    ] {
        assert_eq!(hot_patch(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn what_is_replaced_keeps_its_rights_and_nothing_is_left_beside_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let [from, to, out] = builds("rights");
    let args = ["build", "--from", &from, "--to", &to, "--out", &out];
    std::fs::write(&out, "what was there").expect("it is writable");
    let rights = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&out, rights).expect("it is ours");
    assert_eq!(hot_patch(&args).status.code(), Some(0));
    let mode = |path: &str| std::fs::metadata(path).expect("it is there").permissions().mode();
    assert_eq!(mode(&out) & 0o777, 0o640);
    assert_eq!(hot_patch(&["inspect", &out]).status.code(), Some(0));
    let folder = Path::new(&out).parent().expect("a folder");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("it is readable")
        .map(|entry| entry.expect("it is readable").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["fix.zip", "from", "to"]);
    // A new one is as any other file.
    std::fs::remove_file(&out).expect("it is ours");
    std::fs::write(folder.join("other"), "").expect("it is writable");
    assert_eq!(hot_patch(&args).status.code(), Some(0));
    assert_eq!(mode(&out), mode(folder.join("other").to_str().expect("UTF-8")));
}

#[test]
fn help_teaches() {
    let text = stdout(&hot_patch(&["build", "--help"]));
    for taught in
        ["Exit codes", "--dry-run", "Examples", "_build/ENV", "--sign", "--split", "--accept"]
    {
        assert!(text.contains(taught), "the help does not mention {taught}");
    }
}
