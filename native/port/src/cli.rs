//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::port;
use crate::source::Limits;
use crate::style::Color;

const ABOUT: &str = "\
Look into HotPatch archives

HotPatch repairs running Erlang and Elixir clusters by archives of .beam files. This program
reads such archives as a running system does before it accepts one, needs no Erlang, unpacks
nothing to disk and runs no code of the archive.";

const START: &str = "\
Examples:
  hot_patch inspect fix-42.zip                     what is in it
  hot_patch verify --otp 27 patches/*.zip          would a system on OTP 27 take them?
  hot_patch diff fix-42.zip fix-43.zip             what differs between two patches
  hot_patch build --from old/ --to new/ --out fix.zip
                                                   a patch of what differs between two builds
  hot_patch completions bash > /etc/bash_completion.d/hot_patch
  hot_patch man | man -l -

Exit codes are those of the command; `hot_patch help COMMAND` tells them.";

const INSPECT: &str = "\
Exit codes:
  0  every archive is accepted
  1  at least one archive is refused; the output says by which rule
  2  wrong usage, or a file cannot be read: nothing is said of the others then

Examples:
  hot_patch inspect fix-42.zip
  hot_patch inspect --json patches/*.zip | jq '.[].files[].module'";

const VERIFY: &str = "\
Exit codes:
  0  every archive is accepted and all its modules can be read
  1  at least one archive is refused, or holds a module that cannot be loaded
  2  wrong usage, or a file cannot be read: nothing is said of the others then

Examples:
  hot_patch verify fix-42.zip && scp fix-42.zip ops:
  hot_patch verify --otp 25 --json patches/*.zip | jq '.[] | select(.good | not)'";

const DIFF: &str = "\
Exit codes:
  0  they hold the same files
  1  they differ
  2  wrong usage, or an archive cannot be read or is refused

Examples:
  hot_patch diff fix-42.zip fix-43.zip
  hot_patch diff --json built-here.zip built-there.zip | jq '.changed[].path'";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "hot_patch", version, about = "Look into HotPatch archives", long_about = ABOUT)]
#[command(after_help = START)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what archives hold, or why they are refused
    ///
    /// Reads each archive by the rules a running system applies before it accepts a patch.
    /// A file that is a damaged module is listed with the reason; it does not make the archive
    /// refused.
    #[command(after_help = INSPECT)]
    Inspect(Inspect),

    Build(crate::build::Build),

    /// Say whether archives can be patches: one line for each
    ///
    /// An archive is good if it keeps every rule and every module in it can be read. What only
    /// the running system knows (is the module there, under that path, of that version?) is
    /// told by HotPatch.check there.
    #[command(after_help = VERIFY)]
    Verify(Verify),

    /// Say in which files two archives differ, and how
    ///
    /// A module has other code if its MD5 differs, as the VM counts it. With the same MD5 it can
    /// still have other attributes (its vsn among them) or other debug information.
    #[command(after_help = DIFF)]
    Diff(Diff),

    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the manual page, of the program or of a command
    Man {
        /// The command
        command: Option<String>,
    },

    /// Serve a VM on standard input and output
    #[command(hide = true)]
    Port(port::Limits),
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Archives to read
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Print JSON: an array with one object for each archive
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Archives to verify
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Print JSON: an array with one object for each archive
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The archive to compare with
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,

    /// The archive to compare
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,

    /// Print JSON: one object with what was added, removed and changed
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) limits: Limits,
}
