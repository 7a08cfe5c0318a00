//! What the authors of an application have written down for the way to its next version, in its
//! `.appup`.

use hot_patch_core::appup::Value;
use regex_lite::Regex;

use crate::error::Error;
use crate::script::quoted;
use crate::side::{Key, Side};

/// The beginning of one that `mix hot_patch.relup` has made: no author has written it.
const MADE: &[u8] = b"%% Made by mix hot_patch.relup";

/// What it says of one way between two versions of an application.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) script: Option<Vec<Value>>,
    /// The patterns of versions that stand before it, and are not understood here.
    pub(crate) unread: Vec<String>,
}

/// What the file of an application in the new release says of the version in the former one.
pub(crate) fn written(to: &Side, name: &str, from: &str, is_up: bool) -> Result<Written, Error> {
    let below = format!("ebin/{name}.appup");
    let key = Key::Of { application: name.to_owned(), below };
    let Some(content) = to.files.get(&key) else { return Ok(Written::default()) };
    let bytes = content.read()?;
    if bytes.starts_with(MADE) {
        return Ok(Written::default());
    }
    let unreadable = |why: String| Error::NoUpgrade(format!("{name}.appup: {why}"));
    let term = Value::consult(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let Value::Tuple(parts) = term else { return Err(unreadable(FORM.to_owned())) };
    let [_, Value::List(up), Value::List(down)] = parts.as_slice() else {
        return Err(unreadable(FORM.to_owned()));
    };
    let scripts = if is_up { up } else { down };
    let mut unread = Vec::new();
    for script in scripts {
        let Value::Tuple(pair) = script else { return Err(unreadable(FORM.to_owned())) };
        let [version, Value::List(script)] = pair.as_slice() else {
            return Err(unreadable(FORM.to_owned()));
        };
        match covers(version, from) {
            Some(true) => return Ok(Written { script: Some(script.clone()), unread }),
            Some(false) => {}
            None => unread.push(quoted(version)),
        }
    }
    Ok(Written { script: None, unread })
}

/// Whether a script is for a version: for that alone, or for those that a pattern matches as a whole.
/// None where the pattern is not understood.
fn covers(version: &Value, from: &str) -> Option<bool> {
    match version {
        Value::String(version) => Some(version == from),
        Value::Binary(pattern) => matches(pattern, from),
        Value::Bytes(pattern) => matches(str::from_utf8(pattern).ok()?, from),
        _ => None,
    }
}

/// As `re:run` finds it, whose first match is to be the whole version. What the two would read otherwise is
/// left alone: the possessive `++` there is a `+` of `+` here.
fn matches(pattern: &str, version: &str) -> Option<bool> {
    let is_possessive = ["++", "*+", "?+", "}+"].iter().any(|one| pattern.contains(one));
    let pattern = Regex::new(pattern).ok().filter(|_| !is_possessive)?;
    Some(pattern.find(version).is_some_and(|found| found.as_str() == version))
}

const FORM: &str = "it is no {Vsn, [{UpFrom, Instructions}], [{DownTo, Instructions}]}";
