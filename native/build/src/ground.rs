//! What one way of an upgrade changes, and how what authors have written fits that.

use std::collections::{BTreeMap, BTreeSet};

use hot_patch_core::analysis::Analysis;
use hot_patch_core::appup::{Change, Instruction, Processes, Start, Update, Value};
use hot_patch_core::manifest::Application;

use crate::error::Error;
use crate::names::some;
use crate::pair;
use crate::script::{self, Script, module, quoted};
use crate::side::{Key, Side};
use crate::steps::Course;
use crate::tree::Content;

/// What is to be known of a way before it is judged.
pub(crate) struct Ground<'s> {
    pub(crate) is_up: bool,
    destination: &'s Side,
    /// Modules where it starts and where it leads, and those of the latter whose applications change.
    before: BTreeSet<&'s str>,
    after: BTreeMap<&'s str, &'s Content>,
    brought: BTreeSet<&'s str>,
    /// Those that are not the same in both.
    pub(crate) changed: BTreeSet<String>,
    /// Those of them that supervisors work by.
    supervisors: BTreeSet<String>,
    /// Applications that come, with how they are started, and those that go.
    pub(crate) comes: BTreeMap<&'s str, Option<Start>>,
    pub(crate) goes: BTreeSet<&'s str>,
}

/// What authors have written, as it is followed.
#[derive(Debug, Default)]
pub(crate) struct Fitted {
    /// Calls that are made before anything changes.
    pub(crate) early: Vec<Instruction>,
    pub(crate) rest: Vec<Instruction>,
    /// All modules that it names.
    pub(crate) modules: BTreeSet<String>,
    /// All applications that it names, and whether it restarts them.
    pub(crate) applications: BTreeMap<String, bool>,
}

impl<'s> Ground<'s> {
    pub(crate) fn new(
        course: &Course<'s>,
        is_up: bool,
        made: &[Instruction],
        analysis: &Analysis,
    ) -> Self {
        let (origin, destination) =
            if is_up { (course.from, course.to) } else { (course.to, course.from) };
        let applications = &course.upgrade.applications;
        let names = |is: fn(&Option<String>, &Option<String>) -> bool| {
            let those = applications.iter().filter(move |one| is(&one.from, &one.to));
            those.map(|one| one.name.as_str())
        };
        let (added, removed) = (names(|from, _| from.is_none()), names(|_, to| to.is_none()));
        let (comes, goes): (Vec<_>, Vec<_>) = (added.collect(), removed.collect());
        let (comes, goes) = if is_up { (comes, goes) } else { (goes, comes) };
        let supervisor = |one: &Instruction| match one {
            Instruction::Update(Update::Supervisor(module)) => Some(module.clone()),
            _ => None,
        };
        Ground {
            is_up,
            destination,
            before: origin.modules().into_keys().collect(),
            after: destination.modules(),
            brought: brought(destination, applications),
            changed: analysis.modules.iter().map(|one| one.module.clone()).collect(),
            supervisors: made.iter().filter_map(supervisor).collect(),
            comes: comes.into_iter().map(|name| (name, start(destination, name))).collect(),
            goes: goes.into_iter().collect(),
        }
    }

    /// Reads a script of a file. What of it is done otherwise than it is written is remarked.
    pub(crate) fn read(
        &self,
        file: &str,
        script: &[Value],
        remarks: &mut Vec<String>,
    ) -> Result<Fitted, Error> {
        let refuse = |why: String| Error::NoUpgrade(format!("{file}: {why}"));
        let comes = |name: &str| self.comes.contains_key(name);
        let Script { instructions, remarks: said, versions } =
            script::read(script, comes).map_err(refuse)?;
        let mut said: Vec<String> = said;
        let wrong = versions.iter().find_map(|(name, version)| self.other_version(name, version));
        let wrong = wrong.or_else(|| instructions.iter().find_map(|one| self.is_of_another(one)));
        if let Some(why) = wrong {
            return Err(refuse(format!(
                "{why}. It was made for other releases: make it again, or leave it out"
            )));
        }
        let fitted = self.fitted(instructions, &mut said)?;
        remarks.extend(said.into_iter().map(|what| format!("{file}: {what}")));
        Ok(fitted)
    }

    /// Whose modules a script reads where the release has another version.
    fn other_version(&self, name: &str, version: &str) -> Option<String> {
        match self.destination.version(name) {
            Some(own) if own == version => None,
            Some(own) => Some(format!(
                "it loads modules of {name} {version}, and {name} is {own} in the release to which it leads"
            )),
            None => Some(format!(
                "it loads modules of {name} {version}, and the release to which it leads has no {name}"
            )),
        }
    }

    /// An instruction for a module that the release to which it leads has not, or has.
    fn is_of_another(&self, instruction: &Instruction) -> Option<String> {
        let name = module(instruction)?;
        let is_there = self.after.contains_key(name);
        let goes = matches!(instruction, Instruction::DeleteModule { .. });
        let what = match (goes, is_there) {
            (true, true) => "which the release to which it leads has",
            (false, false) => "which the release to which it leads does not have",
            _ => return None,
        };
        Some(format!("{} is for {name}, {what}", quoted(instruction)))
    }

