//! Whether a patch goes out with what was found in it.

use std::fmt::Write;

use crate::error::Error;
use crate::names::some;
use hot_patch_beam::text::printable;
use hot_patch_core::analysis::{Finding, Severity};
use hot_patch_core::manifest;

/// What was accepted, and what was not.
#[derive(Debug)]
pub(crate) struct Judgement {
    /// What somebody has accepted of what was found.
    pub(crate) accepted: Vec<manifest::Finding>,
    /// What is dangerous and was not accepted.
    pub(crate) refused: Vec<Finding>,
}

impl Judgement {
    /// Who accepts what was not found has misspelled it, or means another patch.
    pub(crate) fn on(found: &[Finding], accepted: &[manifest::Finding]) -> Result<Self, Error> {
        for wanted in accepted {
            if !found.iter().any(|finding| accepts(wanted, finding)) {
                let found: Vec<String> = found.iter().map(acceptance).collect();
                let found: Vec<&str> = found.iter().map(String::as_str).collect();
                let found = if found.is_empty() { "nothing".to_owned() } else { some(&found) };
                return Err(Error::NothingToAccept { accepted: asked(wanted), found });
            }
        }
        let mut judgement = Judgement { accepted: Vec::new(), refused: Vec::new() };
        for finding in found {
            match accepted.iter().find(|wanted| accepts(wanted, finding)) {
                Some(wanted) => judgement.accept(finding, wanted),
                None if finding.severity() == Severity::Danger => {
                    judgement.refused.push(finding.clone());
                }
                None => {}
            }
        }
        Ok(judgement)
    }

    /// By its module, also where all of a name were accepted: who reads it is to see what it was.
    fn accept(&mut self, finding: &Finding, wanted: &manifest::Finding) {
        let rule = finding.kind.name().to_owned();
        let module = Some(finding.module.clone()).filter(|module| !module.is_empty());
        let accepted = manifest::Finding { rule, module, reason: wanted.reason.clone() };
        if !self.accepted.contains(&accepted) {
            self.accepted.push(accepted);
        }
    }
}

fn accepts(wanted: &manifest::Finding, finding: &Finding) -> bool {
    let module = |wanted: &String| *wanted == finding.module || wanted == short(&finding.module);
    wanted.rule == finding.kind.name() && wanted.module.as_ref().is_none_or(module)
}

fn short(module: &str) -> &str {
    module.strip_prefix("Elixir.").unwrap_or(module)
}

fn asked(wanted: &manifest::Finding) -> String {
    match &wanted.module {
        Some(module) => format!("{}:{module}", wanted.rule),
        None => wanted.rule.clone(),
    }
}

/// How a finding is accepted.
fn acceptance(finding: &Finding) -> String {
    match short(&finding.module) {
        "" => finding.kind.name().to_owned(),
        // Names of modules are whatever the build says.
        module => format!("{}:{}", finding.kind.name(), printable(module.as_bytes())),
    }
}

/// Why a patch is not built: each finding, what it means, what to do, how to accept it.
pub(crate) fn refusal(refused: &[Finding]) -> String {
    let mut text = "no patch is built, because it looks dangerous:\n".to_owned();
    for finding in refused {
        let kind = finding.kind;
        let found = finding.message.strip_suffix(kind.next_step()).unwrap_or(&finding.message);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{}\n  found:  {}\n  means:  {}\n  to do:  {}\n  or:     --accept {}\n",
            kind.name(),
            found.trim_end(),
            kind.what(),
            kind.next_step(),
            acceptance(finding)
        );
    }
    text
}
