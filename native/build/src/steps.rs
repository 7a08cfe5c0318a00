//! The instructions of an upgrade: those that authors have written where there are some, else those
//! that the analysis makes.

use std::collections::BTreeSet;

use hot_patch_core::analysis::{Analysis, Kind};
use hot_patch_core::appup::{Instruction, Start, Update};
use hot_patch_core::manifest::{Application, Upgrade};

use crate::appups;
use crate::error::Error;
use crate::ground::{Fitted, Ground};
use crate::names::some;
use crate::relup::{self, Found};
use crate::script::module;
use crate::side::{Key, Side};
use crate::system::is_system;

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

/// Its instructions.
pub(crate) struct Steps {
    pub(crate) all: Vec<Instruction>,
    /// Whether they are those of a relup.
    pub(crate) by_relup: bool,
}

impl Steps {
    /// Whether an application is restarted.
    fn restarts(&self, name: &str) -> bool {
        let is_it = |one: &Instruction| matches!(one, Instruction::RestartApplication(other) if other == name);
        self.all.iter().any(is_it)
    }
}

/// What is found of processes that run until the change, and that are gone where their application is restarted.
const OF_PROCESSES: [Kind; 7] = [
    Kind::StructChangedWithoutCodeChange,
    Kind::StateChangedWithoutCodeChange,
    Kind::RoleChanged,
    Kind::CallbackModeChanged,
    Kind::StateFunctionGone,
    Kind::SupervisorInitChanged,
    Kind::ApplicationStartChanged,
];

impl<'s> Course<'s> {
    /// The instructions for one way. What is found of supervisors is no finding any more where their
    /// children follow.
    pub(crate) fn steps(&self, way: Way<'_>, remarks: &mut Vec<String>) -> Result<Steps, Error> {
        let Way { is_up, mut made, analysis } = way;
        let ground = Ground::new(self, is_up, &made, analysis);
        let relup = self.by_relup(&ground, remarks)?;
        let by_relup = relup.is_some();
        let Fitted { early, rest, .. } = match relup {
            Some(fitted) => fitted,
            None => self.by_appups(&ground, remarks)?,
        };
        let named: BTreeSet<&str> = rest.iter().filter_map(module).collect();
        made.retain(|one| module(one).is_none_or(|module| !named.contains(module)));
        follow(&mut made, analysis);
        // What is called before anything changes stands before the first instruction for a module.
        let all = early.into_iter().chain(made).chain(rest).collect();
        Ok(Steps { all, by_relup })
    }

    /// Those of a relup that has the way.
    fn by_relup(
        &self,
        ground: &Ground<'_>,
        remarks: &mut Vec<String>,
    ) -> Result<Option<Fitted>, Error> {
        let is_live = self.is_live();
        let found =
            if is_live { relup::find(self.from, self.to, ground.is_up)? } else { Found::None };
        let written = match found {
            Found::None => {
                if !is_live && ground.is_up && self.has_relup() {
                    remarks.push(NOT_LIVE.to_owned());
                }
                return Ok(None);
            }
            Found::Other(why) => {
                remarks.push(format!(
                    "{why}: what counts are the applications' own appups, and what the analysis finds"
                ));
                return Ok(None);
            }
            Found::Way(written) => written,
        };
        let way = if ground.is_up { "the way up" } else { "the way back" };
        remarks.push(format!("{way} is as {} says", written.file));
        let fitted = ground.read(&written.file, &written.script, remarks)?;
        self.left_by_relup(&written.file, &fitted, ground, remarks);
        Ok(Some(fitted))
    }

    /// What changes with the way, and its relup does not say.
    fn left_by_relup(
        &self,
        file: &str,
        fitted: &Fitted,
        ground: &Ground<'_>,
        remarks: &mut Vec<String>,
    ) {
        let changed = ground.changed.iter().filter(|name| !fitted.modules.contains(*name));
        let left: Vec<&str> = changed.map(String::as_str).collect();
        if !left.is_empty() {
            remarks.push(says_nothing(file, &left));
        }
        let starts = |start: &Option<Start>| !matches!(start, None | Some(Start::None));
        let comes = ground.comes.iter().filter(|(_, start)| starts(start)).map(|(name, _)| *name);
        for (names, what) in [
            (comes.collect::<Vec<_>>(), "start, which come: they are started as the release says"),
            (ground.goes.iter().copied().collect(), "stop, which go: they are stopped"),
        ] {
            let left: Vec<&str> =
                names.into_iter().filter(|name| !fitted.applications.contains_key(*name)).collect();
            if !left.is_empty() {
                remarks.push(format!("{file} does not name {} among those to {what}", some(&left)));
            }
        }
        for application in self.changing() {
            let name = &application.name;
            let restarts = fitted.applications.get(name).copied().unwrap_or_default();
            self.not_restarted(name, restarts, file, ground.is_up, remarks);
        }
    }

