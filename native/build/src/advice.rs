//! What is to be known of a change beyond what differs: in which order to load it, what to do
//! with the processes, and what looks dangerous.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::changes::Change;
use crate::error::Error;
use crate::side::Side;
use crate::steps::{Course, NOT_LIVE, Way};
use crate::tree::Content;
use hot_patch_beam::Stop;
use hot_patch_core::analysis::{self, Analysis, Request};
use hot_patch_core::appup::{Appup, Instruction, Script};
use hot_patch_core::manifest::{Instructions, Relup};

/// What goes into the manifest of a patch besides its files, and why.
#[derive(Debug)]
pub(crate) struct Advice {
    /// Names of modules, first to be loaded first: each behind those that it calls.
    pub(crate) load_order: Vec<String>,
    /// In the terms of an appup.
    pub(crate) instructions: Instructions,
    /// What the way up means.
    pub(crate) analysis: Analysis,
    /// Which ways of an upgrade are those of a relup, where the new release has one.
    pub(crate) relup: Option<Relup>,
    /// Where the instructions of an upgrade are from, and what of them is done otherwise.
    pub(crate) remarks: Vec<String>,
}

/// The modules of a change as files, and those around it.
struct Versions<'c> {
    around: Vec<Cow<'c, [u8]>>,
    before: Vec<Cow<'c, [u8]>>,
    after: Vec<&'c [u8]>,
    added: Vec<&'c str>,
    removed: Vec<&'c str>,
}

/// A change is judged here, and nowhere else.
impl Advice {
    /// A change of the build that runs.
    pub(crate) fn on<'s>(
        changes: &'s [Change],
        running: BTreeMap<&'s str, &'s Content>,
        stop: &Stop,
    ) -> Result<Advice, Error> {
        let versions = Versions::of(changes, running, false)?;
        let (up, down) = (versions.up(stop), versions.down(stop));
        let appup = appup(&up, &down);
        let instructions =
            Instructions { up: texts(&made(appup.up)), down: texts(&made(appup.down)) };
        Ok(Advice::new(load_order(changes, &up), instructions, up))
    }

    fn new(load_order: Vec<String>, instructions: Instructions, analysis: Analysis) -> Advice {
        Advice { load_order, instructions, analysis, relup: None, remarks: Vec::new() }
    }

    /// Modules that were picked from a build, where nothing says which one runs: they have no version
    /// before, and no instruction can lead to them or back.
    pub(crate) fn on_picked(
        changes: &[Change],
        build: &Side,
        stop: &Stop,
    ) -> Result<Advice, Error> {
        let analysis = Versions::of(changes, build.modules(), true)?.up(stop);
        let instructions = Instructions::default();
        Ok(Advice::new(load_order(changes, &analysis), instructions, analysis))
    }

    /// The way to a release that nodes are restarted for: nothing is loaded by it, and nothing converted.
    pub(crate) fn on_restart(changes: &[Change], course: &Course<'_>, stop: &Stop) -> Advice {
        let analysis = analysis::analyse_until(stop, &Request::default());
        let instructions = Instructions::default();
        let advice = Advice::new(load_order(changes, &analysis), instructions, analysis);
        if course.has_relup() {
            let relup = Some(Relup { up: false, down: false });
            return Advice { relup, remarks: vec![NOT_LIVE.to_owned()], ..advice };
        }
        advice
    }

    /// The way to the next version of a release.
    pub(crate) fn on_upgrade(
        changes: &[Change],
        course: Course<'_>,
        stop: &Stop,
    ) -> Result<Advice, Error> {
        let versions = Versions::of(changes, course.from.modules(), false)?;
        let (mut up, mut down) = (versions.up(stop), versions.down(stop));
        let appup = appup(&up, &down);
        let (ways_up, ways_down) = (made(appup.up), made(appup.down));
        let mut remarks = Vec::new();
        let way = Way { is_up: true, made: ways_up, analysis: &mut up };
        let steps_up = course.steps(way, &mut remarks)?;
        let way = Way { is_up: false, made: ways_down, analysis: &mut down };
        let steps_down = course.steps(way, &mut remarks)?;
        course.begin_anew([&steps_up, &steps_down], &mut up, &mut remarks);
        let instructions = Instructions { up: texts(&steps_up.all), down: texts(&steps_down.all) };
        let (up_by, down_by) = (steps_up.by_relup, steps_down.by_relup);
        let relup =
            (up_by || down_by || course.has_relup()).then_some(Relup { up: up_by, down: down_by });
        let load_order = load_order(changes, &up);
        Ok(Advice { relup, remarks, ..Advice::new(load_order, instructions, up) })
    }
}

/// What is not in the order of the analysis is what runs already, which calls nothing new.
fn load_order(changes: &[Change], analysis: &Analysis) -> Vec<String> {
    let brought = changes.iter().filter(|change| change.after.is_some());
    let mut brought: BTreeSet<&str> = brought.filter_map(Change::module).collect();
    let ordered = analysis.order.iter().flatten();
    let mut order: Vec<String> =
        ordered.filter(|name| brought.remove(name.as_str())).cloned().collect();
    order.extend(brought.into_iter().map(str::to_owned));
    order
}

/// The versions of an appup are no part of its instructions.
fn appup(up: &Analysis, down: &Analysis) -> Appup {
    Appup::from_changes("", ["", ""], [up, down], false)
}

fn made(scripts: Vec<Script>) -> Vec<Instruction> {
    scripts.into_iter().flat_map(|script| script.instructions).collect()
}

fn texts(instructions: &[Instruction]) -> Vec<String> {
    instructions.iter().map(ToString::to_string).collect()
}

impl<'c> Versions<'c> {
    fn of(
        changes: &'c [Change],
        mut all: BTreeMap<&'c str, &'c Content>,
        picked: bool,
    ) -> Result<Self, Error> {
        let mut versions = Versions {
            around: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
        };
        for change in changes {
            let (Some(name), false) = (change.module(), change.unchanged) else { continue };
            // Of a protocol what runs is the consolidated one, whatever lies beside it.
            let before = all.remove(name).filter(|_| !picked);
            match (&change.after, before) {
                (Some(_), None) => versions.added.push(name),
                (None, _) => versions.removed.push(name),
                (Some(_), Some(_)) => {}
            }
            versions.after.extend(change.after.as_ref().map(|build| build.bytes.as_slice()));
            if let Some(before) = before {
                versions.before.push(before.read()?);
            }
        }
        if !(versions.after.is_empty() && versions.removed.is_empty()) {
            versions.around =
                all.values().map(|content| content.read()).collect::<Result<_, _>>()?;
        }
        Ok(versions)
    }

    fn up(&self, stop: &Stop) -> Analysis {
        let before: Vec<&[u8]> = self.around.iter().chain(&self.before).map(|one| &**one).collect();
        let (after, deleted) = (&self.after, &self.removed);
        let request = Request { before: &before, after, deleted, ..Request::default() };
        analysis::analyse_until(stop, &request)
    }

    /// Of the way back only the instructions are wanted, and these go by the change alone.
    fn down(&self, stop: &Stop) -> Analysis {
        let after: Vec<&[u8]> = self.before.iter().map(|one| &**one).collect();
        let (before, after, deleted) = (&self.after, &after, &self.added);
        let request = Request { before, after, deleted, down: true, ..Request::default() };
        analysis::analyse_until(stop, &request)
    }
}
