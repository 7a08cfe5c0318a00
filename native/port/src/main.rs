//! The HotPatch core as a command line: look into patch archives without a running system.

mod build;
mod cli;
mod inspect;
mod report;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use inspect::Verdict;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Inspect(args) => exit(inspect::run(&args)),
        Command::Build(args) => build::run(&args),
    }
}

/// Prints what a command has to say, and turns its verdict into an exit code.
fn exit(result: Result<(String, Verdict), inspect::Error>) -> ExitCode {
    let (output, verdict) = match result {
        Ok(done) => done,
        Err(error) => {
            eprintln!("hot_patch: {error}");
            return Verdict::Unusable.into();
        }
    };
    match io::stdout().write_all(output.as_bytes()) {
        Ok(()) => verdict.into(),
        // The reader went away, as `head` does: nothing is wrong with the archives.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => verdict.into(),
        Err(error) => {
            eprintln!("hot_patch: cannot write the result: {error}");
            Verdict::Unusable.into()
        }
    }
}
