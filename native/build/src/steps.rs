//! The instructions of an upgrade: those that authors have written where there are some, else those
//! that the analysis makes.

use std::collections::BTreeSet;

use hot_patch_core::analysis::{Analysis, Kind};
use hot_patch_core::appup::{Instruction, Update};
use hot_patch_core::manifest::{Application, Upgrade};

use crate::appups::{self, Written};
use crate::error::Error;
use crate::names::some;
use crate::side::{Key, Side};

/// An upgrade, and what it is made of.
#[derive(Clone, Copy)]
pub(crate) struct Course<'s> {
    pub(crate) upgrade: &'s Upgrade,
    pub(crate) from: &'s Side,
    pub(crate) to: &'s Side,
    /// Applications that are to be restarted.
    pub(crate) restart: &'s [String],
}

/// Checks that what is to be restarted changes.
pub(crate) fn known(restart: &[String], upgrade: Option<&Upgrade>) -> Result<(), Error> {
    let changes = |name: &String| {
        let applications = upgrade.into_iter().flat_map(|upgrade| &upgrade.applications);
        let mut changing = applications.filter(|one| one.from.is_some() && one.to.is_some());
        changing.any(|one| one.name == *name)
    };
    match restart.iter().find(|name| !changes(name)) {
        None => Ok(()),
        Some(name) => Err(Error::NoUpgrade(format!(
            "--restart {name}: there is no application of this name that an upgrade takes from one \
             version to another"
        ))),
    }
}

/// One way of an upgrade.
pub(crate) struct Way<'a> {
    pub(crate) is_up: bool,
    /// The instructions that the analysis makes.
    pub(crate) made: Vec<Instruction>,
    pub(crate) analysis: &'a mut Analysis,
}

impl Course<'_> {
    /// The instructions for one way. What is found of supervisors is no finding any more where their
    /// children follow.
    pub(crate) fn steps(
        &self,
        way: Way<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Instruction>, Error> {
        let Way { is_up, mut made, analysis } = way;
        let changed: BTreeSet<&str> =
            analysis.modules.iter().map(|module| module.module.as_str()).collect();
        let mut own = Vec::new();
        for application in self.upgrade.applications.iter() {
            let Some(from) = application.from.as_deref().filter(|_| application.to.is_some())
            else {
                continue;
            };
            let written = appups::written(self.to, &application.name, from)?;
            if written.by_pattern && is_up {
                notes.push(by_pattern(application, from));
            }
            own.extend(self.own(application, written, is_up, &changed, notes));
        }
        let own: Vec<Instruction> = own.into_iter().filter(|one| !self.is_course(one)).collect();
        let named: BTreeSet<&str> = own.iter().filter_map(module).collect();
        made.retain(|one| module(one).is_none_or(|module| !named.contains(module)));
        follow(&mut made, analysis);
        made.extend(own);
        Ok(made)
    }

    /// Those of one application: written, or none but that it is restarted.
    fn own(
        &self,
        application: &Application,
        written: Written,
        is_up: bool,
        changed: &BTreeSet<&str>,
        notes: &mut Vec<String>,
    ) -> Vec<Instruction> {
        let name = &application.name;
        match if is_up { written.up } else { written.down } {
            Some(own) => {
                let direction = if is_up { "up" } else { "down" };
                notes.push(format!("{name} goes {direction} as its own .appup says"));
                let named: BTreeSet<&str> = own.iter().filter_map(module).collect();
                let restarts = own.iter().any(|one| is_restart(one, name));
                let left: Vec<&str> = self
                    .modules(name)
                    .into_iter()
                    .filter(|module| changed.contains(module) && !named.contains(module))
                    .collect();
                if is_up && !left.is_empty() && !restarts {
                    notes.push(format!(
                        "{name}.appup says nothing of {}, which change: for these counts what the \
                         analysis finds",
                        some(&left)
                    ));
                }
                own
            }
            None if self.restart.contains(name) || self.starts_otherwise(name) => {
                if is_up && !self.restart.contains(name) {
                    notes.push(format!(
                        "{name} has another callback module or start argument, and is restarted"
                    ));
                }
                vec![Instruction::RestartApplication(name.clone())]
            }
            None => Vec::new(),
        }
    }

    /// What the applications of the upgrade say already.
    fn is_course(&self, instruction: &Instruction) -> bool {
        let (Instruction::AddApplication { application: name, .. }
        | Instruction::RemoveApplication(name)) = instruction
        else {
            return false;
        };
        self.upgrade.applications.iter().any(|one| one.name == *name)
    }

    fn modules(&self, name: &str) -> BTreeSet<&str> {
        let sides = [self.from, self.to].into_iter();
        let files = sides.flat_map(|side| side.files.keys());
        let own =
            files.filter(|key| matches!(key, Key::Of { application, .. } if application == name));
        own.filter_map(Key::module).collect()
    }

    /// Whether the `mod` of its resource file is another.
    fn starts_otherwise(&self, name: &str) -> bool {
        let [old, new] = [self.from, self.to].map(|side| side.property(name, "mod"));
        old != new
    }
}

/// The supervisors whose init changes start what is new in it, and stop what is gone.
fn follow(made: &mut [Instruction], analysis: &mut Analysis) {
    let mut following = BTreeSet::new();
    for instruction in made {
        if let Instruction::Update(Update::Supervisor(module)) = instruction {
            let module = module.clone();
            let changes = analysis
                .findings
                .iter()
                .any(|one| one.kind == Kind::SupervisorInitChanged && one.module == module);
            if changes {
                *instruction = Instruction::Update(Update::Children(module.clone()));
                following.insert(module);
            }
        }
    }
    analysis
        .findings
        .retain(|one| one.kind != Kind::SupervisorInitChanged || !following.contains(&one.module));
}

fn is_restart(instruction: &Instruction, name: &str) -> bool {
    matches!(instruction, Instruction::RestartApplication(other) if other == name)
}

/// The module that an instruction is about.
fn module(instruction: &Instruction) -> Option<&str> {
    match instruction {
        Instruction::Update(Update::Supervisor(module) | Update::Children(module))
        | Instruction::AddModule { module, .. }
        | Instruction::DeleteModule { module, .. } => Some(module),
        Instruction::Update(Update::Processes(update)) => Some(&update.module),
        Instruction::LoadModule(load) => Some(&load.module),
        _ => None,
    }
}

fn by_pattern(application: &Application, from: &str) -> String {
    format!(
        "{}.appup names versions by patterns, which are not read here: what is to count for {from} \
         is to name it",
        application.name
    )
}
