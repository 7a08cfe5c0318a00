//! The HotPatch core outside of a VM: behind `{packet, 4}` on standard input and output for a VM
//! that keeps it out of its own process, and as a command line for build machines and laptops.
//!
//! | module | concept |
//! |---|---|
//! | [`cli`] | what can be asked on the command line |
//! | [`port`] | the program behind `{packet, 4}` |
//! | [`style`] | when there is colour |

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::unwrap_used)
)]

mod build;
pub mod cli;
mod diff;
mod extras;
mod inspect;
mod load_args;
mod outcome;
pub mod port;
mod report;
mod source;
pub mod style;
mod table;
mod verify;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use cli::{Cli, Command};
use outcome::{Error, Said, Verdict};

/// Does what was asked for.
pub fn run(cli: &Cli) -> ExitCode {
    let paint = cli.color.paint();
    match &cli.command {
        Command::Inspect(args) => exit(inspect::run(args, paint)),
        Command::Verify(args) => exit(verify::run(args, paint)),
        Command::Diff(args) => exit(diff::run(args, paint)),
        Command::Build(args) => build::run(args, paint),
        Command::Completions { shell } => exit(extras::completions(*shell)),
        Command::Man { command } => exit(extras::man(command.as_deref())),
        Command::Port(limits) => port::run(limits),
    }
}

/// Prints what a command has to say, and turns its verdict into an exit code.
fn exit(result: Result<Said, Error>) -> ExitCode {
    let said = match result {
        Ok(said) => said,
        Err(error) => {
            words::complain(&error.to_string());
            return Verdict::Unusable.into();
        }
    };
    match io::stdout().write_all(said.text.as_bytes()) {
        Ok(()) => said.verdict.into(),
        // The reader went away, as `head` does: nothing is wrong with the archives.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => said.verdict.into(),
        Err(error) => {
            words::complain(&format!("cannot write the result: {error}"));
            Verdict::Unusable.into()
        }
    }
}
