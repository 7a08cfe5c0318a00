//! What a package of the program brings along: completions and manual pages.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::outcome::{Error, Said, Verdict};

pub(crate) fn completions(shell: Shell) -> Result<Said, Error> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hot_patch", &mut text);
    Ok(said(&text))
}

/// The page of the program, or of one of its commands.
pub(crate) fn man(command: Option<&str>) -> Result<Said, Error> {
    let mut program = Cli::command();
    program.build();
    let page = match command {
        None => program,
        Some(name) => program
            .find_subcommand(name)
            .filter(|command| !command.is_hide_set())
            .cloned()
            .ok_or_else(|| Error::NoCommand(name.to_owned()))?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    Ok(said(&text))
}

fn said(text: &[u8]) -> Said {
    Said { text: String::from_utf8_lossy(text).into_owned(), verdict: Verdict::Good }
}
