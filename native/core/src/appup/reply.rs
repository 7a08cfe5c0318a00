//! Instructions as one encoded term, for those who carry them out:
//!
//! ```text
//! {:ok, [instruction]} | {:error, binary}
//!
//! instruction = %{what: atom, text: binary, subject: binary, module: boolean, how: atom | nil,
//!                 function: binary | nil, arity: integer, term: binary | nil, brutal: boolean,
//!                 time: binary | nil}
//! ```
//!
//! `what` is the instruction's name, `text` all of it, `subject` its module or application. `term`
//! is the text of what `code_change` is given, or of the arguments of a call.

use std::borrow::Cow;

use super::{Change, Instruction, ParseError, Processes, Purge, Purges, Timeout, Update, Value};
use hot_patch_beam::etf::Term;
use hot_patch_beam::text::printable;

/// What is to be known of an instruction to carry it out.
#[derive(Debug, Default)]
struct Step {
    what: &'static str,
    text: String,
    subject: String,
    module: bool,
    how: Option<&'static str>,
    function: Option<String>,
    arity: i64,
    term: Option<String>,
    brutal: bool,
    time: Option<String>,
}

/// Reads texts; what is wrong with the first that is no instruction, in words.
pub fn read(texts: &[&str]) -> Result<Vec<Instruction>, String> {
    let one = |text: &&str| {
        Instruction::parse(text).map_err(|error| match error {
            // It has the text in it.
            ParseError::Instruction(_) => printable(error.to_string().as_bytes()),
            _ => format!("{} is no instruction: {error}", printable(text.as_bytes())),
        })
    };
    texts.iter().map(one).collect()
}

/// Gives what [`read`] has read as a term to `take`, whose result is returned.
pub fn with_term<R>(
    read: &Result<Vec<Instruction>, String>,
    take: impl FnOnce(&Term<'_>) -> R,
) -> R {
    match read {
        Err(error) => take(&Term::Tuple(vec![atom("error"), text(error)])),
        Ok(instructions) => {
            let steps: Vec<Step> = instructions.iter().map(Step::of).collect();
            let list = Term::List(steps.iter().map(Step::term).collect(), None);
            take(&Term::Tuple(vec![atom("ok"), list]))
        }
    }
}

impl Step {
    fn of(instruction: &Instruction) -> Step {
        let step = match instruction {
            Instruction::Update(Update::Supervisor(module)) => {
                Step { how: Some("supervisor"), ..Step::module("update", module) }
            }
            Instruction::Update(Update::Children(module)) => {
                Step { how: Some("children"), ..Step::module("update", module) }
            }
            Instruction::Update(Update::Processes(update)) => Step::update(update),
            Instruction::LoadModule(load) => Step {
                how: Some("soft"),
                brutal: brutal(load.purge),
                ..Step::module("load_module", &load.module)
            },
            Instruction::AddModule { module, .. } => Step::module("add_module", module),
            Instruction::DeleteModule { module, .. } => Step::module("delete_module", module),
            Instruction::AddApplication { application, start } => {
                Step { how: Some(start.name()), ..Step::named("add_application", application) }
            }
            Instruction::RemoveApplication(name) => Step::named("remove_application", name),
            Instruction::RestartApplication(name) => Step::named("restart_application", name),
            Instruction::Apply { module, function, arguments } => Step {
                function: Some(function.clone()),
                arity: i64::try_from(arguments.len()).unwrap_or(i64::MAX),
                term: Some(Value::List(arguments.clone()).to_string()),
                ..Step::named("apply", module)
            },
            Instruction::RestartNewEmulator => Step::named("restart_new_emulator", ""),
            Instruction::RestartEmulator => Step::named("restart_emulator", ""),
        };
        Step { text: instruction.to_string(), ..step }
    }

    fn named(what: &'static str, subject: &str) -> Step {
        Step { what, subject: subject.to_owned(), ..Step::default() }
    }

    fn module(what: &'static str, module: &str) -> Step {
        Step { module: true, ..Step::named(what, module) }
    }

    fn update(update: &Processes) -> Step {
        let (how, term) = match &update.change {
            Change::Soft => ("soft", None),
            Change::Advanced(extra) => ("advanced", Some(extra.to_string())),
        };
        // Whatever the kind, the newer code converts on the way down: it is tried before the load.
        Step {
            how: Some(how),
            term,
            brutal: brutal(update.purge),
            time: match update.timeout {
                Timeout::Default => None,
                Timeout::Infinity => Some("infinity".to_owned()),
                Timeout::Milliseconds(time) => Some(time.to_string()),
            },
            ..Step::module("update", &update.module)
        }
    }

    fn term(&self) -> Term<'_> {
        let fields = [
            ("what", atom(self.what)),
            ("text", text(&self.text)),
            ("subject", text(&self.subject)),
            ("module", boolean(self.module)),
            ("how", atom(self.how.unwrap_or("nil"))),
            ("function", optional(self.function.as_deref())),
            ("arity", Term::Integer(self.arity)),
            ("term", optional(self.term.as_deref())),
            ("brutal", boolean(self.brutal)),
            ("time", optional(self.time.as_deref())),
        ];
        Term::Map(fields.into_iter().map(|(key, value)| (atom(key), value)).collect())
    }
}

fn brutal(purge: Purges) -> bool {
    purge.pre == Purge::Brutal || purge.post == Purge::Brutal
}

fn atom(name: &'static str) -> Term<'static> {
    Term::Atom(Cow::Borrowed(name))
}

fn text(text: &str) -> Term<'_> {
    Term::Binary(text.as_bytes())
}

fn optional(one: Option<&str>) -> Term<'_> {
    one.map_or_else(|| atom("nil"), text)
}

fn boolean(value: bool) -> Term<'static> {
    atom(if value { "true" } else { "false" })
}
