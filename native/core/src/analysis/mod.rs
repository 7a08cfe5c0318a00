//! What a change of modules means, before anything of it is done: in which order, for whom, and
//! why not.
//!
//! [`analyse`] compares two sets of modules. It goes by what is in the files of modules that are
//! stripped of all that the VM does not need: tables, literals, instructions. So it sees calls by
//! name and not those made up at run time, and states as far as the code says what they look like.

mod change;
mod describe;
mod finding;
mod generate;
mod graph;
mod reply;
mod role;
mod rules;
mod state;
mod steps;
mod system;
mod text;
mod unread;
mod version;

pub use describe::{Functions, ModuleChange, Operation, Pause};
pub use finding::{Finding, Kind, Severity};
pub use generate::Builds;
pub use graph::{components, is_cycle};
pub use role::Role;
pub use state::Conversion;
pub use steps::Steps;

use hot_patch_beam::Stop;
use hot_patch_beam::effort::Effort;
use hot_patch_beam::etf::{self, Term};
use system::{Sources, System};

/// The most bytes that are made of all modules together, the files themselves left aside.
const MOST_BYTES: u64 = 256 << 20;

/// The most steps of work. Some systems take a few millions.
const MOST_STEPS: u64 = 1 << 30;

/// What is to be compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The modules of the system before the change, as many as are known: files.
    pub before: &'a [&'a [u8]],
    /// The modules that are new or other after the change: files.
    pub after: &'a [&'a [u8]],
    /// The modules that go, by name.
    pub deleted: &'a [&'a str],
    /// Whether `after` is all there is after the change: what is not in it goes too.
    pub whole: bool,
    /// Whether the change leads to an older version: then states are converted by the
    /// `code_change` of the version before the change.
    pub down: bool,
    /// Modules that were compiled with another one's macros, where that is known: the module, and
    /// the other. It does not show in the files.
    pub compiled_with: &'a [(&'a str, &'a str)],
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// All modules of the change that are new, other, or go, by name.
    pub modules: Vec<ModuleChange>,
    /// In which order to load them, those in a cycle together; those that go come last.
    pub order: Vec<Vec<String>>,
    /// What stands out, the worst first.
    pub findings: Vec<Finding>,
    /// Whether, as far as can be seen, no state changes its form and nothing is converted, so
    /// that nobody needs to pause.
    pub stateless: bool,
    /// Whether it is better made in two steps, and in which.
    pub steps: Steps,
}

impl Analysis {
    /// The worst severity there is.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(Finding::severity).max()
    }

    /// The modules of each cycle.
    pub fn cycles(&self) -> impl Iterator<Item = &[String]> {
        self.order.iter().filter(|group| group.len() > 1).map(Vec::as_slice)
    }

    /// As one encoded term, see [`reply`](crate::reply).
    pub fn encode(&self) -> Vec<u8> {
        etf::encode(&self.term())
    }

    /// As the term that is encoded.
    pub(crate) fn term(&self) -> Term<'_> {
        reply::term(self)
    }
}

/// Compares.
pub fn analyse(request: &Request<'_>) -> Analysis {
    analyse_until(&Stop::default(), request)
}

/// Compares as long as `stop` is not raised. Once it is, what is left is left out, so that what
/// comes must not be used.
pub fn analyse_until(stop: &Stop, request: &Request<'_>) -> Analysis {
    analyse_within(&Effort::new(stop, MOST_BYTES, MOST_STEPS), request)
}

fn analyse_within(effort: &Effort, request: &Request<'_>) -> Analysis {
    let sources = Sources::read(request, effort);
    let system = System::new(&sources, effort);
    let mut findings = rules::all(&system);
    let modules: Vec<ModuleChange> =
        system.changes.iter().map(|change| describe::describe(change, &system)).collect();
    let order = rules::order(&system);
    let steps = steps::steps(&system, &modules);
    findings.extend(steps::advice(&steps));
    // What could not be read is known when all have asked for what they want to know.
    findings.extend(unread::all(&system));
    findings
        .sort_by(|one, other| other.severity().cmp(&one.severity()).then_with(|| one.cmp(other)));
    findings.dedup();
    let still = |module: &ModuleChange| module.pause == Pause::None || !module.state_moves;
    let stateless = modules.iter().all(still) && !findings.iter().any(|one| one.kind.is_of_state());
    Analysis { modules, order, findings, stateless, steps }
}

#[cfg(test)]
mod tests {
    use super::{Request, analyse_within};
    use hot_patch_beam::Stop;
    use hot_patch_beam::effort::Effort;

    /// The module `m` with the function `f/0`, and one more byte in its strings.
    fn module(byte: u8) -> Vec<u8> {
        let mut file = b"FOR1\0\0\0\x6eBEAMAtU8\0\0\0\x08\0\0\0\x02\x01m\x01f".to_vec();
        file.extend(b"Code\0\0\0\x1e\0\0\0\x10\0\0\0\0\0\0\0\xb4\0\0\0\x03\0\0\0\x01");
        file.extend(b"\x01\x10\x02\x12\x22\x00\x01\x20\x13\x03\0\0");
        file.extend([&b"StrT\0\0\0\x01"[..], &[byte], b"\0\0\0"].concat());
        file.extend(b"ImpT\0\0\0\x04\0\0\0\0ExpT\0\0\0\x10\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x02");
        let size = u32::try_from(file.len() - 8).unwrap();
        file.iter_mut().skip(4).zip(size.to_be_bytes()).for_each(|(to, byte)| *to = byte);
        file
    }

    fn kinds(effort: &Effort) -> Vec<&'static str> {
        let (old, new) = (module(1), module(2));
        let request = Request { before: &[&old], after: &[&new], ..Request::default() };
        let analysis = analyse_within(effort, &request);
        analysis.findings.iter().map(|finding| finding.kind.name()).collect()
    }

    #[test]
    fn limits_that_are_reached_are_told_as_that_and_not_as_damage() {
        let stop = Stop::default();
        assert!(kinds(&Effort::new(&stop, 1 << 20, 1 << 20)).is_empty());
        for (bytes, steps) in [(0, 1 << 20), (200, 1 << 20), (1 << 20, 0), (1 << 20, 5)] {
            let found = kinds(&Effort::new(&stop, bytes, steps));
            assert_eq!(found, ["analysis_incomplete"], "{bytes} {steps}");
        }
    }

    #[test]
    fn once_nobody_waits_nothing_more_is_done() {
        let stop = Stop::default();
        stop.raise();
        let effort = Effort::new(&stop, 0, 0);
        let (old, new) = (module(1), module(2));
        let request = Request { before: &[&old], after: &[&new], ..Request::default() };
        assert!(analyse_within(&effort, &request).modules.is_empty());
        assert!(!effort.is_exhausted());
    }
}
