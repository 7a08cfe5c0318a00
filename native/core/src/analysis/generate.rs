//! Instructions made from what was found: an [`Appup`] out of an [`Analysis`].

use super::describe::{ModuleChange, Operation};
use super::role::Role;
use super::state::Conversion;
use super::{Analysis, Request, analyse_until};
use crate::appup::{
    Appup, Change, Instruction, LoadModule, ModuleType, Processes, Purges, Script, Timeout, Update,
    Value, Version,
};
use hot_patch_beam::Stop;

/// Two builds of an application.
#[derive(Clone, Copy, Debug)]
pub struct Builds<'a> {
    /// The application's name.
    pub application: &'a str,
    /// Its version before and after.
    pub versions: [&'a str; 2],
    /// The files of its modules before and after.
    pub modules: [&'a [&'a [u8]]; 2],
    /// Whether it is to be restarted, instead of changed in place.
    pub restart: bool,
}

impl Appup {
    /// The appup that leads from one build to another, and back.
    pub fn between(builds: &Builds<'_>) -> Self {
        Appup::between_until(&Stop::default(), builds)
    }

    /// The same as long as `stop` is not raised; then what comes must not be used.
    pub fn between_until(stop: &Stop, builds: &Builds<'_>) -> Self {
        let [from, to] = builds.modules;
        let analyse = |before, after, down| {
            let request = Request { before, after, whole: true, down, ..Request::default() };
            analyse_until(stop, &request)
        };
        let analyses = [&analyse(from, to, false), &analyse(to, from, true)];
        Appup::from_changes(builds.application, builds.versions, analyses, builds.restart)
    }

    /// The appup of an application for the way from one version up to another and back. Both ways
    /// have an analysis of their own; with `restart` the application is restarted on both.
    pub fn from_changes(
        application: &str,
        [from, to]: [&str; 2],
        [up, down]: [&Analysis; 2],
        restart: bool,
    ) -> Self {
        let script = |analysis: &Analysis| {
            let instructions = if restart {
                vec![Instruction::RestartApplication(application.to_owned())]
            } else {
                instructions(analysis)
            };
            vec![Script { version: Version::Exactly(from.to_owned()), instructions }]
        };
        Appup { version: to.to_owned(), up: script(up), down: script(down) }
    }
}

/// One instruction for each module: what is new first, then each behind those it calls, then what
/// goes.
fn instructions(analysis: &Analysis) -> Vec<Instruction> {
    let named = |name: &String| analysis.modules.iter().find(|module| module.module == *name);
    let ordered: Vec<&ModuleChange> = analysis.order.iter().flatten().filter_map(named).collect();
    [Operation::Add, Operation::Replace, Operation::Delete]
        .iter()
        .flat_map(|operation| ordered.iter().filter(move |one| one.operation == *operation))
        .map(|module| instruction(module))
        .collect()
}

fn instruction(change: &ModuleChange) -> Instruction {
    let module = change.module.clone();
    let dependencies = change.calls.clone();
    match change.operation {
        Operation::Add => Instruction::AddModule { module, dependencies },
        Operation::Delete => Instruction::DeleteModule { module, dependencies: Vec::new() },
        Operation::Replace if change.roles.contains(&Role::Supervisor) => {
            Instruction::Update(Update::Supervisor(module))
        }
        // Who has a code_change may have processes by ways that do not show: behaviours of its own,
        // libraries that hide it in their state.
        Operation::Replace
            if change.code_change != Conversion::Absent
                || change.roles.iter().any(|role| role.has_processes()) =>
        {
            Instruction::Update(Update::Processes(Processes {
                module,
                change: how(change),
                kind: ModuleType::default(),
                timeout: Timeout::default(),
                purge: Purges::default(),
                dependencies,
            }))
        }
        Operation::Replace => {
            let purge = Purges::default();
            Instruction::LoadModule(LoadModule { module, purge, dependencies })
        }
    }
}

/// States go through a `code_change` unless it is sure that nothing comes of it.
fn how(change: &ModuleChange) -> Change {
    if change.code_change.is_called() {
        Change::Advanced(Value::List(Vec::new()))
    } else {
        Change::Soft
    }
}
