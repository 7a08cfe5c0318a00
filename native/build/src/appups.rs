//! What the authors of an application have written down for the way to its next version, in its
//! `.appup`.

use hot_patch_core::appup::{Change, Instruction, LoadModule, Processes, Purges, Update, Value};
use hot_patch_core::appup::{ModuleType, Timeout};

use crate::error::Error;
use crate::side::{Key, Side};

/// The beginning of one that `mix hot_patch.relup` has made: no author has written it.
const MADE: &str = "%% Made by mix hot_patch.relup";

/// The instructions for both ways between two versions of an application, where there are some.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) up: Option<Vec<Instruction>>,
    pub(crate) down: Option<Vec<Instruction>>,
    /// Whether some are there for versions that are named by a pattern, which is not read here.
    pub(crate) by_pattern: bool,
}

/// What the file of an application in the new release says of the version in the former one.
pub(crate) fn written(to: &Side, name: &str, from: &str) -> Result<Written, Error> {
    let below = format!("ebin/{name}.appup");
    let key = Key::Of { application: name.to_owned(), below };
    let Some(content) = to.files.get(&key) else { return Ok(Written::default()) };
    let bytes = content.read()?;
    let text = String::from_utf8_lossy(&bytes);
    if text.starts_with(MADE) {
        return Ok(Written::default());
    }
    let unreadable = |why: String| Error::NoUpgrade(format!("{name}.appup: {why}"));
    let term = text.trim_end().strip_suffix('.').unwrap_or(&text);
    let term = Value::parse(term).map_err(|error| unreadable(error.to_string()))?;
    let Value::Tuple(parts) = term else { return Err(unreadable(FORM.to_owned())) };
    let [_, Value::List(up), Value::List(down)] = parts.as_slice() else {
        return Err(unreadable(FORM.to_owned()));
    };
    let read = |scripts: &[Value]| {
        let script = script(scripts, from)?;
        Some(instructions(script).map_err(|what| unreadable(cannot(&what))))
    };
    Ok(Written {
        up: read(up).transpose()?,
        down: read(down).transpose()?,
        by_pattern: up.iter().chain(down).any(is_by_pattern),
    })
}

const FORM: &str = "it is no {Vsn, [{UpFrom, Instructions}], [{DownTo, Instructions}]}";

fn cannot(what: &Value) -> String {
    format!(
        "{what} is no instruction that is carried out here. Leave the file out, and the \
         instructions are made of what has changed; or write what it does with those that are known"
    )
}

fn script<'v>(scripts: &'v [Value], version: &str) -> Option<&'v [Value]> {
    scripts.iter().find_map(|script| match script {
        Value::Tuple(pair) => match pair.as_slice() {
            [Value::String(of), Value::List(instructions)] if of == version => {
                Some(instructions.as_slice())
            }
            _ => None,
        },
        _ => None,
    })
}

fn is_by_pattern(script: &Value) -> bool {
    matches!(script, Value::Tuple(pair) if matches!(pair.first(), Some(Value::Binary(_))))
}

/// High-level ones as they are. Of low-level ones what is not done by itself where all becomes
/// current in one step.
fn instructions(script: &[Value]) -> Result<Vec<Instruction>, Value> {
    let mut all = Vec::new();
    for value in script {
        match Instruction::parse(&value.to_string()) {
            Ok(instruction) => all.push(instruction),
            Err(_) => all.extend(low_level(value).ok_or_else(|| value.clone())?),
        }
    }
    // What is loaded and then converted is one update.
    let updated: Vec<String> = all.iter().filter_map(converted).map(str::to_owned).collect();
    all.retain(
        |one| !matches!(one, Instruction::LoadModule(load) if updated.contains(&load.module)),
    );
    Ok(all)
}

fn converted(instruction: &Instruction) -> Option<&str> {
    match instruction {
        Instruction::Update(Update::Processes(update)) => Some(&update.module),
        _ => None,
    }
}

fn low_level(value: &Value) -> Option<Vec<Instruction>> {
    let Value::Tuple(parts) = value else {
        return matches!(value, Value::Atom(name) if name == "point_of_no_return").then(Vec::new);
    };
    let (Value::Atom(name), arguments) = parts.split_first()? else { return None };
    match (name.as_str(), arguments) {
        // Preparing, standing still and going on is what every step is made of.
        ("load_object_code" | "suspend" | "resume" | "purge" | "sync_nodes", _) => Some(Vec::new()),
        ("load", [Value::Tuple(load)]) => match load.as_slice() {
            [Value::Atom(module), ..] => Some(vec![loads(module)]),
            _ => None,
        },
        ("remove", [Value::Tuple(gone)]) => match gone.as_slice() {
            [Value::Atom(module), ..] => Some(vec![Instruction::DeleteModule {
                module: module.clone(),
                dependencies: Vec::new(),
            }]),
            _ => None,
        },
        ("code_change", [Value::List(changes)] | [Value::Atom(_), Value::List(changes)]) => {
            changes.iter().map(converts).collect()
        }
        _ => None,
    }
}

fn loads(module: &str) -> Instruction {
    let (purge, dependencies) = (Purges::default(), Vec::new());
    Instruction::LoadModule(LoadModule { module: module.to_owned(), purge, dependencies })
}

fn converts(change: &Value) -> Option<Instruction> {
    let Value::Tuple(pair) = change else { return None };
    let [Value::Atom(module), extra] = pair.as_slice() else { return None };
    Some(Instruction::Update(Update::Processes(Processes {
        module: module.clone(),
        change: Change::Advanced(extra.clone()),
        kind: ModuleType::default(),
        timeout: Timeout::default(),
        purge: Purges::default(),
        dependencies: Vec::new(),
    })))
}