    /// What is found of states is no finding where both ways restart the application that has the module.
    pub(crate) fn begin_anew(
        &self,
        ways: [&Steps; 2],
        analysis: &mut Analysis,
        remarks: &mut Vec<String>,
    ) {
        for name in self.changing().map(|one| one.name.as_str()) {
            if !ways.iter().all(|way| way.restarts(name)) {
                continue;
            }
            let modules = self.modules(name);
            let before = analysis.findings.len();
            analysis.findings.retain(|one| {
                !(OF_PROCESSES.contains(&one.kind) && modules.contains(one.module.as_str()))
            });
            if analysis.findings.len() < before {
                remarks.push(format!(
                    "{name} is restarted on both ways, so that its processes begin with states of the code that they \
                     run: what is found of states that change does not count there. Processes of other \
                     applications that run its modules keep theirs"
                ));
            }
        }
    }

    /// The applications that go from one version to another.
    fn changing(&self) -> impl Iterator<Item = &'s Application> {
        self.upgrade.applications.iter().filter(|one| one.from.is_some() && one.to.is_some())
    }

    /// Those of the applications' own appups, where they have the way.
    fn by_appups(&self, ground: &Ground<'_>, remarks: &mut Vec<String>) -> Result<Fitted, Error> {
        let mut all = Fitted::default();
        if !self.is_live() {
            return Ok(all);
        }
        for application in self.changing() {
            let Some(from) = application.from.as_deref() else { continue };
            let name = &application.name;
            let written = appups::written(self.to, name, from, ground.is_up)?;
            if !written.unread.is_empty() {
                remarks.push(unread(name, &written.unread, from));
            }
            match written.script {
                Some(script) => {
                    let direction = if ground.is_up { "up" } else { "down" };
                    remarks.push(format!("{name} goes {direction} as its own .appup says"));
                    let file = format!("{name}.appup");
                    let fitted = ground.read(&file, &script, remarks)?;
                    self.left_by_appup(name, &fitted, ground, remarks);
                    all.early.extend(fitted.early);
                    all.rest.extend(fitted.rest);
                }
                None if self.restart.contains(name) || self.starts_otherwise(name) => {
                    if ground.is_up && !self.restart.contains(name) {
                        remarks.push(format!(
                            "{name} has another callback module or start argument, and is restarted"
                        ));
                    }
                    all.rest.push(Instruction::RestartApplication(name.clone()));
                }
                None => {}
            }
        }
        Ok(all)
    }

    fn left_by_appup(
        &self,
        name: &str,
        fitted: &Fitted,
        ground: &Ground<'_>,
        remarks: &mut Vec<String>,
    ) {
        let restarts = fitted.applications.get(name).copied().unwrap_or_default();
        let left: Vec<&str> = self
            .modules(name)
            .into_iter()
            .filter(|module| ground.changed.contains(*module) && !fitted.modules.contains(*module))
            .collect();
        let file = format!("{name}.appup");
        if ground.is_up && !left.is_empty() && !restarts {
            remarks.push(says_nothing(&file, &left));
        }
        self.not_restarted(name, restarts, &file, ground.is_up, remarks);
    }

    /// What would have an application restarted if its authors had said nothing.
    fn not_restarted(
        &self,
        name: &str,
        restarts: bool,
        file: &str,
        is_up: bool,
        remarks: &mut Vec<String>,
    ) {
        if restarts || !is_up {
            return;
        }
        if self.restart.iter().any(|one| one == name) {
            remarks.push(format!("--restart {name} does not count: {file} says how it changes"));
        } else if self.starts_otherwise(name) {
            remarks.push(format!(
                "{name} has another callback module or start argument, and {file} does not restart it"
            ));
        }
    }

    /// Whether the new release has one.
    pub(crate) fn has_relup(&self) -> bool {
        self.to.files.contains_key(&relup::key())
    }

    /// Whether nodes can take it while they run, so that there are instructions to follow.
    fn is_live(&self) -> bool {
        let same_erts = self.from.facts.erts.as_deref() == Some(self.upgrade.erts.as_str());
        let of_system = |one: &Application| is_system(&one.name) && one.from.is_some();
        same_erts && !self.upgrade.applications.iter().any(of_system)
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

pub(crate) const NOT_LIVE: &str = "the relup of the new release is not used: the upgrade comes by restarts, which \
                        follow no instructions";

fn says_nothing(file: &str, modules: &[&str]) -> String {
    format!(
        "{file} says nothing of {}, which change: for these counts what the analysis finds",
        some(modules)
    )
}

fn unread(name: &str, patterns: &[String], from: &str) -> String {
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    format!(
        "{name}.appup names versions by {}, which is not understood here: what is to count for {from} is to \
         name it",
        some(&patterns)
    )
}