    fn fitted(
        &self,
        instructions: Vec<Instruction>,
        said: &mut Vec<String>,
    ) -> Result<Fitted, Error> {
        let mut fitted = Fitted::default();
        let (mut started, mut is_changed) = (Vec::new(), false);
        for one in instructions {
            if let Some(name) = module(&one) {
                fitted.modules.insert(name.to_owned());
            }
            if let Some((name, restarts)) = application(&one) {
                let restarted = fitted.applications.entry(name.to_owned()).or_default();
                *restarted |= restarts;
            }
            match &one {
                Instruction::Apply { module, function, .. }
                    if self.is_early(module, is_changed) =>
                {
                    if !started.is_empty() {
                        said.push(format!(
                            "{module}:{function} is called before anything changes, and so before {} \
                             starts, though that stands before it",
                            some(&started.iter().map(String::as_str).collect::<Vec<_>>())
                        ));
                    }
                    fitted.early.push(one);
                    continue;
                }
                Instruction::AddApplication { application, .. } => {
                    started.push(application.clone())
                }
                _ => {}
            }
            is_changed |= self.changes_what_runs(&one);
            fitted.rest.extend(self.own(one, said)?);
        }
        Ok(fitted)
    }

    /// A call of what runs until then is made before anything changes where it stands before that; of
    /// what goes in any case, and of what comes in none.
    fn is_early(&self, module: &str, is_changed: bool) -> bool {
        match (self.before.contains(module), self.after.contains_key(module)) {
            (true, false) => true,
            (false, true) => false,
            _ => !is_changed,
        }
    }

    fn changes_what_runs(&self, instruction: &Instruction) -> bool {
        match (module(instruction), instruction) {
            (Some(name), _) => self.before.contains(name) && self.changed.contains(name),
            (None, Instruction::AddApplication { .. } | Instruction::Apply { .. }) => false,
            (None, _) => true,
        }
    }

    /// An instruction as it counts: none where the upgrade does it by itself, or there is nothing to do.
    fn own(
        &self,
        instruction: Instruction,
        said: &mut Vec<String>,
    ) -> Result<Option<Instruction>, Error> {
        if let Some(name) = module(&instruction).map(str::to_owned) {
            return if self.changed.contains(&name) {
                Ok(self.of_changed(&name, instruction))
            } else {
                self.of_same(name, &instruction, said)
            };
        }
        let is_course = match &instruction {
            Instruction::AddApplication { application: name, start } => {
                if let Some(Some(own)) = self.comes.get(name.as_str())
                    && own != start
                {
                    let (own, other) = (own.name(), start.name());
                    said.push(format!(
                        "{name} is started as the release says, {own}, and not {other}"
                    ));
                }
                self.comes.contains_key(name.as_str())
            }
            Instruction::RemoveApplication(name) => self.goes.contains(name.as_str()),
            _ => false,
        };
        Ok((!is_course).then_some(instruction))
    }

    /// Of what is new, and of supervisors, the analysis has made the same, and says more.
    fn of_changed(&self, name: &str, instruction: Instruction) -> Option<Instruction> {
        let is_made = !self.before.contains(name)
            || self.supervisors.contains(name) && is_for_supervisors(&instruction, true);
        (!is_made).then_some(instruction)
    }

    /// Code that is the same is not loaded again. The children of supervisors may be others all the same.
    fn of_same(
        &self,
        name: String,
        instruction: &Instruction,
        said: &mut Vec<String>,
    ) -> Result<Option<Instruction>, Error> {
        let converts = is_conversion(instruction);
        let for_supervisors =
            is_for_supervisors(instruction, converts && self.is_supervisor(&name)?);
        if for_supervisors && self.brought.contains(name.as_str()) {
            return Ok(Some(Instruction::Update(Update::Children(name))));
        }
        if converts || for_supervisors {
            said.push(format!(
                "{name} is the same in both releases: it is not loaded again, and {} is not followed",
                quoted(instruction)
            ));
        }
        Ok(None)
    }

    fn is_supervisor(&self, name: &str) -> Result<bool, Error> {
        let Some(content) = self.after.get(name) else { return Ok(false) };
        let read = pair::module(&format!("{name}.beam"), &content.read()?, &[])?;
        let is_one = |behaviour: &String| SUPERVISORS.contains(&behaviour.as_str());
        Ok(read.is_some_and(|module| module.behaviours.iter().any(is_one)))
    }
}

const SUPERVISORS: [&str; 2] = ["supervisor", "Elixir.Supervisor"];

fn is_conversion(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Update(Update::Processes(Processes { change: Change::Advanced(_), .. }))
    )
}

/// Whether a supervisor takes over its init by it: a relup has that as a conversion.
fn is_for_supervisors(instruction: &Instruction, is_supervisor: bool) -> bool {
    matches!(instruction, Instruction::Update(Update::Supervisor(_) | Update::Children(_)))
        || is_supervisor && is_conversion(instruction)
}

/// The modules of the applications that change, and those that lie beside them.
fn brought<'s>(side: &'s Side, changing: &[Application]) -> BTreeSet<&'s str> {
    let is_brought = |key: &&Key| match key {
        Key::Of { application, .. } => changing.iter().any(|one| one.name == *application),
        _ => true,
    };
    side.files.keys().filter(is_brought).filter_map(Key::module).collect()
}

fn application(instruction: &Instruction) -> Option<(&str, bool)> {
    match instruction {
        Instruction::AddApplication { application: name, .. }
        | Instruction::RemoveApplication(name) => Some((name, false)),
        Instruction::RestartApplication(name) => Some((name, true)),
        _ => None,
    }
}

fn start(side: &Side, name: &str) -> Option<Start> {
    let listed = side.facts.starts.as_ref()?;
    listed.iter().find(|one| one.name == name).map(|one| one.start)
}
