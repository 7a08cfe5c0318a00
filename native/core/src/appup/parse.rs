//! The way back from terms: what they mean.

use super::reader::{SyntaxError, term};
use super::{
    Appup, Change, Instruction, LoadModule, ModuleType, Processes, Purge, Purges, Script, Start,
    Timeout, Update, Value, Version,
};

/// Why a text is no appup, or no instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No term at all.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// A term that is no instruction.
    #[error("{0} is no instruction that is known")]
    Instruction(String),
    /// A term that is no appup.
    #[error("the term is no {{Vsn, [{{UpFrom, Instructions}}], [{{DownTo, Instructions}}]}}")]
    Appup,
}

impl Appup {
    /// Reads the text of an `.appup` file.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let Value::Tuple(elements) = term(text)? else { return Err(ParseError::Appup) };
        match elements.as_slice() {
            [Value::String(version), up, down] => {
                Ok(Appup { version: version.clone(), up: scripts(up)?, down: scripts(down)? })
            }
            _ => Err(ParseError::Appup),
        }
    }
}

impl Instruction {
    /// Reads one instruction, with or without a dot behind it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let value = term(text)?;
        instruction(&value).ok_or_else(|| ParseError::Instruction(value.to_string()))
    }
}

fn scripts(value: &Value) -> Result<Vec<Script>, ParseError> {
    let Value::List(scripts) = value else { return Err(ParseError::Appup) };
    let script = |script: &Value| {
        let Value::Tuple(pair) = script else { return Err(ParseError::Appup) };
        let [version, Value::List(instructions)] = pair.as_slice() else {
            return Err(ParseError::Appup);
        };
        let version = match version {
            Value::String(version) => Version::Exactly(version.clone()),
            Value::Binary(pattern) => Version::Matching(pattern.clone()),
            _ => return Err(ParseError::Appup),
        };
        let read = |value: &Value| {
            instruction(value).ok_or_else(|| ParseError::Instruction(value.to_string()))
        };
        let instructions = instructions.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Script { version, instructions })
    };
    scripts.iter().map(script).collect()
}

fn instruction(value: &Value) -> Option<Instruction> {
    let elements = match value {
        Value::Tuple(elements) => elements.as_slice(),
        Value::Atom(name) => {
            return match name.as_str() {
                "restart_new_emulator" => Some(Instruction::RestartNewEmulator),
                "restart_emulator" => Some(Instruction::RestartEmulator),
                _ => None,
            };
        }
        _ => return None,
    };
    let (name, arguments) = elements.split_first()?;
    let (subject, rest) = arguments.split_first()?;
    if name.as_atom()? == "apply" {
        return if rest.is_empty() { apply(subject) } else { None };
    }
    let subject = subject.as_atom()?.to_owned();
    match (name.as_atom()?, rest) {
        ("update", rest) => update(subject, rest).map(Instruction::Update),
        ("load_module", rest) => {
            let (purge, rest) = match rest {
                [pre, post, list] => (Purges::of(pre, post)?, std::slice::from_ref(list)),
                rest => (Purges::default(), rest),
            };
            let dependencies = dependencies(rest)?;
            Some(Instruction::LoadModule(LoadModule { module: subject, purge, dependencies }))
        }
        ("add_module", rest) => {
            Some(Instruction::AddModule { module: subject, dependencies: dependencies(rest)? })
        }
        ("delete_module", rest) => {
            Some(Instruction::DeleteModule { module: subject, dependencies: dependencies(rest)? })
        }
        ("add_application", []) => {
            Some(Instruction::AddApplication { application: subject, start: Start::Permanent })
        }
        ("add_application", [start]) => {
            let named = |one: &Start| start.as_atom() == Some(one.name());
            let start = Start::ALL.into_iter().find(named)?;
            Some(Instruction::AddApplication { application: subject, start })
        }
        ("remove_application", []) => Some(Instruction::RemoveApplication(subject)),
        ("restart_application", []) => Some(Instruction::RestartApplication(subject)),
        _ => None,
    }
}

fn apply(value: &Value) -> Option<Instruction> {
    let Value::Tuple(elements) = value else { return None };
    let [Value::Atom(module), Value::Atom(function), Value::List(arguments)] = elements.as_slice()
    else {
        return None;
    };
    let (module, function) = (module.clone(), function.clone());
    Some(Instruction::Apply { module, function, arguments: arguments.clone() })
}

fn update(module: String, rest: &[Value]) -> Option<Update> {
    let soft = Processes {
        module,
        change: Change::Soft,
        kind: ModuleType::Dynamic,
        timeout: Timeout::Default,
        purge: Purges::default(),
        dependencies: Vec::new(),
    };
    Some(Update::Processes(match rest {
        [] => soft,
        [Value::Atom(name)] if name == "supervisor" => {
            return Some(Update::Supervisor(soft.module));
        }
        [Value::Tuple(how)] if is_children(how) => return Some(Update::Children(soft.module)),
        [list @ Value::List(_)] => Processes { dependencies: names(list)?, ..soft },
        [how] => Processes { change: change(how)?, ..soft },
        [how, list] => Processes { change: change(how)?, dependencies: names(list)?, ..soft },
        [rest @ .., how, pre, post, list] => {
            let (kind, timeout) = match rest {
                [] => (ModuleType::Dynamic, Timeout::Default),
                [time] => (ModuleType::Dynamic, Timeout::of(time)?),
                [kind, time] => (module_type(kind)?, Timeout::of(time)?),
                _ => return None,
            };
            let (change, purge) = (change(how)?, Purges::of(pre, post)?);
            Processes { kind, timeout, change, purge, dependencies: names(list)?, ..soft }
        }
        _ => return None,
    }))
}

fn is_children(how: &[Value]) -> bool {
    matches!(how, [Value::Atom(one), Value::Atom(other)] if one == "supervisor" && other == "children")
}

fn change(value: &Value) -> Option<Change> {
    match value {
        Value::Atom(name) if name == "soft" => Some(Change::Soft),
        Value::Tuple(pair) => match pair.as_slice() {
            [Value::Atom(name), extra] if name == "advanced" => {
                Some(Change::Advanced(extra.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

impl Timeout {
    /// What stands for one in an instruction, if it is one.
    #[must_use]
    pub fn of(value: &Value) -> Option<Timeout> {
        match value {
            Value::Atom(name) if name == "default" => Some(Timeout::Default),
            Value::Atom(name) if name == "infinity" => Some(Timeout::Infinity),
            Value::Integer(time) => match time.parse().ok()? {
                0 => None,
                time => Some(Timeout::Milliseconds(time)),
            },
            _ => None,
        }
    }
}

fn module_type(value: &Value) -> Option<ModuleType> {
    match value.as_atom()? {
        "dynamic" => Some(ModuleType::Dynamic),
        "static" => Some(ModuleType::Static),
        _ => None,
    }
}

impl Purges {
    /// What stands for them in an instruction, if they are any.
    #[must_use]
    pub fn of(pre: &Value, post: &Value) -> Option<Purges> {
        let purge = |value: &Value| match value.as_atom()? {
            "brutal_purge" => Some(Purge::Brutal),
            "soft_purge" => Some(Purge::Soft),
            _ => None,
        };
        Some(Purges { pre: purge(pre)?, post: purge(post)? })
    }
}

fn dependencies(rest: &[Value]) -> Option<Vec<String>> {
    match rest {
        [] => Some(Vec::new()),
        [list] => names(list),
        _ => None,
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    let Value::List(names) = value else { return None };
    names.iter().map(|name| name.as_atom().map(str::to_owned)).collect()
}
