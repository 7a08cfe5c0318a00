//! Puts damaged modules before the judge of modules, and those that it lets pass before OTP's own
//! loader, in a VM that may end. See `script/loader`.

mod campaign;
mod check;
mod module;
mod mutate;
mod random;
mod seeds;
mod vm;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use campaign::Campaign;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["check", folders @ ..] if !folders.is_empty() => check::run(folders),
        ["replay", root, files @ ..] => {
            let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
            exit(campaign::replay(Path::new(root), &files))
        }
        ["run", root, findings, count, seconds, seed, folders @ ..] => {
            let number = |text: &str| text.parse().unwrap_or(0);
            exit(campaign::run(&Campaign {
                folders: folders.iter().map(PathBuf::from).collect(),
                root: root.into(),
                findings: findings.into(),
                count: number(count),
                seconds: number(seconds),
                seed: number(seed),
            }))
        }
        _ => {
            eprintln!("hot_patch_loader: use script/loader");
            ExitCode::from(2)
        }
    }
}

fn exit(outcome: io::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hot_patch_loader: {error}");
            ExitCode::from(2)
        }
    }
}
