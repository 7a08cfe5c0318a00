//! What a script comes to here: the instructions of an `.appup` for one version, or the whole of one
//! way in a `relup`.
//!
//! High-level ones stay as they are. Low-level ones are what `systools` makes of those, and this is
//! the way back: what is loaded, removed and converted is one instruction a module, and applications
//! that are stopped and started by calls are instructions for applications. Standing still, purging
//! and going on is what every step is made of here, so that it needs none.

use std::collections::{BTreeMap, BTreeSet};

use hot_patch_core::appup::{Change, Instruction, LoadModule, ModuleType, Processes, Purge};
use hot_patch_core::appup::{Purges, Start, Timeout, Update, Value};

/// A script as it is followed here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) instructions: Vec<Instruction>,
    /// What of it is not done as it is written, in sentences.
    pub(crate) remarks: Vec<String>,
    /// The versions of applications whose modules it reads.
    pub(crate) versions: BTreeMap<String, String>,
}

/// The longest text of an instruction that is quoted, in characters.
const QUOTED: usize = 200;

/// Reads a script; the instruction that cannot be carried out, if there is one, and why. `comes` tells
/// which applications come with the way: a start of another one is a call as any.
pub(crate) fn read(script: &[Value], comes: impl Fn(&str) -> bool) -> Result<Script, String> {
    let mut reader = Reader::default();
    for value in script {
        reader.take(value).ok_or_else(|| cannot(value))?;
    }
    Ok(reader.end(comes))
}

fn cannot(what: &Value) -> String {
    let why = match what {
        Value::Atom(name)
            if matches!(name.as_str(), "restart_emulator" | "restart_new_emulator") =>
        {
            "restarts the VM, which no live upgrade does. Leave it out; where the VM has to be restarted, \
             apply the upgrade with restart: :rolling, which follows no instructions"
        }
        _ => {
            "is no instruction that is carried out here. Leave the file out, and the instructions are \
             made of what has changed; or write what it does with those that are known"
        }
    };
    format!("{} {why}", quoted(what))
}

