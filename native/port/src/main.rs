//! The program `hot_patch`.

use std::process::ExitCode;

use clap::Parser;
use hot_patch_port::cli::Cli;

fn main() -> ExitCode {
    hot_patch_port::run(&Cli::parse())
}
