//! Instructions as terms, and as text.

use std::fmt::{self, Display, Formatter};

use super::{
    Appup, Change, Instruction, LoadModule, ModuleType, Processes, Purge, Purges, Script, Start,
    Timeout, Update, Value, Version,
};

impl Instruction {
    /// The instruction as a term, in its shortest form.
    pub fn value(&self) -> Value {
        match self {
            Instruction::Update(Update::Supervisor(module)) => {
                tuple("update", [Value::atom(module), Value::atom("supervisor")])
            }
            Instruction::Update(Update::Children(module)) => {
                let how = ["supervisor", "children"].map(Value::atom).to_vec();
                tuple("update", [Value::atom(module), Value::Tuple(how)])
            }
            Instruction::Update(Update::Processes(update)) => update.value(),
            Instruction::LoadModule(load) => load.value(),
            Instruction::AddModule { module, dependencies } => {
                with_dependencies("add_module", module, dependencies)
            }
            Instruction::DeleteModule { module, dependencies } => {
                with_dependencies("delete_module", module, dependencies)
            }
            Instruction::AddApplication { application, start: Start::Permanent } => {
                tuple("add_application", [Value::atom(application)])
            }
            Instruction::AddApplication { application, start } => {
                tuple("add_application", [Value::atom(application), Value::atom(start.name())])
            }
            Instruction::RemoveApplication(name) => {
                tuple("remove_application", [Value::atom(name)])
            }
            Instruction::RestartApplication(name) => {
                tuple("restart_application", [Value::atom(name)])
            }
            Instruction::Apply { module, function, arguments } => {
                let arguments = Value::List(arguments.clone());
                let called = vec![Value::atom(module), Value::atom(function), arguments];
                tuple("apply", [Value::Tuple(called)])
            }
            Instruction::RestartNewEmulator => Value::atom("restart_new_emulator"),
            Instruction::RestartEmulator => Value::atom("restart_emulator"),
        }
    }
}

impl Processes {
    fn value(&self) -> Value {
        let module = Value::atom(&self.module);
        let change = self.change.value();
        let dependencies = atoms(&self.dependencies);
        let [pre, post] = self.purge.values();
        let timeout = self.timeout.value();
        if self.kind != ModuleType::default() {
            let kind = Value::atom(self.kind.name());
            return tuple("update", [module, kind, timeout, change, pre, post, dependencies]);
        }
        if self.timeout != Timeout::default() {
            return tuple("update", [module, timeout, change, pre, post, dependencies]);
        }
        if self.purge != Purges::default() {
            return tuple("update", [module, change, pre, post, dependencies]);
        }
        let change = (self.change != Change::Soft).then_some(change);
        let dependencies = (!self.dependencies.is_empty()).then_some(dependencies);
        tuple("update", [Some(module), change, dependencies].into_iter().flatten())
    }
}

impl LoadModule {
    fn value(&self) -> Value {
        if self.purge == Purges::default() {
            return with_dependencies("load_module", &self.module, &self.dependencies);
        }
        let [pre, post] = self.purge.values();
        tuple("load_module", [Value::atom(&self.module), pre, post, atoms(&self.dependencies)])
    }
}

impl Change {
    fn value(&self) -> Value {
        match self {
            Change::Soft => Value::atom("soft"),
            Change::Advanced(extra) => tuple("advanced", [extra.clone()]),
        }
    }
}

impl Timeout {
    fn value(self) -> Value {
        match self {
            Timeout::Default => Value::atom("default"),
            Timeout::Infinity => Value::atom("infinity"),
            Timeout::Milliseconds(time) => Value::Integer(time.to_string()),
        }
    }
}

impl Purges {
    fn values(self) -> [Value; 2] {
        [self.pre, self.post].map(|purge| Value::atom(purge.name()))
    }
}

impl Purge {
    fn name(self) -> &'static str {
        match self {
            Purge::Brutal => "brutal_purge",
            Purge::Soft => "soft_purge",
        }
    }
}

impl ModuleType {
    fn name(self) -> &'static str {
        match self {
            ModuleType::Dynamic => "dynamic",
            ModuleType::Static => "static",
        }
    }
}

impl Start {
    /// Every way to start an application.
    pub(super) const ALL: [Start; 5] =
        [Start::Permanent, Start::Transient, Start::Temporary, Start::Load, Start::None];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Start::ALL.into_iter().find(|start| start.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Start::Permanent => "permanent",
            Start::Transient => "transient",
            Start::Temporary => "temporary",
            Start::Load => "load",
            Start::None => "none",
        }
    }
}

fn with_dependencies(name: &str, module: &str, dependencies: &[String]) -> Value {
    let dependencies = (!dependencies.is_empty()).then(|| atoms(dependencies));
    tuple(name, std::iter::once(Value::atom(module)).chain(dependencies))
}

fn tuple(name: &str, elements: impl IntoIterator<Item = Value>) -> Value {
    Value::Tuple(std::iter::once(Value::atom(name)).chain(elements).collect())
}

fn atoms(names: &[String]) -> Value {
    Value::List(names.iter().map(|name| Value::atom(name)).collect())
}

impl Display for Instruction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// The whole file, one instruction a line.
impl Display for Appup {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{{{},\n ", Value::String(self.version.clone()))?;
        scripts(f, &self.up)?;
        f.write_str(",\n ")?;
        scripts(f, &self.down)?;
        f.write_str("}.\n")
    }
}

fn scripts(f: &mut Formatter<'_>, scripts: &[Script]) -> fmt::Result {
    f.write_str("[")?;
    for (index, Script { version, instructions }) in scripts.iter().enumerate() {
        let comma = if index == 0 { "" } else { ",\n  " };
        let version = match version {
            Version::Exactly(version) => Value::String(version.clone()),
            Version::Matching(pattern) => Value::Binary(pattern.clone()),
        };
        write!(f, "{comma}{{{version},\n   [")?;
        for (index, instruction) in instructions.iter().enumerate() {
            let comma = if index == 0 { "" } else { ",\n    " };
            write!(f, "{comma}{instruction}")?;
        }
        f.write_str("]}")?;
    }
    f.write_str("]")
}
