//! Builds a patch from two builds of a system: what differs between them, as an archive with a
//! manifest.
//!
//! The result depends on nothing but the two builds and the [`Request`]: the same inputs give the
//! same bytes, whatever the machine, the time and the number of processors.
//!
//! This is the only part of the native core that opens files of its own accord: those of the
//! operator's own builds. What it does with them is below, in `hot_patch_core` and
//! `hot_patch_beam`, which see bytes.
//!
//! | module | concept |
//! |---|---|
//! | [`request`](Request) | what is asked for |
//! | `tree` | the files of a build, from a folder or a tar |
//! | `side`, `release`, `system` | one of the two builds: its applications, versions, what is OTP's |
//! | `compare`, `pair`, `changes`, `moves` | what differs between them |
//! | `upgrade` | the next version of a release, with whole folders |
//! | `shelf` | of it what has the version of what runs, and is other: it comes beside that |
//! | `steps` | its instructions: those of the analysis, and what authors have written |
//! | `appups`, `relup`, `script`, `ground` | where they have written it, what it comes to, and how it fits what changes |
//! | `advice`, `judgement` | what the change means, and whether the patch goes out with it |
//! | `describe`, `write` | the manifest, the archive |
//! | [`progress`](Progress) | how far it has come, and whether anybody waits |
//! | [`with_term`] | what was built as one Erlang term |

#![forbid(unsafe_code)]
// What comes from outside may be anything: where something cannot be, that is an error too.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::unwrap_used)
)]

mod advice;
mod appups;
mod changes;
mod compare;
mod describe;
mod error;
mod ground;
mod judgement;
mod moves;
mod names;
mod pair;
mod progress;
mod release;
mod relup;
mod reply;
mod request;
mod script;
mod shelf;
mod side;
mod steps;
mod system;
mod tree;
mod upgrade;
mod write;

pub use changes::{Build, Change};
pub use error::Error;
pub use progress::Progress;
pub use reply::{Building, with_term};
pub use request::Request;
pub use system::APPLICATIONS as SYSTEM_APPLICATIONS;

use advice::Advice;
use hot_patch_beam::ChunkId;
use hot_patch_beam::text::visible;
use hot_patch_core::analysis::{Analysis, Finding};
use hot_patch_core::manifest::{LONGEST_REMARK, MOST_REMARKS, Manifest};
use judgement::Judgement;
use side::Side;
use steps::Course;

/// A patch that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The archive.
    pub zip: Vec<u8>,
    /// What its manifest says.
    pub manifest: Manifest,
    /// What the one who builds it should know, in sentences.
    pub notes: Vec<String>,
    /// How many files of the two builds were compared.
    pub compared: usize,
    /// What the change means.
    pub analysis: Analysis,
    /// What is dangerous in it and was not accepted. Unless it is empty, the patch is to be shown
    /// at most, and not to be written.
    pub refused: Vec<Finding>,
}

impl Built {
    /// Why the patch is not to be written, in lines; none if it may be.
    pub fn refusal(&self) -> Option<String> {
        (!self.refused.is_empty()).then(|| judgement::refusal(&self.refused))
    }
}

/// Builds a patch. `significant` are the chunks that the MD5 of a module covers.
pub fn build(
    request: &Request,
    significant: &[ChunkId],
    progress: &Progress,
) -> Result<Built, Error> {
    let (from, to) = sides(request)?;
    let mut compared = match &from {
        Some(from) if upgrade::is_meant(from, &to, request) => {
            upgrade::compare(from, &to, request, significant, progress)?
        }
        Some(from) => compare::both(from, &to, request, significant, progress)?,
        None => compare::picked(&to, request, significant, progress)?,
    };
    if compared.changes.is_empty() && request.config.is_empty() {
        return Err(Error::NothingChanged { compared: compared.count });
    }
    steps::known(&request.restart, compared.upgrade.as_ref())?;
    let advice = match (&from, &compared.upgrade) {
        (None, _) => Advice::on_picked(&compared.changes, &to, progress.stop())?,
        (Some(from), None) => {
            // What the patch before it has brought runs already.
            let mut running = from.modules();
            let brought = to.modules().into_iter().filter(|(name, _)| request.is_applied(name));
            running.extend(brought);
            Advice::on(&compared.changes, running, progress.stop())?
        }
        (Some(from), Some(upgrade)) => {
            let course = Course { upgrade, from, to: &to, restart: &request.restart };
            // Of what runs nothing is left after a restart, neither code nor states.
            if compared.by_restart {
                Advice::on_restart(&compared.changes, &course, progress.stop())
            } else {
                Advice::on_upgrade(&compared.changes, course, progress.stop())?
            }
        }
    };
    compared.notes.extend(advice.remarks.iter().cloned());
    if let Some(upgrade) = &mut compared.upgrade {
        upgrade.relup = advice.relup;
        upgrade.remarks = lines(&advice.remarks);
    }
    progress.unless_stopped()?;
    let Judgement { accepted, refused } =
        Judgement::on(&advice.analysis.findings, &request.accepted_findings)?;
    let analysis = advice.analysis.clone();
    let from = from.as_ref();
    let manifest = describe::manifest(
        request,
        from,
        &to,
        &compared.changes,
        advice,
        accepted,
        compared.upgrade,
    );
    let zip = write::archive(&manifest, &compared.changes)?;
    let (notes, compared) = (compared.notes, compared.count);
    Ok(Built { zip, manifest, notes, compared, analysis, refused })
}

/// Remarks as a manifest may have them.
fn lines(remarks: &[String]) -> Vec<String> {
    let named = if remarks.len() > MOST_REMARKS { MOST_REMARKS - 1 } else { remarks.len() };
    let mut lines: Vec<String> = remarks.iter().take(named).map(|remark| line(remark)).collect();
    if remarks.len() > named {
        lines
            .push(format!("there are {} more, which who built it was told", remarks.len() - named));
    }
    lines
}

fn line(remark: &str) -> String {
    let mut line = visible(remark);
    let fits = |end: &usize| *end <= LONGEST_REMARK;
    if line.len() > LONGEST_REMARK {
        let end = line.char_indices().map(|(at, _)| at).take_while(fits).last();
        line.truncate(end.unwrap_or_default());
    }
    line
}

/// Both sides at once: most of it is waiting for the disk.
fn sides(request: &Request) -> Result<(Option<Side>, Side), Error> {
    let read = |path: &std::path::Path, running: Option<&str>| {
        Side::new(tree::read(path, request.most_unpacked)?, path, running)
    };
    std::thread::scope(|scope| {
        let running = request.running.as_deref();
        let from = request.from.as_deref().map(|path| scope.spawn(move || read(path, running)));
        let to = read(&request.to, None);
        let from = from
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Ok((from.transpose()?, to?))
    })
}