/// An instruction, or as much of it as is read.
pub(crate) fn quoted(what: &impl ToString) -> String {
    let text = what.to_string();
    match text.char_indices().nth(QUOTED) {
        None => text,
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}

#[derive(Default)]
struct Reader {
    all: Vec<Instruction>,
    /// Where the instruction for a module is.
    places: BTreeMap<String, usize>,
    /// Modules whose processes stand still, with the time that they have for it.
    suspended: BTreeMap<String, Timeout>,
    remarks: Vec<String>,
    versions: BTreeMap<String, String>,
}

impl Reader {
    fn take(&mut self, value: &Value) -> Option<()> {
        match Instruction::parse(&value.to_string()) {
            Ok(Instruction::RestartEmulator | Instruction::RestartNewEmulator) => None,
            Ok(instruction) => self.put(instruction),
            Err(_) => self.low_level(value),
        }
    }

    fn low_level(&mut self, value: &Value) -> Option<()> {
        let Value::Tuple(parts) = value else {
            return matches!(value, Value::Atom(name) if name == "point_of_no_return")
                .then_some(());
        };
        let (Value::Atom(name), arguments) = parts.split_first()? else { return None };
        match (name.as_str(), arguments) {
            ("load_object_code", [Value::Tuple(code)]) => self.reads(code),
            ("load", [Value::Tuple(load)]) => {
                let (module, purge) = purged(load)?;
                self.loads(module, purge)
            }
            ("remove", [Value::Tuple(gone)]) => {
                let (module, _purge) = purged(gone)?;
                self.removes(module)
            }
            // High-level, and another name of `delete_module`.
            ("remove_module", [gone @ .., Value::List(_)]) => {
                let (module, _purge) = purged(gone)?;
                self.removes(module)
            }
            ("purge", [Value::List(modules)]) => {
                modules.iter().try_for_each(|module| self.purges(module.as_atom()?))
            }
            ("suspend", [Value::List(modules)]) => {
                modules.iter().try_for_each(|module| self.suspends(module))
            }
            ("resume", [Value::List(modules)]) => {
                modules.iter().all(|module| module.as_atom().is_some()).then_some(())
            }
            ("code_change", [Value::List(changes)]) => {
                changes.iter().try_for_each(|change| self.converts(change))
            }
            ("code_change", [Value::Atom(way), Value::List(changes)])
                if matches!(way.as_str(), "up" | "down") =>
            {
                changes.iter().try_for_each(|change| self.converts(change))
            }
            ("sync_nodes", [_id, nodes]) => self.waits(value, nodes),
            _ => None,
        }
    }

    /// One for each module.
    fn put(&mut self, instruction: Instruction) -> Option<()> {
        let name = module(&instruction).map(str::to_owned);
        if let Some(place) = name.as_deref().and_then(|name| self.place(name)) {
            *place = merged(place, instruction)?;
            return Some(());
        }
        if let Some(name) = name {
            self.places.insert(name, self.all.len());
        }
        self.all.push(instruction);
        Some(())
    }

    fn place(&mut self, module: &str) -> Option<&mut Instruction> {
        let index = *self.places.get(module)?;
        self.all.get_mut(index)
    }

    fn reads(&mut self, code: &[Value]) -> Option<()> {
        let [Value::Atom(application), Value::String(version), Value::List(modules)] = code else {
            return None;
        };
        self.versions.insert(application.clone(), version.clone());
        modules.iter().all(|module| module.as_atom().is_some()).then_some(())
    }

    /// Where its processes stand still for it, it is an update that leaves states as they are.
    fn loads(&mut self, module: &str, purge: Purges) -> Option<()> {
        let loads = match self.suspended.get(module) {
            Some(timeout) => updates(module, Change::Soft, *timeout, purge),
            None => Instruction::LoadModule(LoadModule {
                module: module.to_owned(),
                purge,
                dependencies: Vec::new(),
            }),
        };
        self.put(loads)
    }

    fn removes(&mut self, module: &str) -> Option<()> {
        let (module, dependencies) = (module.to_owned(), Vec::new());
        self.put(Instruction::DeleteModule { module, dependencies })
    }

    /// Whoever runs old code is killed.
    fn purges(&mut self, module: &str) -> Option<()> {
        match self.place(module) {
            Some(Instruction::LoadModule(load)) => load.purge.post = Purge::Brutal,
            Some(Instruction::Update(Update::Processes(update))) => {
                update.purge.post = Purge::Brutal;
            }
            _ => {}
        }
        Some(())
    }

    fn suspends(&mut self, value: &Value) -> Option<()> {
        let (module, timeout) = match value {
            Value::Atom(module) => (module, Timeout::Default),
            Value::Tuple(pair) => match pair.as_slice() {
                [Value::Atom(module), time] => (module, Timeout::of(time)?),
                _ => return None,
            },
            _ => return None,
        };
        self.suspended.insert(module.clone(), timeout);
        Some(())
    }

    fn converts(&mut self, change: &Value) -> Option<()> {
        let Value::Tuple(pair) = change else { return None };
        let [Value::Atom(module), extra] = pair.as_slice() else { return None };
        let timeout = self.suspended.get(module).copied().unwrap_or_default();
        let purge = Purges { pre: Purge::Soft, post: Purge::Soft };
        self.put(updates(module, Change::Advanced(extra.clone()), timeout, purge))
    }

    fn waits(&mut self, value: &Value, nodes: &Value) -> Option<()> {
        let called = match nodes {
            Value::List(_) => String::new(),
            Value::Tuple(call) => match call.as_slice() {
                [module, function, Value::List(arguments)] => {
                    let arity = arguments.len();
                    format!(
                        ", and {}:{}/{arity} is not called",
                        module.as_atom()?,
                        function.as_atom()?
                    )
                }
                _ => return None,
            },
            _ => return None,
        };
        self.remarks.push(format!(
            "{} is not needed, as all nodes change in one step{called}",
            quoted(value)
        ));
        Some(())
    }

    fn end(mut self, comes: impl Fn(&str) -> bool) -> Script {
        let all = applications(self.all, comes);
        for module in self.suspended.keys().filter(|name| !self.places.contains_key(*name)) {
            self.remarks.push(format!(
                "the processes of {module} are not held: those stand still whose code changes"
            ));
        }
        Script { instructions: all, remarks: self.remarks, versions: self.versions }
    }
}

/// What two instructions for one module come to; none of those that are not to be had together.
fn merged(before: &Instruction, after: Instruction) -> Option<Instruction> {
    use Instruction::{LoadModule as Load, Update as Updates};
    Some(match (before, after) {
        (
            Updates(Update::Processes(Processes { change: Change::Advanced(_), .. })),
            Updates(Update::Processes(Processes { change: Change::Advanced(_), .. })),
        ) => return None,
        // Converted before the load, on the way down.
        (
            Updates(Update::Processes(update)),
            Load(LoadModule { purge, .. })
            | Updates(Update::Processes(Processes { change: Change::Soft, purge, .. })),
        ) => Updates(Update::Processes(Processes { purge, ..update.clone() })),
        (Updates(_), Load(_)) => before.clone(),
        // Converted after it.
        (
            Load(LoadModule { purge, .. }) | Updates(Update::Processes(Processes { purge, .. })),
            Updates(Update::Processes(update)),
        ) => Updates(Update::Processes(Processes { purge: *purge, ..update })),
        // Removed and loaded again, as those of an application that is restarted.
        (_, after) => after,
    })
}

fn updates(module: &str, change: Change, timeout: Timeout, purge: Purges) -> Instruction {
    Instruction::Update(Update::Processes(Processes {
        module: module.to_owned(),
        change,
        kind: ModuleType::default(),
        timeout,
        purge,
        dependencies: Vec::new(),
    }))
}

/// `{Module, PrePurge, PostPurge}`
fn purged(parts: &[Value]) -> Option<(&str, Purges)> {
    let [module, pre, post] = parts else { return None };
    Some((module.as_atom()?, Purges::of(pre, post)?))
}

/// The module that an instruction is about.
pub(crate) fn module(instruction: &Instruction) -> Option<&str> {
    match instruction {
        Instruction::Update(Update::Supervisor(module) | Update::Children(module))
        | Instruction::AddModule { module, .. }
        | Instruction::DeleteModule { module, .. } => Some(module),
        Instruction::Update(Update::Processes(update)) => Some(&update.module),
        Instruction::LoadModule(load) => Some(&load.module),
        _ => None,
    }
}

/// What a call of `application` does with one.
enum Call {
    Stop,
    Unload,
    Start(Start),
}

/// Calls that stop and start an application as what they are for.
fn applications(all: Vec<Instruction>, comes: impl Fn(&str) -> bool) -> Vec<Instruction> {
    let mut known: BTreeMap<&str, Vec<Call>> = BTreeMap::new();
    for (name, call) in all.iter().filter_map(call) {
        known.entry(name).or_default().push(call);
    }
    let whole: BTreeMap<String, Instruction> = known
        .into_iter()
        .filter_map(|(name, calls)| {
            Some((name.to_owned(), of_application(name, &calls, comes(name))?))
        })
        .collect();
    let mut seen = BTreeSet::new();
    let first = |instruction: Instruction| match call(&instruction).map(|(name, _)| name) {
        Some(name) if whole.contains_key(name) => {
            let first = seen.insert(name.to_owned());
            whole.get(name).filter(|_| first).cloned()
        }
        _ => Some(instruction),
    };
    all.into_iter().filter_map(first).collect()
}

/// None of what has no instruction of its own, as being stopped and nothing more.
fn of_application(name: &str, calls: &[Call], comes: bool) -> Option<Instruction> {
    let name = name.to_owned();
    match calls {
        [Call::Stop, Call::Start(_)] | [Call::Stop, Call::Unload, Call::Start(_)] => {
            Some(Instruction::RestartApplication(name))
        }
        [Call::Stop, Call::Unload] => Some(Instruction::RemoveApplication(name)),
        [Call::Start(start)] if comes => {
            Some(Instruction::AddApplication { application: name, start: *start })
        }
        _ => None,
    }
}

fn call(instruction: &Instruction) -> Option<(&str, Call)> {
    let Instruction::Apply { module, function, arguments } = instruction else { return None };
    if module != "application" {
        return None;
    }
    Some(match (function.as_str(), arguments.as_slice()) {
        ("stop", [Value::Atom(name)]) => (name, Call::Stop),
        ("unload", [Value::Atom(name)]) => (name, Call::Unload),
        ("load", [Value::Atom(name)]) => (name, Call::Start(Start::Load)),
        ("start", [Value::Atom(name)]) => (name, Call::Start(Start::Temporary)),
        ("start", [Value::Atom(name), Value::Atom(start)]) => {
            let starts = |start: &Start| !matches!(start, Start::Load | Start::None);
            (name, Call::Start(Start::named(start).filter(starts)?))
        }
        _ => return None,
    })
}
